"""Checks of the namespace that tasks run in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_ENFORCED = "pod-security.kubernetes.io/enforce"
# KServe's webhook for pods selects namespaces without it, whatever its value.
_CONTROL_PLANE = "control-plane"
ABSENT = "does not exist"


def namespace(cluster: Cluster) -> Finding:
    """Look whether the namespace exists and lets the pods of Kubeflow Pipelines run.

    Args:
        cluster: The cluster.

    Returns:
        The finding; `ABSENT` is found where there is no such namespace.
    """
    check = f"namespace {cluster.namespace}"

    def ask() -> Finding | str:
        found = cluster.get("v1", "Namespace", cluster.namespace)
        if found is None:
            return Finding(
                check,
                "fail",
                ABSENT,
                "Make it, or name the one that Kubeflow Pipelines runs in with --namespace or "
                "cluster.namespace",
            )
        level = (found["metadata"].get("labels") or {}).get(_ENFORCED, "")
        if level == "restricted":
            return Finding(
                check,
                "fail",
                "enforces the pod security level restricted, which refuses the pods of Kubeflow "
                "Pipelines",
                f"kubectl label namespace {cluster.namespace} {_ENFORCED}=baseline --overwrite; "
                "what visionloop deploys itself is restricted without it",
            )
        return f"pod security level {level}" if level else "no pod security level"

    return look(check, ask)


def endpoint_namespace(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether KServe takes care of the pods of the endpoint's namespace.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding where the configuration publishes to KServe.
    """
    kserve = question.config.serving.kserve if question.config else None
    if kserve is None:
        return
    home = kserve.namespace or cluster.namespace
    check = f"namespace {home} for the endpoint"

    def ask() -> Finding | str:
        found = cluster.get("v1", "Namespace", home)
        if found is None:
            remedy = "Make it, or correct serving.kserve.namespace"
            return Finding(check, "fail", ABSENT, remedy)
        if _CONTROL_PLANE in (found["metadata"].get("labels") or {}):
            return Finding(
                check,
                "fail",
                f"has the label {_CONTROL_PLANE}: KServe changes no pod of such a namespace, so "
                "the endpoint gets no agent and sends no events",
                "Name a namespace without it in serving.kserve.namespace, or install the loop in "
                "one; where nothing else needs the label: "
                f"kubectl label namespace {home} {_CONTROL_PLANE}-",
            )
        return f"KServe takes care of its pods (no label {_CONTROL_PLANE})"

    yield look(check, ask)
