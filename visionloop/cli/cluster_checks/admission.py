"""The last check: would the cluster take a task's pod? It is asked, and nothing is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.nodes import task_pod
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_CHECK = "a task's pod"


def admission(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Let the API server check a pod like a task's without making it.

    Quotas, pod security, admission webhooks and policies have their say as with a real one.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding.
    """
    if question.config is not None:
        yield look(_CHECK, lambda: _dry_run(cluster, question))


def _dry_run(cluster: Cluster, question: Question) -> Finding | str:
    from visionloop.cluster import Forbidden
    from visionloop.errors import InputError

    try:
        cluster.apply(_pod(cluster, question), field_manager="visionloop-doctor", dry_run=True)
    except Forbidden as error:
        if error.right:
            raise
        remedy = "Change what is asked for, or the rule that refuses it"
        return Finding(_CHECK, "fail", f"would be refused: {error.what}", remedy)
    except InputError as error:
        if "dry run" in error.what:
            return Finding(_CHECK, "warn", f"cannot tell: {error.what}", "Try a real run")
        return Finding(_CHECK, "fail", f"would be refused: {error.what}", error.remedy)
    return "would be admitted"


def _pod(cluster: Cluster, question: Question) -> dict[str, Any]:
    """A pod as Kubeflow Pipelines makes them: without what only *restricted* asks for."""
    assert question.config is not None
    asked = task_pod(question)
    queue = question.config.cluster.queue
    metadata: dict[str, Any] = {"name": "visionloop-doctor", "namespace": cluster.namespace}
    if queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": queue}
    resources = {"requests": asked.resources, "limits": asked.resources}
    container = {"name": "main", "image": question.image, "resources": resources}
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    if question.account:
        spec["serviceAccountName"] = question.account
    if asked.selector:
        spec["nodeSelector"] = asked.selector
    if asked.tolerations:
        spec["tolerations"] = asked.tolerations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
