"""Find what is new at the sources: read, verify, fingerprint and record it once."""

from typing import List, NamedTuple  # noqa: UP035 - kfp knows the type List[str]

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    config: str,
    lake: str,
    files: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    round_id: str = "",
    run_id: str = "",
    open_round: bool = False,
    take_over: bool = False,
    listing: str = "",
    fan_out: bool = False,
    shard_size: int = 0,
) -> NamedTuple(
    "Outputs",
    [
        ("lake_version", str),
        ("round_id", str),
        ("n_files", int),
        ("n_new", int),
        ("n_unreadable", int),
        ("n_skipped", int),
        ("n_duplicates", int),
        ("n_shards", int),
        ("shards", List[str]),  # noqa: UP006
    ],
):
    """Ingest the files that the lake does not know yet.

    A file is known by its URI and generation. Unreadable files are recorded with their reason,
    never dropped: n_files = n_new + n_duplicates + n_unreadable + n_skipped. What ingest_shard has
    examined is committed; known files that a listing no longer shows are marked as removed.

    Where more samples lack an embedding or a prediction than one task should work on, their shards
    are listed for infer_shard.

    Reads: files, samples, metadata, labels, flags, label_requests, selections, training_sets,
        embeddings, predictions, experiments, erased; the files at the sources and their sidecars.
    Writes: files, samples, thumbnails, metadata, labels, flags, erased, rounds; copies of the
        images where the source asks for them.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        files: Parquet table of the files found: uri, state, reason, sample_id.
        metrics: Counts of files by state, and images per second.
        page: What was found at each source.
        round_id: The round that this belongs to; empty takes the current one.
        run_id: The run, written on every row; empty outside a pipeline.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from a run that no longer lives.
        listing: Name of the listing to commit, from list_files; empty lists the sources now.
        fan_out: List the shards of what infer has to do, where that is much.
        shard_size: Samples in a shard; 0 takes the configuration's.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        round_id: The round opened or resumed; the coming one where none was opened.
        n_files: Files found at the sources.
        n_new: Files newly recorded as readable.
        n_unreadable: Files newly recorded as unreadable.
        n_skipped: Files known before.
        n_duplicates: New files whose bytes another file held already.
        n_shards: Number of shards; 0 where infer does it alone.
        shards: Names of the shards.
    """
    from visionloop.stages.ingest import ingest as run_stage

    return run_stage(
        config=config,
        lake=lake,
        round_id=round_id,
        run_id=run_id,
        open_round=open_round,
        take_over=take_over,
        listing=listing,
        fan_out=fan_out,
        shard_size=shard_size,
        files=files,
        metrics=metrics,
        page=page,
    )
