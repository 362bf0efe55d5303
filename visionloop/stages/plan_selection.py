"""Stage `plan_selection`: list the shards of a selection that is too large for one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from visionloop.errors import InputError
from visionloop.progress import log
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.memory import check_memory
from visionloop.stages.opening import open_stage
from visionloop.stages.select import configured, round_seed, with_raised_share
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.selection.config import SelectionConfig
    from visionloop.selection.spread_files import Spread


class PlanSelectionOutputs(NamedTuple):
    """What `plan_selection` returns.

    Attributes:
        plan: Names the plan; empty where `select` does it alone.
        n_shards: Shards that have not proposed yet.
        shards: Their names, for `select_shard`.
    """

    plan: str
    n_shards: int
    shards: list[str]


@stage
def plan_selection(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    n_samples: int = 0,
    strategy: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> PlanSelectionOutputs:
    """List the shards of a selection; none where the embeddings are few, or it was made before.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of a strategy; empty takes the configuration's.
        metrics: Receives the number of shards that are left to do.
        page: Receives a Markdown page: into how many shards, or why into none.

    Raises:
        InputError: There are more embeddings than one task may hold, and more than half as many are
            to be picked; or what one task is to hold does not fit its memory.
    """
    from visionloop.labeling.trust.splitting import budget_for_new

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    wanted = configured(loop.selection, n_samples, strategy)
    round_id = round_id or opened.rounds.current_or_next()
    version = lake_version or opened.version()
    if opened.read("selections", where=f"round_id == '{round_id}'").num_rows:
        write_page(page, "# Shards of the selection\n\nThe round has selected before.\n")
        log_metrics(metrics, {"n_shards": 0})
        return PlanSelectionOutputs("", 0, [])
    if version:
        # `select` splits the budget likewise, at the same version, and raises the same share.
        wanted, _ = budget_for_new(opened, loop, wanted, version, round_id)
        wanted, _ = with_raised_share(opened, wanted, version)
    spread, why = _plan(loop, opened, wanted, version, round_id)
    if spread is None:
        write_page(page, f"# Shards of the selection\n\nOne task selects: {why}.\n")
        log_metrics(metrics, {"n_shards": 0})
        return PlanSelectionOutputs("", 0, [])
    from visionloop.selection.proposals import finished
    from visionloop.selection.sampled import SLACK

    left = [shard for shard in spread.shards if not finished(opened, shard)]
    each = -(-SLACK * spread.sample // spread.parts) if spread.sample else spread.candidates
    counts = [[spread.parts, spread.parts - len(left), each, len(spread.known)]]
    header = ["shards", "finished before", "candidates each", "labelled samples and queries"]
    text = f"# Shards of the selection\n\n{markdown_table(header, counts)}\n"
    if spread.sample:
        text += (
            f"\nThe shards name a uniform sample of up to {spread.sample:,} eligible samples, "
            f"which one task selects from: {why}.\n"
        )
    if spread.cut and spread.harvested:
        text += (
            f"\nMore images were harvested than similar ones are compared with: "
            f"{len(spread.harvested.sample_ids):,}, the first by sample id.\n"
        )
    write_page(page, text)
    log_metrics(metrics, {"n_shards": len(left)})
    return PlanSelectionOutputs(spread.name, len(left), left)


def _plan(
    loop: LoopConfig, lake: Lake, config: SelectionConfig, version: str, round_id: str
) -> tuple[Spread | None, str]:
    """Return the selection spread over shards, or None and why it is not."""
    from visionloop.lake.parts import components_of_space, rows_of, rows_of_space
    from visionloop.selection.harvested import read_harvested
    from visionloop.selection.in_service import (
        finds_objects,
        is_about_objects,
        labels_of,
        model_in_service,
    )
    from visionloop.selection.material import space_of_lake
    from visionloop.selection.spread import most_picks, plain_lines, predicted_by, with_queries
    from visionloop.selection.spread_files import write_plan

    size, whole = loop.cluster.select_shard_size, loop.cluster.select_whole
    space = space_of_lake(lake, config, version) if version else ""
    total = rows_of_space(lake, space, version) if space else 0
    components = components_of_space(lake, space, version) if space else 0
    if total <= size:
        check_memory(total, components, "one task", "set cluster.select_shard_size to less")
        return None, f"there are {total:,} embeddings, and it takes up to {size:,}"
    config = config.model_copy(update={"space": space})
    answers = lake.read("labels", version=version).to_pylist()
    models = lake.read("experiments", where="arm == 'loop'", version=version).to_pylist()
    detector = finds_objects(lake, model_in_service(models), version)
    objects = is_about_objects(detector, answers, loop.task)
    labels = labels_of(answers, objects=objects)
    rows = rows_of(lake, "samples", labels, columns=["sample_id", "split"], version=version)
    labelled = {row["sample_id"] for row in rows.to_pylist() if row["split"] == "pool"}
    harvested, cut = read_harvested(lake, config, version)
    lines, why = plain_lines(
        lake,
        config,
        version,
        classes=loop.classes,
        labels=[labels[name] for name in labelled],
        told=harvested.scores if harvested else (),
    )
    most = most_picks(config, total)
    if not why and 2 * most > size:
        why = f"{most:,} picks are too many beside shards of {size:,}"
    if why and total <= whole:
        check_memory(total, components, "one task", "set cluster.select_whole to less")
        log(f"plan_selection: one task selects among {total:,} embeddings, since {why}")
        return None, why
    if why and 2 * most > whole:
        raise InputError(
            f"{most:,} picks are too many: of {total:,} embeddings one task may hold {whole:,}",
            where="selection",
            remedy="Ask for fewer, or raise cluster.select_whole and cluster.select_memory",
        )
    parts = -(-total // size)
    shard = -(-total // parts)
    check_memory(shard, components, "a shard", "set cluster.select_shard_size to less")
    if why:
        check_memory(whole, components, "a sample", "set cluster.select_whole to less")
    lines, known = with_queries(
        lake,
        lines,
        version,
        labels,
        lambda ids: lake.embeddings(space, sorted(labelled | ids), version=version),
    )
    plan = {
        "config": lines.model_dump_json(exclude_unset=True),
        "classes": list(loop.classes),
        "task": loop.task,
        "version": version,
        "parts": parts,
        "most": most,
        "seed": round_seed(config.seed, round_id),
        "cut": cut,
        "sample": whole if why else 0,
        "why": why,
        "predicted": predicted_by(lake, version) is not None,
    }
    return write_plan(lake, plan, known, labelled, harvested), why
