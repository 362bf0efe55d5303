"""Checks of the namespace that tasks run in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_ENFORCED = "pod-security.kubernetes.io/enforce"


def namespace(cluster: Cluster) -> Iterator[Finding]:
    """Look whether the namespace exists and lets the pods of Kubeflow Pipelines run.

    Args:
        cluster: The cluster.

    Yields:
        One finding.
    """
    check = f"namespace {cluster.namespace}"

    def ask() -> Finding | str:
        found = cluster.get("v1", "Namespace", cluster.namespace)
        if found is None:
            return Finding(
                check,
                "fail",
                "does not exist",
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

    yield look(check, ask)
