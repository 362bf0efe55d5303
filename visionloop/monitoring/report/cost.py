"""What the loop cost: stage seconds, GPU-hours, pictures and labels, and what that bought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.labeling.answers import CONFLICT, DETECTION, SKIPPED, WITHDRAWN, standing
from visionloop.monitoring.report.data_cost import Cost, RoundCost
from visionloop.monitoring.report.data_models import AHEAD, Difference, ModelRow
from visionloop.monitoring.report.models import Compared, finite
from visionloop.monitoring.report.reading import BOOKKEEPING, Reader, array, content
from visionloop.words import counted

GPU = "cuda"


def stage_seconds(runs: list[dict[str, Any]], round_id: str) -> dict[str, float]:
    """Return the seconds of work of each stage of a round, in the order of their first run."""
    seconds: dict[str, float] = {}
    for row in runs:
        if (row["round_id"] or "") == round_id and row["stage"] not in BOOKKEEPING:
            seconds[row["stage"]] = seconds.get(row["stage"], 0.0) + _spent(row)
    return seconds


def _spent(row: Mapping[str, Any]) -> float:
    began: datetime | None = row["started_at"]
    ended: datetime | None = row["finished_at"]
    # A clock that was set back must not give negative work.
    return max(0.0, (ended - began).total_seconds()) if began and ended else 0.0


def cost(reader: Reader, models: Sequence[ModelRow], rounds: Sequence[str]) -> Cost:
    """Return what each round cost, and all together.

    Args:
        reader: The lake.
        models: Every model, oldest first.
        rounds: The rounds to tell of, ascending.
    """
    images = _counts(pc.value_counts(array(pc.fill_null(reader.samples["round_id"], ""))))
    bought, holdout, imported, by_models = _labels(reader)
    people = _label_seconds(reader)
    gpu, gpu_note = _gpu(reader)
    newest = {row.round_id: row for row in models if row.arm == "loop"}
    made = []
    for round_id in rounds:
        seconds = stage_seconds(reader.runs, round_id)
        gained = newest[round_id].gained if round_id in newest else None
        total = sum(seconds.values())
        made.append(
            RoundCost(
                round_id,
                seconds,
                gpu.get(round_id),
                images[round_id],
                bought[round_id],
                holdout[round_id],
                people.get(round_id),
                gained,
                _per_point(bought[round_id], gained),
                _per_point(total, gained),
            )
        )
    evaluated = [row for row in models if row.arm == "loop" and row.accuracy is not None]
    gained, per_point, note = _bought_in_all(reader, evaluated)
    return Cost(
        tuple(made),
        sum(_spent(row) for row in reader.runs if row["stage"] not in BOOKKEEPING),
        sum(gpu.values()) / 3600 if gpu else None,
        gpu_note,
        reader.samples.num_rows,
        bought.total(),
        holdout.total(),
        imported,
        by_models,
        gained,
        per_point,
        note,
    )


def _per_point(amount: float, gained: Difference | None) -> float | None:
    if gained is None or gained.says != AHEAD:
        return None
    return amount / (100 * gained.value)


def _bought_in_all(
    reader: Reader, evaluated: Sequence[ModelRow]
) -> tuple[Difference | None, float | None, str]:
    if len(evaluated) < 2:
        return None, None, "A price for accuracy needs two evaluated models."
    first, last = evaluated[0], evaluated[-1]
    gained = Compared(reader).difference(last.model_id, last.accuracy, first)
    if gained is None or gained.says != AHEAD:
        why = f"The {last.name} is not significantly better than the {first.name}"
        return gained, None, f"{why}: what a point of accuracy cost cannot be told."
    more = last.labels - first.labels
    if more <= 0:
        return gained, None, f"The {last.name} learned from no more labels than the {first.name}."
    per_point = more / (100 * gained.value)
    note = (
        f"From the {first.name} to the {last.name}: {counted(more, 'more label')} for "
        f"{100 * gained.value:.1f} points."
    )
    return gained, per_point, note


def _labels(reader: Reader) -> tuple[Counter[str], Counter[str], int, int]:
    """Return labels bought for training and for the holdout by round, imports, and models'."""
    known = reader.answers.filter(pc.is_valid(reader.answers["label"]))
    objects = _about_objects(reader)
    more = pc.invert(pc.is_in(objects["sample_id"], value_set=array(known["sample_id"])))
    known = pa.concat_tables([known.select(objects.column_names), objects.filter(more)])
    model = pc.equal(pc.fill_null(known["origin"], ""), "model")
    asked = pc.and_(pc.is_valid(known["n_annotations"]), pc.invert(model))
    held = pc.is_in(array(known["sample_id"]), value_set=reader.holdout)
    rounds = array(pc.fill_null(known["round_id"], ""))
    mine = asked.combine_chunks() if hasattr(asked, "combine_chunks") else asked
    bought = _counts(pc.value_counts(rounds.filter(pc.and_(mine, pc.invert(held)))))
    holdout = _counts(pc.value_counts(rounds.filter(pc.and_(mine, held))))
    by_models = int(pc.sum(model).as_py() or 0)
    imported = known.num_rows - bought.total() - holdout.total() - by_models
    return bought, holdout, imported, by_models


