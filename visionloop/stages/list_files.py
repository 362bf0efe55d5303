"""Stage `list_files`: list the sources, and spread what is new over tasks where it is much."""

from __future__ import annotations

from typing import NamedTuple

from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.foresight import check_training
from visionloop.stages.opening import open_stage
from visionloop.stages.sources import check_sources
from visionloop.task import stage


class ListFilesOutputs(NamedTuple):
    """What `list_files` returns.

    Attributes:
        round_id: The round opened or resumed; empty where none was opened.
        listing: Name of the listing that `ingest` commits; empty where it is to list by itself.
        n_files: Files to examine; of what containers hold, about.
        n_shards: Shards that they are spread over; 0 where `ingest` examines them alone.
        shards: Their names, for `ingest_shard`.
    """

    round_id: str
    listing: str
    n_files: int
    n_shards: int
    shards: list[str]


@stage
def list_files(
    *,
    config: str,
    lake: str = "",
    run_id: str = "",
    open_round: bool = False,
    take_over: bool = False,
    shard_size: int = 0,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> ListFilesOutputs:
    """List what is new at the configuration's sources, and commit nothing.

    Up to ``cluster.inline_samples`` new files are left to `ingest`. More are written down as
    shards, and with them what the listing has shown, so that `ingest` need not list again.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        run_id: The run that ingests.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from whoever holds it.
        shard_size: Files in a shard; 0 takes the configuration's.
        metrics: Receives counts.
        page: Receives a Markdown page.

    Raises:
        InputError: A source does not exist, or the round that is to be opened could never train.
        StorageError: A source may not be listed.
    """
    from visionloop.media.pieces import Pieces
    from visionloop.stages.ingest_listing import list_now

    loop, opened = open_stage(config, lake)
    check_sources(loop)
    round_id = ""
    if open_round:
        check_training(loop.training)
        round_id = opened.rounds.open(
            run_id, take_over=take_over, lease_minutes=loop.rounds.lease_minutes
        ).round_id
    kept = Pieces(opened)
    # The run shows that its round is alive; it is left without a commit.
    with opened.run(stage="list_files", round_id=round_id, run_id=run_id) as run:
        listed = list_now(
            loop,
            opened,
            run.base,
            kept,
            order_size=shard_size or loop.cluster.shard_size,
            inline=loop.cluster.inline_samples,
        )
        finished = kept.finished() if listed.orders else set()
        shards = [
            name
            for name in listed.orders
            if any(piece.name not in finished for piece in kept.read_order(name))
        ]
        name = kept.write_listing(listed) if listed.orders else ""
    known = sum(sum(counts.values()) for counts in listed.per_source.values())
    counted = {"n_files": listed.weight, "n_known": known, "n_shards": len(shards)}
    log_metrics(metrics, counted)
    told = [[root, sum(counts.values())] for root, counts in listed.per_source.items()]
    write_page(
        page,
        "\n\n".join(
            [
                "# Listing",
                f"About {listed.weight:,} files to examine, in {len(shards):,} shards; "
                f"{len(listed.pieces):,} pieces in all.",
                markdown_table(["source", "known files"], told),
            ]
        )
        + "\n",
    )
    return ListFilesOutputs(round_id, name, listed.weight, len(shards), shards)
