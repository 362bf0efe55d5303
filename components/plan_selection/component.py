"""List the shards of a selection that is too large for one task."""

from typing import List, NamedTuple  # noqa: UP035 - kfp knows the type List[str]

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan_selection(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    n_samples: int = 0,
    strategy: str = "",
) -> NamedTuple(
    "Outputs",
    [
        ("plan", str),
        ("n_shards", int),
        ("shards", List[str]),  # noqa: UP006
    ],
):
    """List the shards of a selection; none where the embeddings are few enough for one task.

    Where they are too many, and the objectives need all of them at once, the shards name a uniform
    sample, which select selects from.

    Reads: embeddings, labels, label_requests, selections, samples, experiments, predictions,
        confidences, relabels, annotations, training_sets, flags, decisions; of embeddings what
        is labelled, queries and harvested images.
    Writes: nothing; the plan that select_shard and select read.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        metrics: Number of shards that are left to do.
        page: Into how many shards, or why into none.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of the strategy; empty takes the configuration's.

    Returns:
        plan: Name of the plan; empty where select does it alone.
        n_shards: Number of shards that have not proposed yet.
        shards: Names of these shards.
    """
    from visionloop.stages.plan_selection import plan_selection as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        n_samples=n_samples,
        strategy=strategy,
        metrics=metrics,
        page=page,
    )
