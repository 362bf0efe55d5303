"""The first half of a round: choose samples and have them labelled."""

from typing import Any

from kfp import dsl

from visionloop.components.collect_labels.component import collect_labels
from visionloop.components.plan_selection.component import plan_selection
from visionloop.components.request_labels.component import request_labels
from visionloop.components.select.component import select
from visionloop.pipelines.closing import by_itself
from visionloop.pipelines.fan_out import select_shards
from visionloop.pipelines.placement import cached_by_version, never_cached


@dsl.pipeline(
    name="select-and-label", description="Select samples, request their labels, collect them."
)
def select_and_label_part(
    config: str,
    lake_version: str,
    round_id: str,
    lake: str = "",
    n_samples: int = 0,
    strategy: str = "",
) -> str:
    """Select samples, request their labels, collect those that are finished.

    It has one output on purpose: under the local runner a condition on one of several named
    outputs is always false, and nothing says so.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake_version: Version of the lake to select from.
        round_id: The round.
        lake: URI of the lake; empty takes the configuration's.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of the strategy; empty takes the configuration's.

    Returns:
        Version of the lake to train on; empty while the round waits for labels.
    """
    planned = plan_selection(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        n_samples=n_samples,
        strategy=strategy,
    )
    # It leaves a file, which may be gone since, and asks which shards have proposed.
    never_cached(planned)

    proposed = select_shards(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        plan=planned.outputs["plan"],
        shards=planned.outputs["shards"],
        n_shards=planned.outputs["n_shards"],
    )

    selected = select(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        n_samples=n_samples,
        strategy=strategy,
        plan=planned.outputs["plan"],
    )
    selected.after(proposed)
    cached_by_version(selected)

    requested = request_labels(
        config=config,
        lake=lake,
        lake_version=selected.outputs["lake_version"],
        round_id=round_id,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    never_cached(requested)

    collected = collect_labels(
        config=config,
        lake=lake,
        lake_version=requested.outputs["lake_version"],
        round_id=round_id,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    never_cached(collected)

    output: Any = collected.outputs["trainable_version"]
    return output


select_and_label = by_itself(select_and_label_part)
