"""Stage `ingest_shard`: examine the files of one shard, and commit nothing."""

from __future__ import annotations

import time
from typing import NamedTuple

from visionloop.progress import log
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.infer_shard import PAUSES
from visionloop.stages.opening import open_stage
from visionloop.task import stage


class IngestShardOutputs(NamedTuple):
    """What `ingest_shard` returns.

    Attributes:
        n_files: Files of the shard; of what containers hold, about.
        n_finished_before: Those that an earlier try had finished.
    """

    n_files: int
    n_finished_before: int


@stage
def ingest_shard(
    *,
    config: str,
    lake: str = "",
    round_id: str = "",
    shard: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> IngestShardOutputs:
    """Examine the files of one shard, and leave what became of them for `ingest` to commit.

    It reads the list of its files and these, no table. What was finished is kept some thousand
    files at a time: a second try, or the next run, goes on behind it.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        round_id: The round; empty for the open one.
        shard: Name of the shard, from `list_files`.
        metrics: Receives the counts and files per second.
        page: Receives a Markdown page.

    Raises:
        StorageError: The lake does not answer.
        VisionloopError: The shard's list is not there any more.
    """
    from visionloop.lake.storage import StorageError
    from visionloop.media.pieces import Pieces
    from visionloop.progress import progress
    from visionloop.stages.ingest_listing import examine_pieces

    loop, opened = open_stage(config, lake)
    kept = Pieces(opened)
    # The run shows that its round is alive; it is left without a commit.
    with opened.run(stage="ingest_shard", round_id=round_id):
        total = sum(piece.weight for piece in kept.read_order(shard))
        with progress("ingest_shard", total=total, unit="files") as bar:
            n_before = None
            for pause in (*PAUSES, None):
                try:
                    before, _ = examine_pieces(loop, kept, kept.read_order(shard), bar)
                    n_before = before if n_before is None else n_before
                    break
                except StorageError as error:
                    # Behind what was kept: whether KFP starts a task of a loop again depends on
                    # its version.
                    if pause is None:
                        raise
                    log(f"ingest_shard: once more in {pause:g} s, since {error.what}")
                    n_before = 0 if n_before is None else n_before
                    bar.advance(-bar.done)
                    time.sleep(pause)
            rate = bar.rate
    counts = {"n_files": total, "n_finished_before": n_before or 0}
    log_metrics(metrics, {**counts, "files_per_second": rate})
    table = markdown_table(["files", "finished before"], [list(counts.values())])
    write_page(page, f"# Shard `{shard}`\n\n{table}\n\n{rate:,.0f} files a second.\n")
    return IngestShardOutputs(total, n_before or 0)
