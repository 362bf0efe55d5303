"""What the sections of the page draw, made ready: charts, and rows within a page's bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from visionloop.monitoring.report import words
from visionloop.monitoring.report.charts import health, learning, scatter
from visionloop.monitoring.report.charts.theme import Chart, Key
from visionloop.monitoring.report.data import FlagKind, Picture, ReportData, Window
from visionloop.monitoring.report.data_drift import DriftSeries
from visionloop.monitoring.report.data_funnel import Account, Step
from visionloop.monitoring.report.data_health import StandingFlag
from visionloop.monitoring.report.data_map import MapPoint
from visionloop.monitoring.report.data_models import ModelRow, SliceRow
from visionloop.monitoring.report.mapdata import map_json
from visionloop.monitoring.unjudged import title_of
from visionloop.words import round_number

# Bounds, so that a loop of years still makes a page that opens at once; each is told where it cuts.
ROUNDS, FUNNEL_ROUNDS, FLAG_ROUNDS = 60, 6, 6
SLICE_COLUMNS, SLICES, CLASSES = 12, 12, 24
DRIFT_CHARTS, WINDOWS, LEARNED = 24, 24, 60
# What there is only to know of is told below what wants a person.
FINDINGS = 8

# Anchor, words of the navigation and of the heading, by what a person asks.
SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Learning",
        (
            ("efficiency", "What each label bought"),
            ("rounds", "Round by round"),
            ("models", "How sure, how right"),
            ("slices", "Where it is weaker"),
            ("errors", "Most confident errors"),
        ),
    ),
    (
        "Data",
        (
            ("funnel", "From files to training"),
            ("map", "Map of the pictures"),
            ("selection", "What was chosen, and why"),
            ("flags", "What was found odd"),
        ),
    ),
    (
        "Production",
        (
            ("drift", "Drift over time"),
            ("production", "Confidences in production"),
            ("events", "Logged events"),
        ),
    ),
    (
        "People and cost",
        (
            ("annotators", "Who labelled"),
            ("cost", "What it cost"),
            ("lineage", "Where the model comes from"),
        ),
    ),
)


@dataclass(frozen=True)
class SliceColumn:
    """The slices of one metadata column: a chart of the lowest, and how many there are."""

    name: str
    chart: Chart
    total: int
    drawn: int


@dataclass(frozen=True)
class Drawn:
    """Something of the data beside the chart of it; None where it has no number to draw."""

    row: Any
    chart: Chart | None


@dataclass(frozen=True)
class FunnelRow:
    """A step of the funnel over all rounds, and what reached it in the newest rounds."""

    step: Step
    rounds: tuple[Step | None, ...]


def prepare(data: ReportData) -> dict[str, Any]:
    """Return what the templates need beside the data itself."""
    newest = data.rounds[-ROUNDS:]
    by_id = {model.model_id: model for model in data.models}
    evaluated = by_id.get(data.evaluated)
    flag_rounds = [held.round_id for held in data.rounds[-FLAG_ROUNDS:]]
    accounts = data.accounts[-FUNNEL_ROUNDS:]
    chart, note = _map(data)
    points = {point.sample_id: point for point in data.map.points if point.thumbnail >= 0}
    return {
        "sections": SECTIONS,
        "titles": {anchor: title for _, held in SECTIONS for anchor, title in held},
        "figures": words.figures(data),
        "findings": data.verdict.findings[:FINDINGS],
        "more_findings": data.verdict.findings[FINDINGS:],
        "efficiency_words": words.efficiency(data),
        "efficiency": learning.efficiency(data.efficiency, words=words.efficiency(data)),
        "rounds": newest,
        "rounds_note": words.shown(len(newest), len(data.rounds), "rounds"),
        "models_by_id": by_id,
        "over_rounds": learning.over_rounds(data.models[-2 * ROUNDS :]),
        "calibrated": _calibrated(data, evaluated),
        "evaluated": evaluated,
        "confusion": _confusion(data),
        "confusion_words": words.confusion(data),
        "mistakes": words.mistakes(data, 12),
        "slice_columns": _slices(evaluated),
        "slice_cuts": _slice_cuts(evaluated),
        "funnel": health.funnel(data.total),
        "funnel_rows": _funnel_rows(data.total, accounts, events=False),
        "event_funnel": health.funnel(data.total, events=True),
        "event_rows": _funnel_rows(data.total, accounts, events=True),
        "funnel_rounds": [account.round_id for account in accounts],
        "map_still": chart,
        "map_keys": note,
        "map_json": map_json(data.map, data.upcoming) if data.map.points else Markup(""),
        "flag_rounds": flag_rounds,
        "flags_since": _since(data) if flag_rounds else {},
        "not_judged": [(title_of(one), one.text) for one in data.not_judged],
        "standing": [Standing(flag, _evidence(flag, points, data)) for flag in data.standing],
        "flags": sorted(data.flags, key=_severest),
        "has_planted": any(f.planted is not None for f in data.flags),
        "drift": _drift(data.drift, data.upcoming),
        "drift_keys": health.DRIFT_KEYS,
        "drift_more": max(0, len(data.drift) - DRIFT_CHARTS),
        "windows": _windows(data.windows, data.upcoming),
        "windows_note": words.shown(min(WINDOWS, len(data.windows)), len(data.windows), "windows"),
        "confidence_keys": health.CONFIDENCE_KEYS,
        "drawn_cost": health.cost(data.cost.rounds, data.upcoming),
        "spaces": _spaces(data),
        "learned": data.lineage.samples[:LEARNED] if data.lineage else (),
    }


def _since(data: ReportData) -> dict[str, int]:
    """Return by kind the flags that came after the newest round: of its harvest, or an intake."""
    newest = max(held.round_id for held in data.rounds)
    later = {
        kind.kind: sum(n for round_id, n in kind.found.items() if round_id > newest)
        for kind in data.flags
    }
    return {kind: n for kind, n in later.items() if n}


@dataclass(frozen=True)
class Standing:
    """A flag that counts now, and the pictures that show why, as far as the page has them."""

    flag: StandingFlag
    pictures: tuple[Picture, ...]


def _evidence(
    flag: StandingFlag, points: Mapping[str, MapPoint], data: ReportData
) -> tuple[Picture, ...]:
    held = [points[sample] for sample in flag.images if sample in points]
    return tuple(
        Picture(point.name, data.map.thumbnails[point.thumbnail], small=point.small)
        for point in held
    )


_SEVERITY: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}


def _severest(kind: FlagKind) -> tuple[int, int, str]:
    return _SEVERITY.get(kind.severity, 1), -kind.total, kind.kind


def _calibrated(data: ReportData, evaluated: ModelRow | None) -> list[tuple[Drawn, str]]:
    """Return the reliability of the model in service and of the newest, where they differ."""
    wanted = [model for model in data.models if model.model_id == data.in_service]
    if evaluated is not None and evaluated not in wanted:
        wanted.append(evaluated)
    drawn = [
        Drawn(model, learning.reliability(model, name=f"reliability-{i}"))
        for i, model in enumerate(wanted)
    ]
    return [(held, words.calibration(held.row)) for held in drawn]


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix; ``heat`` is its share of the row in six steps."""

    count: int
    heat: int
    right: bool


