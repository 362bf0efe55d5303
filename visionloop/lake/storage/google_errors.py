"""What Cloud Storage's client raises, in words that say what to do."""

from __future__ import annotations

import re

from visionloop.lake.storage.interface import StorageError, changed

_PERMISSIONS = {
    "list": ("storage.objects.list and storage.objects.get", "roles/storage.objectViewer"),
    "read": ("storage.objects.get", "roles/storage.objectViewer"),
    "download": ("storage.objects.get", "roles/storage.objectViewer"),
    # Who writes over an object deletes the one that lay there.
    "write": ("storage.objects.create and storage.objects.delete", "roles/storage.objectUser"),
    "delete": ("storage.objects.delete", "roles/storage.objectUser"),
}


def raised() -> tuple[type[Exception], ...]:
    """Return what the client raises: its own errors, and its transport's."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    return GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, OSError


def failure(doing: str, uri: str, error: Exception) -> StorageError:
    """Return the error that a person is shown.

    Args:
        doing: What was tried: ``list``, ``read``, ``download``, ``write`` or ``delete``.
        uri: The object.
        error: What the client raised.
    """
    from google.api_core import exceptions as api

    bucket = uri[len("gs://") :].partition("/")[0]
    why = (str(error).strip() or "no reason given").splitlines()[0]
    message = why.lower()

    def said(what: str, remedy: str) -> StorageError:
        return StorageError(f"cannot {doing}: {what}", where=uri, remedy=remedy)

    if isinstance(error, api.PreconditionFailed):
        return changed(uri)
    if isinstance(error, api.BadRequest) and re.search("requester pays|user project", message):
        return said(
            "the bucket is one whose requester pays, and no project is named",
            "Set GOOGLE_CLOUD_QUOTA_PROJECT to the project that pays; it needs "
            "serviceusage.services.use",
        )
    if isinstance(error, api.Forbidden):
        permission, role = _PERMISSIONS[doing]
        return said(
            f"this account lacks {permission} on the bucket, or it does not exist: {why}",
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --role {role} "
            "--member serviceAccount:ACCOUNT",
        )
    if isinstance(error, api.Unauthorized):
        return said(
            f"Google does not know who asks: {why}",
            "Run `gcloud auth application-default login`, or correct the service account's key",
        )
    if isinstance(error, api.NotFound):
        if "bucket does not exist" in message or doing in ("list", "write"):
            return said(
                f"there is no bucket {bucket!r}",
                f"Correct its name, or make it: gcloud storage buckets create gs://{bucket}",
            )
        return said("no such object", "It was removed; run this again")
    return said(
        f"{type(error).__name__}: {why}",
        "Check that the bucket exists and answers, and that this account may read and write it, "
        "then run this again: what was stored is kept",
    )
