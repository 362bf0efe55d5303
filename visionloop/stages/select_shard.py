"""Stage `select_shard`: propose candidates from one shard of the embeddings, and commit nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from visionloop.errors import InputError
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage


class SelectShardOutputs(NamedTuple):
    """What `select_shard` returns.

    Attributes:
        n_pool: Samples of the shard.
        n_eligible: Those that may be picked.
        n_candidates: Those that it proposes.
    """

    n_pool: int
    n_eligible: int
    n_candidates: int


@stage
def select_shard(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    plan: str = "",
    shard: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> SelectShardOutputs:
    """Propose candidates from one shard, and leave files for `select`.

    It reads its own rows of the embeddings, and of the other tables what is known of these. A shard
    that has proposed is not done again.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the shard was listed at.
        round_id: The round; empty for the open one.
        plan: Name of the plan, from `plan_selection`.
        shard: Name of the shard, likewise.
        metrics: Receives counts.
        page: Receives a Markdown page.

    Raises:
        InputError: The plan has no such shard, or a vector holds NaN or infinity.
        VisionloopError: The plan is not there any more.
    """
    from visionloop.selection.proposals import finished, propose, read_proposed
    from visionloop.selection.spread_files import read_plan

    _, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    spread = read_plan(opened, plan)
    if shard not in spread.shards:
        raise InputError(f"the plan {plan} has no shard {shard!r}", where="select_shard")
    # The run shows that its round is alive; it is left without a commit.
    with opened.run(stage="select_shard", round_id=round_id):
        if finished(opened, shard):
            proposed = read_proposed(opened, shard)
        else:
            proposed = propose(opened, spread, spread.shards.index(shard))
    counts = {
        "n_pool": proposed.told["pool"],
        "n_eligible": proposed.told["eligible"],
        "n_candidates": proposed.table.num_rows,
    }
    log_metrics(metrics, counts)
    write_page(page, _page(shard, counts, proposed.told))
    return SelectShardOutputs(**counts)


def _page(shard: str, counts: dict[str, int], told: dict[str, Any]) -> str:
    lines = [
        f"# Shard `{shard}`",
        "",
        markdown_table(["samples", "eligible", "candidates"], [list(counts.values())]),
        "",
    ]
    if told["removed"]:
        rows = [[reason, number] for reason, number in told["removed"].items()]
        lines += [markdown_table(["filter", "removed"], rows), ""]
    if told["radius"] is not None:
        lines += [
            f"No eligible sample is farther than {told['radius']:.3f} from a candidate or from "
            "what is labelled.",
            "",
        ]
    return "\n".join(lines)
