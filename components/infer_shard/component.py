"""Embed and predict one shard of the samples."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def infer_shard(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    shard: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("n_samples", int), ("n_finished_before", int), ("n_unreadable", int)]):
    """Embed and predict the samples of one shard, and leave files for infer to commit.

    Reads: nothing; the shard's list of samples, their images, the model in service, the
        embedding's weights.
    Writes: nothing; files that infer commits and removes.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake at which the shard was listed.
        round_id: The round that this belongs to.
        shard: Name of the shard.
        metrics: Counts, and images per second.
        page: What was embedded, and what could not be read.

    Returns:
        n_samples: Samples of the shard.
        n_finished_before: Those that an earlier try had finished.
        n_unreadable: Those that cannot be read now.
    """
    from visionloop.stages.infer_shard import infer_shard as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        shard=shard,
        metrics=metrics,
        page=page,
    )
