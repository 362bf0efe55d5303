"""Checks of Kubeflow Trainer, where training runs as a TrainJob."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_GROUP = "trainer.kubeflow.org"
_VERSION = "v1alpha1"


def trainer(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether a TrainJob can run.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding where training runs as a TrainJob.
    """
    if question.config and question.config.training.runner == "trainjob":
        yield look("Kubeflow Trainer", lambda: _trainer(cluster, question))


def _trainer(cluster: Cluster, question: Question) -> Finding | str:
    assert question.config is not None
    check = "Kubeflow Trainer"
    served = cluster.versions(_GROUP)
    if not served:
        return Finding(
            check,
            "fail",
            "not installed: training.runner is trainjob",
            "Install Kubeflow Trainer 2.2 or newer, or set training.runner to pod",
        )
    if _VERSION not in served:
        return Finding(
            check,
            "fail",
            f"wrong version of its definitions: serves {', '.join(served)} and not {_VERSION}",
            "Install Kubeflow Trainer 2.2 or newer",
        )
    job = question.config.training.trainjob
    if cluster.get(f"{_GROUP}/{_VERSION}", job.runtime_kind, job.runtime) is None:
        return Finding(
            check,
            "fail",
            f"there is no {job.runtime_kind} {job.runtime}",
            "Install the Trainer's runtimes, or correct training.trainjob.runtime",
        )
    return f"{job.runtime_kind} {job.runtime}"
