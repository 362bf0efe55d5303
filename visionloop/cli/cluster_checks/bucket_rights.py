"""Checks what the accounts that do the work may do in the buckets of a loop.

Each account's own token is taken from Kubernetes, exchanged at Google as its pods do it (Workload
Identity), and the buckets are asked which rights it has. Nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look
from visionloop.cli.cluster_checks.workload_identity import (
    GOOGLE_ACCOUNT,
    Identity,
    Unknown,
    missing_rights,
    sign_in,
)

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_READ = ("storage.objects.get", "storage.objects.list")
_WRITE = (*_READ, "storage.objects.create", "storage.objects.delete")
_COLLECTOR = "visionloop-collector"


@dataclass(frozen=True)
class Need:
    """What an account has to be allowed in a bucket.

    Attributes:
        account: Kubernetes service account.
        namespace: Its namespace.
        bucket: Name of the bucket.
        rights: Google's names of the rights.
    """

    account: str
    namespace: str
    bucket: str
    rights: tuple[str, ...]


def bucket_rights(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether runner, collector and predictor may do their work in the buckets.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding an account and bucket; none where the loop has no bucket.
    """
    known: dict[tuple[str, str], Identity] = {}
    for need in _needs(cluster, question):
        check = f"rights of {need.account} in gs://{need.bucket}"
        yield look(check, partial(_ask, cluster, check, need, known))


def _ask(
    cluster: Cluster, check: str, need: Need, known: dict[tuple[str, str], Identity]
) -> Finding | str:
    who = (need.namespace, need.account)
    try:
        if who not in known:
            held = cluster.get("v1", "ServiceAccount", need.account, namespace=need.namespace)
            if held is None:
                told = f"it does not exist in namespace {need.namespace}"
                return Finding(check, "warn", f"cannot tell: {told}", "Make the account first")
            google = str((held["metadata"].get("annotations") or {}).get(GOOGLE_ACCOUNT, ""))
            known[who] = sign_in(cluster, need.account, need.namespace, google)
        return _judge(check, need, known[who])
    except Unknown as error:
        return Finding(check, "warn", f"cannot tell: {error.what}", error.remedy)


def _judge(check: str, need: Need, identity: Identity) -> Finding | str:
    if identity.refused:
        return Finding(check, "fail", identity.refused, identity.remedy)
    missing = missing_rights(identity, need.bucket, need.rights)
    if not missing:
        return f"has {', '.join(right.rpartition('.')[2] for right in need.rights)}"
    role = "roles/storage.objectUser" if need.rights == _WRITE else "roles/storage.objectViewer"
    return Finding(
        check,
        "fail",
        f"{identity.member} lacks {', '.join(missing)}",
        f"gcloud storage buckets add-iam-policy-binding gs://{need.bucket} "
        f"--member={identity.member} --role={role}",
    )


def _needs(cluster: Cluster, question: Question) -> Iterator[Need]:
    config = question.config
    if config is None:
        return
    home, lake = cluster.namespace, _bucket(config.lake)
    if question.account:
        wanted = {_bucket(source.uri): _READ for source in config.sources}
        for bucket, rights in (wanted | {lake: _WRITE}).items():
            if bucket:
                yield Need(question.account, home, bucket, rights)
    kserve = config.serving.kserve
    if lake and kserve is not None:
        yield Need(_COLLECTOR, home, lake, _WRITE)
        if kserve.service_account:
            yield Need(kserve.service_account, kserve.namespace or home, lake, _READ)


def _bucket(uri: str) -> str:
    return urlsplit(uri).netloc if uri.startswith("gs://") else ""
