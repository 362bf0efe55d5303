"""Stage `infer_shard`: embed and predict one shard of the samples, and commit nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from visionloop.progress import log
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.inference.pending import Models
    from visionloop.inference.results import Finished, Order
    from visionloop.lake import Lake
    from visionloop.progress import Progress

# Seconds until a shard is tried again where the lake did not answer; a bucket was asked again for
# two minutes by then.
PAUSES = (30.0, 120.0)


class InferShardOutputs(NamedTuple):
    """What `infer_shard` returns.

    Attributes:
        n_samples: Samples of the shard.
        n_finished_before: Those that an earlier try had finished.
        n_unreadable: Those that cannot be read now.
    """

    n_samples: int
    n_finished_before: int
    n_unreadable: int


@stage
def infer_shard(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    shard: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> InferShardOutputs:
    """Embed and predict the samples of one shard, and leave files for `infer` to commit.

    It reads the list of its samples and their images, no table. What was finished is kept every
    4,096 samples: a second try, or the round's next run, goes on behind it, and tries again what
    could not be read.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the shard was listed at.
        round_id: The round; empty for the open one.
        shard: Name of the shard, from `ingest`.
        metrics: Receives the counts and images per second.
        page: Receives a Markdown page.

    Raises:
        InputError: The weights or the model cannot be used.
        VisionloopError: The shard's list is not there any more, or the configuration names other
            weights than it was made for.
    """
    from visionloop.errors import VisionloopError
    from visionloop.inference.classifier import Classifier
    from visionloop.inference.embedder import open_embedder
    from visionloop.inference.pending import Models
    from visionloop.inference.results import read_order
    from visionloop.progress import progress
    from visionloop.training.experiments import load_bundle

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    order = read_order(opened, shard)
    # The run shows that its round is alive; it is left without a commit.
    with opened.run(stage="infer_shard", round_id=round_id):
        embedder = open_embedder(loop.embedding, loop.inference, opened, order.media)
        models = Models(embedder, uri=order.model_uri)
        if order.model_id:
            bundle = load_bundle(order.model_id, order.model_uri)
            models = Models(embedder, Classifier(bundle, loop.inference), order.model_uri)
        if models.embedder.space != order.space:
            raise VisionloopError(
                f"the shard was listed for the space {order.space}, and the configuration's "
                f"weights are of {models.embedder.space}",
                where=f"shard {shard}",
                remedy="Start the pipeline again: it lists what is left to do",
            )
        n = len(order.media)
        with progress("infer_shard", total=n, unit="images") as bar:
            held, n_before = _finish(opened, order, models, shard, bar)
            rate = bar.rate
        done = {name for file in held for name in file.done}
        reasons = {
            name: reason
            for file in held
            for name, reason in file.reasons.items()
            if name not in done
        }
    counts = {
        "n_samples": n,
        "n_finished_before": n_before,
        "n_unreadable": len(reasons),
    }
    log_metrics(metrics, {**counts, "images_per_second": rate})
    write_page(page, _page(shard, counts, reasons, models))
    return InferShardOutputs(n, n_before, len(reasons))


def _finish(
    lake: Lake, order: Order, models: Models, shard: str, bar: Progress
) -> tuple[list[Finished], int]:
    """Do what is left of a shard; return its files, and how many samples were done before.

    A lake that does not answer for a while is asked again here, behind what was kept: whether KFP
    starts a task of a loop again depends on its version.
    """
    from visionloop.inference.embedding import finish
    from visionloop.inference.results import held_results
    from visionloop.lake.storage import StorageError

    n_before = None
    for pause in (*PAUSES, None):
        try:
            held = held_results(lake, models, shard)
            before = {name for file in held for name in file.done}
            n_before = len(before) if n_before is None else n_before
            bar.advance(max(0, len(before) - bar.done))
            rest = order.pending.without(before)
            held += finish(lake, order.media, rest, models, bar, shard)
            return held, n_before
        except StorageError as error:
            if pause is None:
                raise
            log(f"infer_shard: once more in {pause:g} s, since {error.what}")
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _page(shard: str, counts: dict[str, int], reasons: dict[str, str], models: Models) -> str:
    from visionloop.inference.session import unused_gpu

    lines = [
        f"# Shard `{shard}`",
        "",
        f"Embeddings come from the {models.embedder.source}; "
        + (f"predicted by `{models.model_id}`." if models.model else "no model is in service yet.")
        + (f" Networks ran on: {models.ran_on}." if models.ran_on else ""),
        "",
        markdown_table(["samples", "finished before", "unreadable now"], [list(counts.values())]),
        "",
    ]
    if idle := unused_gpu():
        lines += [f"**{idle[0].upper()}{idle[1:]}.** Give `cluster.image` the GPU build.", ""]
    if reasons:
        shown = [[name[:12], reason] for name, reason in sorted(reasons.items())[:50]]
        lines += [markdown_table(["sample", "reason"], shown), ""]
    return "\n".join(lines)
