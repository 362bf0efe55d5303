"""Examine the files of one shard."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest_shard(
    config: str,
    lake: str,
    round_id: str,
    shard: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("n_files", int), ("n_finished_before", int)]):
    """Examine the files of one shard, and leave what became of them for ingest to commit.

    Reads: erased; the shard's list of files, these and their sidecars.
    Writes: nothing; files that ingest commits and removes, copies of the images where the source
        asks for them.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        round_id: The round that this belongs to; empty takes the current one.
        shard: Name of the shard.
        metrics: Counts, and files per second.
        page: How many were examined.

    Returns:
        n_files: Files of the shard; of what containers hold, about.
        n_finished_before: Those that an earlier try had finished.
    """
    from visionloop.stages.ingest_shard import ingest_shard as run_stage

    return run_stage(
        config=config,
        lake=lake,
        round_id=round_id,
        shard=shard,
        metrics=metrics,
        page=page,
    )
