"""Stage `select`: choose the samples that are worth a label, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import InputError
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_sentence,
    markdown_table,
    write_dataset,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage
from visionloop.words import round_name

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.selection.advice import Advice
    from visionloop.selection.config import SelectionConfig
    from visionloop.selection.engine import Selection
    from visionloop.selection.material import Material

# A page is for reading; the Parquet table holds all picks.
PAGE_ROWS = 200


class SelectOutputs(NamedTuple):
    """What `select` returns.

    Attributes:
        lake_version: Lake version with the picks.
        n_selected: Samples selected in this round.
    """

    lake_version: str
    n_selected: int


@stage
def select(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    n_samples: int = 0,
    strategy: str = "",
    plan: str = "",
    selected: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> SelectOutputs:
    """Select samples under the budget; a round that has selected already returns its picks.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of a strategy; empty takes the configuration's.
        plan: Name of the plan by which shards have proposed candidates; empty selects alone.
        selected: Receives the picks as Parquet, see `visionloop.selection.record.picks_table`.
        metrics: Receives counts.
        page: Receives a Markdown page of the picks and why.

    Raises:
        InputError: The strategy is unknown, or the configuration names what the lake does not have.
        VisionloopError: A shard of the plan has not proposed.
    """
    from visionloop.labeling.trust.splitting import budget_for_new
    from visionloop.selection.advice import advise, read_past
    from visionloop.selection.record import picks_table, selection_rows

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    wanted = configured(loop.selection, n_samples, strategy)
    round_id = round_id or opened.rounds.current_or_next()
    this_round = f"round_id == '{round_id}'"
    # Looked up at the newest version: a task that is run again after its commit is handed the
    # version before it, and must hand on one that has the picks.
    rows = opened.read("selections", where=this_round)
    resumed = rows.num_rows > 0
    selection, advice, text = None, None, ""
    outputs: dict[str, Any] = {"resumed": True}
    with opened.run(
        stage="select",
        round_id=round_id,
        base_version="" if resumed else lake_version,
        inputs={"n_samples": wanted.n_samples, "strategy": wanted.strategy},
    ) as run:
        if not resumed:
            seed = round_seed(wanted.seed, run.round_id)
            wanted, again = budget_for_new(opened, loop, wanted, run.base, run.round_id)
            wanted, raised = with_raised_share(opened, wanted, run.base)
            run.replace("relabels", again.rows, this_round)
            if plan:
                material, selection, shards, text = _join(opened, plan)
            else:
                material, selection, shards = _alone(opened, wanted, loop, run.base, seed)
            past = read_past(opened, version=run.base, before=run.round_id)
            advice = advise(material.config, selection, past)
            rows = selection_rows(selection, model_id=material.model_id)
            run.replace("selections", rows, this_round)
            outputs = _summary(selection) | shards | {"advice": advice.plain()}
            outputs |= {"relabels": again.told} if again.told else {}
            outputs |= {"random_share": wanted.random_share, "raised": raised} if raised else {}
            text = "\n\n".join(part for part in (markdown_sentence(raised), text) if part)
            run.set_round(counts={"selected": rows.num_rows, "selection": outputs})
        version = run.commit(
            outputs=outputs,
            counts={"selected": rows.num_rows},
        )
    if plan:
        _tidy(opened, plan)
    table = picks_table(rows)
    write_dataset(selected, table)
    log_metrics(metrics, _numbers(table, selection))
    relabels = opened.read("relabels", where=this_round, version=version)
    write_page(page, _page(table, selection, advice, run.round_id, text) + _again(relabels))
    return SelectOutputs(version, table.num_rows)


def _alone(
    lake: Lake, config: SelectionConfig, loop: LoopConfig, version: str, seed: int
) -> tuple[Material, Selection, dict[str, Any]]:
    from visionloop.selection.material import read_material
    from visionloop.selection.record import select_material

    material = read_material(lake, config, classes=loop.classes, version=version, task=loop.task)
    return material, select_material(material, None, seed=seed, unattended=True), {}


def _join(lake: Lake, plan: str) -> tuple[Material, Selection, dict[str, Any], str]:
    """Return the selection among what the shards propose, and what is told of them."""
    from visionloop.selection.joining import join
    from visionloop.selection.spread_files import read_plan

    spread = read_plan(lake, plan)
    joined = join(lake, spread)
    told: dict[str, Any] = {"number": spread.parts, "candidates": joined.candidates}
    if not spread.sample:
        text = f"{joined.candidates} candidates of {spread.parts} shards were selected among."
    elif joined.candidates < joined.of:
        told |= {"sample_of": joined.of, "why": spread.why}
        text = (
            f"{joined.candidates:,} of {joined.of:,} eligible images were selected among, a "
            f"uniform sample that {spread.parts} shards named: {spread.why}, and one task may hold "
            f"{spread.sample:,}. The random share was drawn from all that are eligible."
        )
    else:
        text = f"All {joined.of:,} eligible images of {spread.parts} shards were selected among."
    if spread.cut and spread.harvested:
        told["harvested"] = len(spread.harvested.sample_ids)
        text += (
            f" More images were harvested than similar ones were compared with: the "
            f"{told['harvested']:,} of the smallest ids."
        )
    if joined.bound is not None and joined.least is not None:
        told |= {"bound": joined.bound, "least": joined.least}
        text += (
            f" No eligible image is farther than {joined.bound:.3f} from one that is selected or "
            f"labelled; whatever so many are selected, some image is {joined.least:.3f} away."
        )
    return joined.material, joined.selection, {"shards": told}, text


def _tidy(lake: Lake, plan: str) -> None:
    """Remove the files of a plan that is done; they may be gone where the task is run again."""
    from visionloop.selection.spread_files import remove_files

    remove_files(lake, plan)


def round_seed(seed: int, round_id: str) -> int:
    """Return a seed that differs from round to round and is the same when a round runs again."""
    import numpy as np

    return int(np.random.SeedSequence([seed, int(round_id)]).generate_state(1)[0])


def configured(config: SelectionConfig, n_samples: int, strategy: str) -> SelectionConfig:
    """Return a configuration with what a run's parameters say in it.

    Args:
        config: The configuration.
        n_samples: Budget in samples; 0 leaves it.
        strategy: Name of a strategy; empty leaves it.

    Raises:
        InputError: They do not fit.
    """
    from visionloop.selection.config import parse_selection_config

    if n_samples < 0:
        raise InputError(f"n_samples is {n_samples}", where="select", remedy="Give 1 or more")
    data: dict[str, Any] = config.model_dump(exclude_unset=True)
    if n_samples:
        data.pop("proportion_samples", None)
        data["n_samples"] = n_samples
    if strategy and strategy != config.strategy:
        data["strategy"] = strategy
        if strategy != "custom":
            data.pop("strategies", None)
    return parse_selection_config(data, where="select")


def with_raised_share(
    lake: Lake, config: SelectionConfig, version: str
) -> tuple[SelectionConfig, str]:
    """Return a configuration with the random share that the watch has raised it to, and why.

    Args:
        lake: The lake.
        config: The configuration.
        version: The version to read at: the same where a selection is planned and where it is made.
    """
    from visionloop.stages.watch_service import acts_that_stand

    share = acts_that_stand(lake, version).share if version else None
    if share is None or share.value is None or share.value <= config.random_share:
        return config, ""
    told = f"{share.why} (decided {share.since:%Y-%m-%d %H:%M} UTC, by rule of the watch)"
    return config.model_copy(update={"random_share": share.value}), told


def _summary(selection: Selection) -> dict[str, Any]:
    return {
        "requested": selection.requested,
        "eligible": selection.eligible,
        "pool": selection.pool,
        "removed": dict(selection.removed),
        "strengths": dict(selection.strengths),
        "space": selection.space,
        "flags": list(selection.flags),
    }


def _numbers(table: pa.Table, selection: Selection | None) -> dict[str, Any]:
    arms = table["arm"].to_pylist()
    numbers: dict[str, Any] = {"n_selected": len(arms), "n_random": arms.count("random")}
    if "unknown" in arms:
        numbers["n_unknown"] = arms.count("unknown")
    if selection is not None:
        numbers |= {"n_eligible": selection.eligible, "n_pool": selection.pool}
    return numbers


def _page(
    table: pa.Table,
    selection: Selection | None,
    advice: Advice | None,
    round_id: str,
    shards: str = "",
) -> str:
    from visionloop.selection.advice import headline
    from visionloop.selection.notes import note

    parts = [f"# Selection of {round_name(round_id)}", f"{table.num_rows} samples were selected."]
    if selection is None:
        parts.append("The round had selected before; these are its picks.")
    else:
        left = [["in the pool", "", selection.pool]]
        rest = selection.pool
        for reason, number in selection.removed.items():
            rest -= number
            left.append([reason, -number, rest])
        parts.append(markdown_table(["filter", "removed", "left"], left))
        weights = ", ".join(f"{name} {value:.2g}" for name, value in selection.strengths.items())
        parts.append(f"Objectives and their strengths: {weights or 'none, drawn at random'}.")
        parts += [shards] if shards else []
        parts += [note(flag) for flag in selection.flags]
    if advice is not None:
        reasons = "\n".join(f"- {reason}" for reason in advice.reasons)
        parts += [f"## {headline(advice)}", reasons, "## Picks"]
    parts.append(_picks(table))
    return "\n\n".join(parts) + "\n"


def _again(relabels: pa.Table) -> str:
    if not relabels.num_rows:
        return ""
    header = ["sample", "label", "taken for", "score"]
    rows = [
        [f"`{row['sample_id'][:12]}`", row["label"], row["suggested"], f"{row['score']:.3f}"]
        for row in relabels.sort_by("rank").slice(0, PAGE_ROWS).to_pylist()
    ]
    text = (
        f"\n## Asked again\n\n{relabels.num_rows} of the budget go to samples that are labelled "
        "already: another answer is worth more there than at a new sample (ActiveLab; the lowest "
        f"score first).\n\n{markdown_table(header, rows)}\n"
    )
    if relabels.num_rows > PAGE_ROWS:
        text += f"\nThe first {PAGE_ROWS} are shown; the table `relabels` holds all.\n"
    return text


def _picks(table: pa.Table) -> str:
    from visionloop.selection.explain import strongest

    fixed = {"sample_id", "rank", "arm", "propensity", "nearest_chosen", "nearest_distance", "why"}
    names = [name for name in table.column_names if name not in fixed]
    header = ["rank", "sample", "strongest", *names, "nearest chosen", "distance", "why"]
    rows = []
    for row in table.slice(0, PAGE_ROWS).to_pylist():
        values = {name: row[name] for name in names}
        distance = row["nearest_distance"]
        rows.append(
            [
                row["rank"] + 1,
                f"`{row['sample_id'][:12]}`",
                row["arm"] if row["arm"] != "selected" else strongest(values).replace("_", " "),
                *("unknown" if value is None else f"{value:.3f}" for value in values.values()),
                f"`{row['nearest_chosen'][:12]}`" if row["nearest_chosen"] else "none",
                "" if distance is None else f"{distance:.3f}",
                row["why"],
            ]
        )
    text = markdown_table(header, rows)
    if table.num_rows > PAGE_ROWS:
        text += f"\n\nThe first {PAGE_ROWS} are shown; the table `selected` holds all."
    return text
