"""Checks of the volume that every task mounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from posixpath import normpath
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster


def volumes(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look at the claim of `cluster.volume`, and whether pods see the lake.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding where a volume is named or the lake is on a disk.
    """
    if question.config is None:
        return
    claim = question.config.cluster.claim
    if claim:
        yield look(f"volume {claim}", lambda: _claim(cluster, question, claim))
        yield from _below_the_mount(question)
    elif not question.config.lake.startswith("gs://"):
        yield Finding(
            "lake in the pods",
            "fail",
            f"{question.config.lake} is a folder of this machine, which pods do not see",
            "Set lake to a gs:// URI with a PostgreSQL catalog, or cluster.volume to a claim that "
            "holds it",
        )


def _below_the_mount(question: Question) -> Iterator[Finding]:
    """Look whether the lake is on the volume, where it is a folder."""
    assert question.config is not None
    lake, mount = question.config.lake, question.config.cluster.mount_path
    if lake.startswith("gs://"):
        return
    path = PurePosixPath(normpath(lake.removeprefix("file://")))
    if path.is_relative_to(mount):
        yield Finding("lake in the pods", "ok", f"{lake} is on the volume")
        return
    yield Finding(
        "lake in the pods",
        "fail",
        f"{lake} is not below {mount}, where the volume is mounted: each task would write to a "
        "folder of its own pod, which goes with it",
        f"Set lake to file://{mount}/lake, or mount the volume elsewhere: "
        f"cluster.volume: {question.config.cluster.claim}:{path.parent}",
    )


def _claim(cluster: Cluster, question: Question, claim: str) -> Finding | str:
    check = f"volume {claim}"
    assert question.config is not None
    found = cluster.get("v1", "PersistentVolumeClaim", claim)
    if found is None:
        return Finding(
            check,
            "fail",
            f"there is no PersistentVolumeClaim of that name in namespace {cluster.namespace}",
            "Make it, or correct cluster.volume",
        )
    phase = (found.get("status") or {}).get("phase")
    modes = (found.get("spec") or {}).get("accessModes") or []
    if phase == "Lost":
        return Finding(check, "fail", "its volume is lost", "Restore it from a backup")
    shared = {"ReadWriteMany"} & set(modes)
    if "ReadWriteOncePod" in modes and not shared:
        return Finding(
            check,
            "fail",
            "only one pod may mount it at a time (ReadWriteOncePod)",
            "Use a claim with ReadWriteMany",
        )
    if not shared:
        return Finding(
            check,
            "warn",
            f"only the pods of one node can mount it ({', '.join(modes)})",
            "Use a claim with ReadWriteMany where tasks run on several nodes",
        )
    if phase != "Bound":
        return Finding(
            check,
            "warn",
            f"is {phase or 'not bound'}",
            "Its storage class may wait for the first pod; otherwise: kubectl describe pvc",
        )
    return f"bound, {', '.join(modes)}"
