"""A selection as rows of the lake's table, as a table for a person, and read back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.selection.advice import Advice, advise, read_past
from visionloop.selection.config import SelectionConfig
from visionloop.selection.engine import Selection, select
from visionloop.selection.explain import explain
from visionloop.selection.greedy import Course
from visionloop.selection.material import Material, read_material
from visionloop.selection.notes import notes
from visionloop.selection.objectives import FLOOR

if TYPE_CHECKING:
    from visionloop.lake import Lake


def selection_rows(selection: Selection, *, model_id: str) -> pa.Table:
    """Return the picks as rows of the table `selections`."""
    from visionloop.lake.schemas import arrow_schema

    now = datetime.now(UTC)
    schema = arrow_schema("selections")
    rows = [
        {
            "sample_id": pick.sample_id,
            "rank": pick.rank,
            "objectives": json.dumps(dict(pick.objectives)),
            "arm": pick.arm,
            "propensity": pick.propensity,
            "nearest_chosen": pick.nearest_chosen,
            "nearest_distance": None
            if math.isnan(pick.nearest_distance)
            else pick.nearest_distance,
            "model_id": model_id,
            "space": selection.space,
            "selected_at": now,
        }
        for pick in selection.picks
    ]
    return pa.Table.from_pylist(rows, schema=schema).drop_columns(["round_id", "run_id"])


def picks_table(rows: pa.Table) -> pa.Table:
    """Return rows of `selections` with each objective as a column of its own, and why, by rank.

    Columns: sample_id, rank, arm, propensity, one float64 for each objective (null where unknown),
    nearest_chosen, nearest_distance, why.
    """
    picks = sorted(rows.to_pylist(), key=lambda row: row["rank"])
    values = [json.loads(row["objectives"] or "{}") for row in picks]
    names = list(dict.fromkeys(name for each in values for name in each))
    columns: dict[str, Any] = {
        "sample_id": pa.array([row["sample_id"] for row in picks], pa.string()),
        "rank": pa.array([row["rank"] for row in picks], pa.int32()),
        "arm": pa.array([row["arm"] for row in picks], pa.string()),
        "propensity": pa.array([row["propensity"] for row in picks], pa.float64()),
    }
    for name in names:
        columns[name] = pa.array([_shown(each.get(name)) for each in values], pa.float64())
    columns["nearest_chosen"] = pa.array([row["nearest_chosen"] for row in picks], pa.string())
    columns["nearest_distance"] = pa.array([row["nearest_distance"] for row in picks], pa.float64())
    why = [explain(each, arm=row["arm"]) for each, row in zip(values, picks, strict=True)]
    columns["why"] = pa.array(why, pa.string())
    return pa.table(columns)


def _shown(value: float | None) -> float | None:
    """Return an objective's value without what keeps its logarithm finite."""
    return 0.0 if value is not None and value <= FLOOR else value


@dataclass(frozen=True)
class Made:
    """A selection that was made for a person.

    Attributes:
        selection: The selection.
        rows: Its rows of the table `selections`.
        advice: Whether more labels are worth it.
        warnings: What was not as configured, in words.
        holdout: Samples of the lake's holdout, which are no part of the pool.
    """

    selection: Selection
    rows: pa.Table
    advice: Advice
    warnings: tuple[str, ...]
    holdout: int = 0


def select_from_lake(
    lake: Lake,
    config: SelectionConfig,
    n: int | None = None,
    *,
    classes: Sequence[str] = (),
    version: str = "",
    seed: int | None = None,
    course: Course | None = None,
    watch: Callable[[Course, int], None] | None = None,
) -> Made:
    """Select from a lake once, for a person. Writes nothing.

    Args:
        lake: The lake.
        config: How to select.
        n: How many; it wins over the configuration's number or proportion, with a warning.
        classes: Classes of the loop; empty takes those of the model or of the labels.
        version: Lake version; empty for the newest.
        seed: None takes the configuration's.
        course: As of `visionloop.selection.engine.select`.
        watch: Likewise.

    Raises:
        InputError: Fewer than n can be selected (said after each filter), the lake is empty, or the
            configuration names what the lake does not have.
    """
    warnings = []
    explicit = {"n_samples", "proportion_samples"} & config.model_fields_set
    if n is not None and explicit:
        given = explicit.pop()
        if getattr(config, given) != n:
            warnings.append(
                f"{n} samples were asked for; the configuration's {given}: "
                f"{getattr(config, given)} is not used"
            )
    material = read_material(lake, config, classes=classes, version=version)
    if not len(material.pool) and not material.excluded:
        raise InputError(
            "the lake has no samples to select from",
            where=lake.place,
            remedy="Ingest a source first: visionloop ingest --lake URI --source URI",
        )
    # LightlyOne's number of samples is the most that it takes; `-n` is asked for.
    at_most = config.dialect == "lightly" and n is None
    selection = select_material(material, n, seed=seed, at_most=at_most, course=course, watch=watch)
    rows = selection_rows(selection, model_id=material.model_id)
    advice = advise(material.config, selection, read_past(lake, version=version))
    warnings += notes(selection, material.pool)
    frozen = len(material.holdout.sample_ids)
    return Made(selection, rows, advice, tuple(warnings), frozen)


def select_material(
    material: Material,
    n: int | None,
    *,
    seed: int | None = None,
    unattended: bool = False,
    at_most: bool = False,
    course: Course | None = None,
    watch: Callable[[Course, int], None] | None = None,
) -> Selection:
    """Select from what was read of a lake; see `visionloop.selection.engine.select`."""
    return select(
        material.pool,
        material.config,
        n,
        seed=seed,
        labelled=material.labelled,
        holdout=material.holdout,
        taken=material.taken,
        queries=material.queries,
        n_classes=material.n_classes,
        excluded=material.excluded,
        unattended=unattended,
        at_most=at_most,
        course=course,
        watch=watch,
    )
