"""The report as one self-contained page: no script, no request, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from visionloop.monitoring.report.charts import (
    Series,
    efficiency_chart,
    histogram,
    interval_mark,
)
from visionloop.monitoring.report.data import Funnel, ReportData, Slice, Window
from visionloop.monitoring.report.words import evaluated_rounds, words

ROUND_COLUMNS = 6


def render(data: ReportData) -> str:
    """Return the page for a report's data.

    Every word that comes from data is escaped by the template or the chart that shows it.
    """
    from jinja2 import Environment, StrictUndefined

    folder = resources.files(__package__) / "templates"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["spaced"] = lambda name: str(name).replace("_", " ")
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    series = _series(data)
    # A column a round: the newest fit on a page, all of them count in the totals.
    newest = data.rounds[-ROUND_COLUMNS:]
    timing_rounds = [r.round_id for r in newest if r.seconds]
    return template.render(
        data=data,
        words=words(data),
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        efficiency=efficiency_chart(series, width=936, height=400),
        efficiency_narrow=efficiency_chart(series, width=358, height=300),
        has_random=len(series) > 1,
        has_files=any(r.funnel.found for r in data.rounds),
        total=_total(r.funnel for r in data.rounds),
        flag_rounds=[r.round_id for r in newest],
        has_planted=any(f.planted is not None for f in data.flags),
        confusion=_confusion(data),
        slices=_slices(data),
        slice_floor=slice_floor(data),
        windows=_windows(data.windows),
        spaces=_spaces(data),
        timing_rounds=timing_rounds,
        timings=_timings(data, timing_rounds),
    )


def _series(data: ReportData) -> list[Series]:
    done = evaluated_rounds(data)
    chosen = tuple((r.labels or 0, r.accuracy) for r in done if r.accuracy is not None)
    random = tuple(
        (r.labels or 0, r.random_accuracy) for r in done if r.random_accuracy is not None
    )
    series = [Series("chosen by the loop", "loop", tuple(sorted(chosen, key=lambda p: p[0])))]
    if random:
        ordered = tuple(sorted(random, key=lambda p: p[0]))
        series.append(Series("random", "random", ordered))
    return series


def _total(funnels: Iterable[Funnel]) -> Funnel:
    parts = list(funnels)
    return Funnel(
        found=sum(f.found for f in parts),
        ok=sum(f.ok for f in parts),
        flagged=sum(f.flagged for f in parts),
        unreadable=sum(f.unreadable for f in parts),
        unchecked=sum(f.unchecked for f in parts),
        selected=sum(f.selected for f in parts),
        labelled=sum(f.labelled for f in parts),
    )


@dataclass(frozen=True)
class _Cell:
    count: int
    share: float
    right: bool


def _confusion(data: ReportData) -> list[list[_Cell]]:
    if data.confusion is None:
        return []
    return [
        [_Cell(n, n / max(1, sum(row)), i == j) for j, n in enumerate(row)]
        for i, row in enumerate(data.confusion.counts)
    ]


@dataclass(frozen=True)
class _Marked:
    row: Slice
    mark: Markup


def _slices(data: ReportData) -> list[tuple[str, list[_Marked]]]:
    overall = next(
        (
            r.accuracy.value
            for r in data.rounds
            if r.model_id == data.evaluated and r.accuracy is not None
        ),
        None,
    )
    floor = slice_floor(data)
    columns: dict[str, list[_Marked]] = {}
    for row in data.slices:
        mark = interval_mark(row.accuracy, overall=overall, floor=floor)
        columns.setdefault(row.column, []).append(_Marked(row, mark))
    return list(columns.items())


def slice_floor(data: ReportData) -> float:
    """Return what the left end of the slices' tracks stands for: a tenth, at most 0.9."""
    values = [row.accuracy.low for row in data.slices]
    values += [r.accuracy.value for r in data.rounds if r.accuracy is not None]
    return max(0.0, min(0.9, math.floor(10 * min(values, default=0.0)) / 10))


@dataclass(frozen=True)
class _Drawn:
    row: Window
    chart: Markup


def _windows(windows: tuple[Window, ...]) -> list[_Drawn]:
    # One scale for all: small multiples are read against each other.
    highest = max((max((*w.histogram, *w.reference), default=0.0) for w in windows), default=0.0)
    return [_Drawn(w, histogram(w.histogram, w.reference, highest=highest)) for w in windows]


@dataclass(frozen=True)
class _Space:
    rounds: str
    name: str
    source: str


def _spaces(data: ReportData) -> list[_Space]:
    used: dict[tuple[str, str], list[str]] = {}
    for held in data.rounds:
        for space in held.spaces:
            used.setdefault(space, []).append(held.round_id)
    return [
        _Space(rounds[0] if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}", name, source)
        for (name, source), rounds in used.items()
    ]


def _timings(data: ReportData, rounds: list[str]) -> list[dict[str, Any]]:
    by_round = {r.round_id: r.seconds for r in data.rounds}
    stages = list(dict.fromkeys(stage for r in data.rounds for stage in r.seconds))
    totals = {s: sum(spent.get(s, 0.0) for spent in by_round.values()) for s in stages}
    highest = max(totals.values(), default=0.0)
    return [
        {
            "stage": stage,
            "values": [by_round[r].get(stage) for r in rounds],
            "total": totals[stage],
            "share": totals[stage] / highest if highest else 0.0,
        }
        for stage in stages
    ]
