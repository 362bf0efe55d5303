"""List the sources, and spread what is new over tasks where it is much."""

from typing import List, NamedTuple  # noqa: UP035 - kfp knows the type List[str]

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def list_files(
    config: str,
    lake: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    run_id: str = "",
    open_round: bool = False,
    take_over: bool = False,
    shard_size: int = 0,
) -> NamedTuple(
    "Outputs",
    [
        ("round_id", str),
        ("listing", str),
        ("n_files", int),
        ("n_shards", int),
        ("shards", List[str]),  # noqa: UP006
    ],
):
    """List what is new at the sources, and spread it over tasks where it is much.

    Up to cluster.inline_samples new files are left to ingest, which then lists them itself.

    Reads: files, erased; the listings of the sources.
    Writes: rounds, where it opens one; lists that ingest_shard works on and ingest removes.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        metrics: Counts of files and shards.
        page: What is to be examined.
        run_id: The run, written on every row; empty outside a pipeline.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from a run that no longer lives.
        shard_size: Files in a shard; 0 takes the configuration's.

    Returns:
        round_id: The round opened or resumed; empty where none was opened.
        listing: Name of the listing for ingest; empty where it lists by itself.
        n_files: Files to examine; of what containers hold, about.
        n_shards: Number of shards; 0 where ingest examines alone.
        shards: Names of the shards.
    """
    from visionloop.stages.list_files import list_files as run_stage

    return run_stage(
        config=config,
        lake=lake,
        run_id=run_id,
        open_round=open_round,
        take_over=take_over,
        shard_size=shard_size,
        metrics=metrics,
        page=page,
    )
