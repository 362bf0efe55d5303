"""What the steps with an accelerator ask of quotas, queues and nodes, each step by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from visionloop.cli.cluster_checks.nodes import task_pod
from visionloop.cli.cluster_checks.question import Question


@dataclass(frozen=True)
class Demand:
    """What one step asks for.

    Attributes:
        words: Who asks, with the verb: ``a task needs``.
        resources: Amount of each resource in one pod.
        together: Pods that have to fit at once, else none of them starts.
        at_once: Pods that are at work at once where there is room, and wait where there is none.
    """

    words: str
    resources: dict[str, str]
    together: int = 1
    at_once: int = 1


def demands(question: Question) -> Iterator[Demand]:
    """Return what the steps of a round ask for.

    Args:
        question: What is to run.

    Yields:
        That of a shard first.
    """
    assert question.config is not None
    section, training = question.config.cluster, question.config.training
    whole = task_pod(question).resources
    shard = dict(whole)
    if section.accelerator_type in shard:
        shard[section.accelerator_type] = "1"
    yield Demand("a task needs", shard, at_once=section.width)
    if training.runner == "trainjob":
        nodes = training.trainjob.nodes
        yield Demand(f"the TrainJob's {nodes} nodes together need", whole, together=nodes)
    else:
        yield Demand("training needs", whole)