def _confusion(data: ReportData) -> list[tuple[str, list[Cell]]]:
    if data.confusion is None or len(data.confusion.classes) > CLASSES:
        return []
    return [
        (
            name,
            [Cell(n, -(-6 * n // max(1, sum(row))), i == j) for j, n in enumerate(row)],
        )
        for i, (name, row) in enumerate(
            zip(data.confusion.classes, data.confusion.counts, strict=True)
        )
    ]


def _slices(model: ModelRow | None) -> list[SliceColumn]:
    if model is None:
        return []
    columns = _columns(model)
    shown = {
        name: sorted(rows, key=lambda row: (row.small, row.accuracy.value, row.value))[:SLICES]
        for name, rows in list(columns.items())[:SLICE_COLUMNS]
    }
    rates = [row.accuracy for rows in shown.values() for row in rows]
    floor = learning.floor_of([*rates, *([model.accuracy] if model.accuracy else [])])
    made = []
    for i, (name, rows) in enumerate(shown.items()):
        chart = learning.slices(
            rows,
            column=name.replace("_", " "),
            overall=model.accuracy,
            floor=floor,
            name=f"slices-{i}",
        )
        if chart is not None:
            made.append(SliceColumn(name.replace("_", " "), chart, len(columns[name]), len(rows)))
    return made


def _slice_cuts(model: ModelRow | None) -> int:
    return 0 if model is None else max(0, len(_columns(model)) - SLICE_COLUMNS)


def _columns(model: ModelRow) -> dict[str, list[SliceRow]]:
    columns: dict[str, list[SliceRow]] = {}
    for row in model.slices:
        columns.setdefault(row.column, []).append(row)
    return columns


def _funnel_rows(total: Account, accounts: Sequence[Account], *, events: bool) -> list[FunnelRow]:
    steps = total.events if events else total.steps
    return [FunnelRow(step, tuple(one.step(step.key) for one in accounts)) for step in steps]


def _map(data: ReportData) -> tuple[Markup, tuple[Key, ...]]:
    return scatter.still(data.map) if data.map.points else (Markup(""), ())


def _drift(found: Sequence[DriftSeries], upcoming: str) -> list[Drawn]:
    # What drifts now comes first, then what can be told, then the rest.
    order = {"drift": 0, "stable": 1, "too few to say": 2, "nothing to compare": 3}
    ordered = sorted(found, key=lambda one: order.get(one.state, 4))[:DRIFT_CHARTS]
    return [
        Drawn(one, health.drift(one, name=f"drift-{i}", upcoming=upcoming))
        for i, one in enumerate(ordered)
    ]


def _windows(found: Sequence[Window], upcoming: str) -> list[Drawn]:
    held = found[-WINDOWS:]
    # One scale for all: small multiples are read against each other.
    highest = max((max((*w.histogram, *w.reference), default=0.0) for w in held), default=0.0)
    return [
        Drawn(w, health.confidences(w, highest=highest, name=f"window-{i}", upcoming=upcoming))
        for i, w in enumerate(held)
    ]


def _span(rounds: Sequence[str], upcoming: str) -> str:
    first, last = (round_number(one, upcoming) for one in (rounds[0], rounds[-1]))
    return first if first == last else f"{first} to {last}"


@dataclass(frozen=True)
class SpaceRow:
    """An embedding space, and the rounds that used it."""

    rounds: str
    name: str
    source: str


def _spaces(data: ReportData) -> list[SpaceRow]:
    used: dict[tuple[str, str], list[str]] = {}
    for held in data.rounds:
        for space in held.spaces:
            used.setdefault(space, []).append(held.round_id)
    return [
        SpaceRow(_span(rounds, data.upcoming), name, source)
        for (name, source), rounds in used.items()
    ]
