"""Bring in what is new: ingest, embed and predict, check."""

from typing import Any, NamedTuple

from kfp import dsl

from visionloop.components.infer.component import infer
from visionloop.components.ingest.component import ingest
from visionloop.components.list_files.component import list_files
from visionloop.components.monitor.component import monitor
from visionloop.pipelines.closing import by_itself
from visionloop.pipelines.fan_out import infer_shards, ingest_shards
from visionloop.pipelines.placement import (
    ACCELERATOR_CPU,
    ACCELERATOR_MEMORY,
    cached_by_version,
    never_cached,
)


class Intake(NamedTuple):
    """What the next pipeline needs from an intake."""

    lake_version: str
    round_id: str


@dsl.pipeline(name="intake", description="Ingest what is new, embed and predict it, check it.")
def intake_part(
    config: str,
    lake: str = "",
    open_round: bool = False,
    take_over: bool = False,
    shard_size: int = 0,
    accelerator_type: str = "",
    node_selector: dict[str, str] = {},  # noqa: B006 - kfp reads the default, nothing mutates it
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    accelerator_cpu: str = ACCELERATOR_CPU,
    accelerator_memory: str = ACCELERATOR_MEMORY,
) -> Intake:
    """Ingest what is new, embed and predict it, check it.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from a run that no longer lives.
        shard_size: Files or samples in a shard, where there are many; 0 takes the configuration's.
        accelerator_type: Resource name such as nvidia.com/gpu; empty runs on the CPU.
        node_selector: Labels that a node must have to run such a task.
        tolerations: Kubernetes tolerations of such a task.
        accelerator_cpu: Cores of such a task.
        accelerator_memory: Memory of such a task.

    Returns:
        lake_version: Version of the lake after the intake.
        round_id: The round opened or resumed; the coming one where none was opened.
    """
    listed = list_files(
        config=config,
        lake=lake,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        open_round=open_round,
        take_over=take_over,
        shard_size=shard_size,
    )
    never_cached(listed)

    examined = ingest_shards(
        config=config,
        lake=lake,
        round_id=listed.outputs["round_id"],
        shards=listed.outputs["shards"],
        n_shards=listed.outputs["n_shards"],
    )

    ingested = ingest(
        config=config,
        lake=lake,
        round_id=listed.outputs["round_id"],
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        listing=listed.outputs["listing"],
        fan_out=True,
        shard_size=shard_size,
    )
    ingested.after(examined)
    never_cached(ingested)

    fanned_out = infer_shards(
        config=config,
        lake=lake,
        lake_version=ingested.outputs["lake_version"],
        round_id=ingested.outputs["round_id"],
        shards=ingested.outputs["shards"],
        n_shards=ingested.outputs["n_shards"],
        accelerator_type=accelerator_type,
        node_selector=node_selector,
        tolerations=tolerations,
        accelerator_cpu=accelerator_cpu,
        accelerator_memory=accelerator_memory,
    )

    inferred = infer(
        config=config,
        lake=lake,
        lake_version=ingested.outputs["lake_version"],
        round_id=ingested.outputs["round_id"],
        n_shards=ingested.outputs["n_shards"],
    )
    inferred.after(fanned_out)
    cached_by_version(inferred)

    monitored = monitor(
        config=config,
        lake=lake,
        lake_version=inferred.outputs["lake_version"],
        round_id=ingested.outputs["round_id"],
    )
    # What stands is so by the clock too: a camera is silent and a stage failed where nothing came.
    never_cached(monitored)

    outputs: Any = Intake(
        lake_version=monitored.outputs["lake_version"], round_id=ingested.outputs["round_id"]
    )
    return outputs


intake = by_itself(intake_part)
