"""Propose candidates from one shard of the embeddings."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def select_shard(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    plan: str,
    shard: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("n_pool", int), ("n_eligible", int), ("n_candidates", int)]):
    """Propose the candidates of one shard, and leave files for select.

    Reads: embeddings, samples, predictions, confidences, labels, label_requests, selections,
        flags, experiments, metadata; the shard's own rows, and the plan of plan_selection.
    Writes: nothing; files that select reads and removes.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake at which the shard was listed.
        round_id: The round that this belongs to.
        plan: Name of the plan.
        shard: Name of the shard.
        metrics: Counts.
        page: What was filtered, and how far the candidates reach.

    Returns:
        n_pool: Samples of the shard.
        n_eligible: Those that may be picked.
        n_candidates: Those that it proposes.
    """
    from visionloop.stages.select_shard import select_shard as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        plan=plan,
        shard=shard,
        metrics=metrics,
        page=page,
    )
