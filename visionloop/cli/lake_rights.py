"""Checks what this account may do under a lake's root, with an object that is made and removed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from visionloop import environment
from visionloop.cli.checks import Finding

if TYPE_CHECKING:
    from visionloop.lake.storage import StorageError

# A person waits for the doctor; a stage gives a bucket more time.
_SECONDS = 20.0
_CHECK = "write to the lake"


def lake_rights(root: str) -> Finding:
    """List, write, read and delete under the root of a lake.

    Args:
        root: The root.

    Returns:
        What this account may not do, by the name of each permission.

    Raises:
        StorageError: Something else than a permission is wrong.
    """
    from visionloop.lake.storage import StorageError, join, open_storage, scheme_of

    storage = open_storage(root)
    # The listing of a bucket asks for nothing else; one of a prefix also looks for that object.
    listed = _bucket(root) if scheme_of(root) == "gs" else root
    probe = join(root, "tmp", f"doctor-{secrets.token_hex(6)}")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("list", lambda: next(iter(storage.list(listed)), None)),
        ("create", lambda: storage.write(probe, b"visionloop doctor")),
        ("get", lambda: storage.read(probe)),
        ("delete", lambda: storage.delete(probe)),
    ]
    lacking: list[str] = []
    limit = min(_SECONDS, environment.storage_timeout())
    with environment.passed_on({"VISIONLOOP_STORAGE_TIMEOUT": str(limit)}):
        for name, step in steps:
            if "create" in lacking and name in ("get", "delete"):
                continue
            try:
                step()
            except StorageError as error:
                if scheme_of(root) != "gs" or not _refused(error):
                    raise
                lacking.append(name)
    if lacking:
        return _lacking(root, lacking, probe)
    return Finding(_CHECK, "ok", "listed, wrote, read and deleted an object")


def _refused(error: StorageError) -> bool:
    """Whether Cloud Storage refused the request: it answers 403 for a permission that lacks."""
    return getattr(error.__cause__, "code", None) == 403


def _lacking(root: str, lacking: list[str], probe: str) -> Finding:
    permissions = ", ".join(f"storage.objects.{name}" for name in lacking)
    told = f"this account lacks {permissions} under {root}"
    if "create" in lacking:
        told += "; without an object of its own, get and delete could not be tried"
    elif "delete" in lacking:
        told += f"; {probe} was left there"
    return Finding(
        _CHECK,
        "fail",
        told,
        f"gcloud storage buckets add-iam-policy-binding {_bucket(root)} "
        "--role=roles/storage.objectUser --member=serviceAccount:ACCOUNT",
    )


def _bucket(root: str) -> str:
    return "/".join(root.split("/")[:3])
