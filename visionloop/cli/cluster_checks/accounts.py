"""Checks of the tasks' service account, its rights, and the Secret that is mounted in them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster
    from visionloop.serving.config import KServeConfig

_GOOGLE_ACCOUNT = "iam.gke.io/gcp-service-account"


@dataclass(frozen=True)
class Right:
    """A right that tasks need.

    Attributes:
        verbs: What is done.
        resource: With what, in the plural; ``pods/log`` for a subresource.
        group: Its API group.
        name: The one object that it is done with; empty: any.
        namespace: None: that of the tasks.
    """

    verbs: tuple[str, ...]
    resource: str
    group: str = ""
    name: str = ""
    namespace: str | None = None


def needed(question: Question) -> list[Right]:
    """Return the rights that the tasks of a configuration need.

    Args:
        question: What is to run.

    Returns:
        The rights, those that every task needs first.
    """
    found = [
        Right(("create", "patch"), "workflowtaskresults", "argoproj.io"),
        Right(("get",), "configmaps", name="kfp-launcher"),
    ]
    config = question.config
    kserve = config.serving.kserve if config else None
    homes: set[str | None] = set()
    verbs: tuple[str, ...]
    if kserve is not None:
        home = kserve.namespace or None
        homes.add(home)
        verbs = ("get", "list", "watch", "create", "patch")
        found.append(Right(verbs, "inferenceservices", "serving.kserve.io", namespace=home))
        found.append(Right(("get", "create"), "pods/proxy", namespace=home))
    if config and config.training.runner == "trainjob":
        homes.add(None)
        verbs = ("get", "list", "watch", "create", "patch", "delete")
        found.append(Right(verbs, "trainjobs", "trainer.kubeflow.org"))
    for home in sorted(homes, key=str):
        found.append(Right(("get", "list", "watch"), "pods", namespace=home))
        found.append(Right(("get",), "pods/log", namespace=home))
        found.append(Right(("list",), "events", namespace=home))
    return found


def accounts(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Check the service account, its rights and the Secret.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding a check.
    """
    if question.account:
        there = look(f"service account {question.account}", lambda: _account(cluster, question))
        yield there
        if there.state != "fail":
            yield look(f"rights of {question.account}", lambda: _rights(cluster, question))
    else:
        yield Finding(
            "service account",
            "warn",
            "cannot tell which one tasks have: Kubeflow Pipelines does not answer",
            "Name it with --service-account or cluster.service_account",
        )
    if question.config:
        from visionloop.pipelines.placement import SECRET

        yield look(f"Secret {SECRET}", lambda: _secret(cluster, question, SECRET))
        kserve = question.config.serving.kserve
        if kserve is not None and kserve.service_account:
            check = f"service account {kserve.service_account}"
            yield look(check, lambda: _predictor(cluster, check, kserve))


def _account(cluster: Cluster, question: Question) -> Finding | str:
    check = f"service account {question.account}"
    found = cluster.get("v1", "ServiceAccount", question.account)
    if found is None:
        return Finding(
            check,
            "fail",
            f"does not exist in namespace {cluster.namespace}",
            "kubectl apply -k manifests/overlays/gke (or local) makes visionloop-runner; or name "
            "another one with --service-account or cluster.service_account",
        )
    annotations = found["metadata"].get("annotations") or {}
    config = question.config
    if config and config.lake.startswith("gs://") and _GOOGLE_ACCOUNT not in annotations:
        return Finding(
            check,
            "warn",
            f"has no annotation {_GOOGLE_ACCOUNT}: cannot tell whether it reaches {config.lake}",
            "Annotate it for Workload Identity, or grant the bucket to its principal:// directly; "
            "`visionloop doctor --lake` in a pod of it tells",
        )
    google = annotations.get(_GOOGLE_ACCOUNT)
    return f"acts as {google}" if google else "exists"


def _rights(cluster: Cluster, question: Question) -> Finding | str:
    check = f"rights of {question.account}"
    from visionloop.cluster import Forbidden

    lacking, count = [], 0
    try:
        for right in needed(question):
            resource, _, subresource = right.resource.partition("/")
            for verb in right.verbs:
                count += 1
                if not cluster.can(
                    verb,
                    resource,
                    group=right.group,
                    namespace=right.namespace,
                    subresource=subresource,
                    name=right.name,
                    account=question.account,
                ):
                    lacking.append(f"{verb} {right.resource}" + _scope(right))
    except Forbidden as error:
        asked = f"--as=system:serviceaccount:{cluster.namespace}:{question.account}"
        return Finding(
            check,
            "warn",
            f"cannot tell: {error.what}",
            f"Ask somebody who may: kubectl auth can-i --list -n {cluster.namespace} {asked}",
        )
    if lacking:
        return Finding(
            check,
            "fail",
            f"may not {', '.join(lacking)}",
            "Bind the Role visionloop-runner to it (manifests/base/runner-role.yaml)",
        )
    return Finding(check, "ok", f"has each of the {count} that its tasks need")


def _scope(right: Right) -> str:
    scope = f".{right.group}" if right.group else ""
    scope += f" {right.name}" if right.name else ""
    return scope + (f" in namespace {right.namespace}" if right.namespace else "")


def _predictor(cluster: Cluster, check: str, kserve: KServeConfig) -> Finding | str:
    home = kserve.namespace or cluster.namespace
    if cluster.get("v1", "ServiceAccount", kserve.service_account, namespace=home) is None:
        return Finding(
            check,
            "fail",
            f"does not exist in namespace {home}: the endpoint's pods would not be made",
            "kubectl apply -k manifests/overlays/gke (or local) makes visionloop-predictor; or "
            "correct serving.kserve.service_account",
        )
    return "exists, for the endpoint"


def _secret(cluster: Cluster, question: Question, secret: str) -> Finding | str:
    check = f"Secret {secret}"
    config = question.config
    # A lake in a bucket has its catalog in PostgreSQL, whose address has a password.
    wanted = bool(config and config.lake.startswith("gs://") and not config.catalog)
    make = (
        f"kubectl create secret generic {secret} -n {cluster.namespace} "
        "--from-literal=catalog=postgresql://user:password@host/lake"
    )
    found = cluster.get("v1", "Secret", secret)
    if found is None:
        if wanted:
            return Finding(check, "fail", "does not exist: tasks find no catalog", make)
        return Finding(check, "ok", "does not exist, and is not needed")
    data = found.get("data") or {}
    if "catalog" not in data:
        keys = ", ".join(sorted(data)) or "none"
        told = f"has no key `catalog` (keys: {keys})"
        return Finding(check, "fail" if wanted else "warn", told, make)
    address = base64.b64decode(data["catalog"]).decode(errors="replace").strip()
    if not address.startswith(("postgresql://", "postgresql+psycopg2://", "sqlite:///")):
        return Finding(
            check,
            "fail",
            "its key `catalog` is empty" if not address else "its key `catalog` is no address",
            make,
        )
    return Finding(check, "ok", f"its key `catalog` is an address of {address.partition(':')[0]}")
