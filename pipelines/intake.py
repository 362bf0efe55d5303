"""Bring in what is new: ingest, embed and predict, check."""

from typing import Any, NamedTuple

from kfp import dsl

from visionloop.components.infer.component import infer
from visionloop.components.ingest.component import ingest
from visionloop.components.monitor.component import monitor
from visionloop.pipelines.placement import cached_by_version, never_cached, on_accelerator


class Intake(NamedTuple):
    """What the next pipeline needs from an intake."""

    lake_version: str
    round_id: str


@dsl.pipeline(name="intake", description="Ingest what is new, embed and predict it, check it.")
def intake(
    config: str,
    lake: str = "",
    open_round: bool = False,
    take_over: bool = False,
    accelerator_type: str = "",
    accelerator_count: int = 1,
    node_selector: dict[str, str] = {},  # noqa: B006 - kfp reads the default, nothing mutates it
    tolerations: list[dict[str, str]] = [],  # noqa: B006
) -> Intake:
    """Ingest what is new, embed and predict it, check it.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from a run that no longer lives.
        accelerator_type: Resource name such as nvidia.com/gpu; empty runs on the CPU.
        accelerator_count: Accelerators for a task that uses them.
        node_selector: Labels that a node must have to run such a task.
        tolerations: Kubernetes tolerations of such a task.

    Returns:
        lake_version: Version of the lake after the intake.
        round_id: The round opened or resumed; the coming one where none was opened.
    """
    ingested = ingest(
        config=config,
        lake=lake,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        open_round=open_round,
        take_over=take_over,
    )
    never_cached(ingested)

    inferred = infer(
        config=config,
        lake=lake,
        lake_version=ingested.outputs["lake_version"],
        round_id=ingested.outputs["round_id"],
    )
    cached_by_version(inferred)
    on_accelerator(inferred, accelerator_type, accelerator_count, node_selector, tolerations)

    monitored = monitor(
        config=config,
        lake=lake,
        lake_version=inferred.outputs["lake_version"],
        round_id=ingested.outputs["round_id"],
    )
    cached_by_version(monitored)

    outputs: Any = Intake(
        lake_version=monitored.outputs["lake_version"], round_id=ingested.outputs["round_id"]
    )
    return outputs