def _about_objects(reader: Reader) -> pa.Table:
    """Return the answer that counts of each sample in which objects were looked for, no class."""
    names = ["sample_id", "origin", "round_id", "n_annotations"]
    light = [*names, "label", "task", "annotator", "created_at"]
    rows: list[dict[str, Any]] = []
    for batch in reader.batches("labels", *light, "boxes"):
        origin = pc.fill_null(batch["origin"], "")
        drawn = pc.fill_null(pc.greater(pc.list_value_length(batch["boxes"]), 0), False)
        # A list without objects says that there are none, where the row says nothing else.
        alone = pc.or_(
            pc.fill_null(pc.equal(batch["task"], DETECTION), False), pc.is_null(batch["label"])
        )
        about = pc.or_(drawn, pc.and_(pc.is_valid(batch["boxes"]), alone))
        about = pc.and_(about, pc.not_equal(origin, SKIPPED))
        back = pc.is_in(origin, value_set=pa.array([CONFLICT, WITHDRAWN]))
        rows += batch.filter(pc.or_(about, back)).select(light).to_pylist()
    held = [row for row in standing(rows).values() if row["origin"] != CONFLICT]
    columns = reader.answers.select(names).schema
    return pa.Table.from_pylist([{name: row[name] for name in names} for row in held], columns)


def _counts(values: Any) -> Counter[str]:
    return Counter({row["values"]: row["counts"] for row in values.to_pylist()})


def _label_seconds(reader: Reader) -> dict[str, float]:
    rows = reader.read("annotations", "round_id", "seconds")
    rows = rows.filter(pc.is_valid(rows["seconds"]))
    summed = rows.group_by("round_id").aggregate([("seconds", "sum")]).to_pylist()
    return {row["round_id"] or "": float(row["seconds_sum"]) for row in summed}


def _gpu(reader: Reader) -> tuple[dict[str, float], str]:
    """Return seconds on GPUs by round, and in words what is on record of them."""
    spent: dict[str, float] = {}
    devices: Counter[str] = Counter()
    for row in reader.experiments:
        told = content(row["metrics"]).get("training") or {}
        device, seconds = str(told.get("device") or ""), finite(told.get("seconds"))
        if not device or seconds is None:
            continue
        kind = "GPU" if device.startswith(GPU) else "CPU"
        devices[kind] += 1
        processes = max(1, int(told.get("processes") or 1))
        round_id = row["round_id"] or ""
        used = seconds * processes if kind == "GPU" else 0.0
        spent[round_id] = spent.get(round_id, 0.0) + used
    if not devices:
        return {}, "On what stages ran is not on record: GPU-hours cannot be told."
    if not devices["GPU"]:
        said = f"All {counted(devices['CPU'], 'training')} ran on CPUs."
    elif not devices["CPU"]:
        said = f"All {counted(devices['GPU'], 'training')} ran on GPUs."
    else:
        said = f"{devices['GPU']:,} of {counted(devices.total(), 'training')} ran on GPUs."
    return (
        spent,
        f"{said} GPU-hours are those of training; what embedded pictures is not on record.",
    )
