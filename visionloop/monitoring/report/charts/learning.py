"""Charts of what was learned: accuracy against labels and rounds, calibration, slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.charts.theme import (
    NARROW,
    WIDE,
    Chart,
    colour,
    svg,
    values,
)
from visionloop.words import counted


@dataclass(frozen=True)
class Line:
    """One line of the label-efficiency chart.

    Attributes:
        name: What it stands for.
        points: Labels and accuracy, in ascending order of labels.
        plain: Whether it is the one that the others are compared with.
    """

    name: str
    points: tuple[tuple[int, Rate], ...]
    plain: bool = False


def percent(value: float) -> str:
    """Return a share as it is read: ``93.1%``."""
    return f"{100 * value:.1f}%"


def interval(rate: Rate) -> str:
    """Return a rate's interval as it is read: ``90.8% to 94.9%``."""
    return f"{percent(rate.low)} to {percent(rate.high)}"


def told(rate: Rate) -> str:
    """Return a rate with its interval and n, as it is read aloud."""
    return f"{percent(rate.value)} ({interval(rate)}, n = {rate.n:,})"


def floor_of(rates: Sequence[Rate]) -> float:
    """Return where an axis of shares begins: a tenth below every interval, at most 0.9."""
    lowest = min((rate.low for rate in rates), default=0.0)
    return max(0.0, min(0.9, int(10 * lowest - 1e-9) / 10))


def _share_axis(title: str, floor: float, ticks: int = 5) -> Any:
    import altair as alt

    return alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=[floor, 1], nice=False, zero=False),
        axis=alt.Axis(
            format=".0%", tickCount=ticks, titleAngle=0, titleAlign="left", titleAnchor="end",
            titleX=0, titleY=-12, titleBaseline="bottom",
        ),
    )  # fmt: skip


def efficiency(lines: Sequence[Line], *, words: str) -> Chart | None:
    """Return accuracy against the number of labels, with a band for each interval.

    Args:
        lines: What is compared; None comes back where no line has a point.
        words: What the comparison says, for those who cannot see the chart.
    """
    import altair as alt

    drawn = [line for line in lines if line.points]
    rates = [rate for line in drawn for _, rate in line.points]
    if not rates:
        return None
    floor = floor_of(rates)
    names = [line.name for line in drawn]
    colours = [colour("grey" if line.plain else "accent") for line in drawn]
    rows = [
        {"arm": line.name, "labels": x, "value": r.value, "low": r.low, "high": r.high}
        for line in drawn
        for x, r in line.points
    ]
    scale = alt.Color("arm:N", scale=alt.Scale(domain=names, range=colours), sort=names)
    dash = alt.StrokeDash(
        "arm:N",
        scale=alt.Scale(domain=names, range=[[5, 4] if line.plain else [1, 0] for line in drawn]),
        sort=names,
    )
    base = alt.Chart(values(rows)).encode(
        x=alt.X(
            "labels:Q",
            title="labels the model learned from",
            axis=alt.Axis(format=",d", tickMinStep=1, tickCount=6),
        ),
        color=scale,
    )
    y = _share_axis("accuracy on the holdout", floor)
    band = base.mark_area(opacity=0.16).encode(y=y, y2="high:Q")
    band = band.encode(y=alt.Y("low:Q", scale=y.scale, title=y.title, axis=y.axis))
    whisker = base.mark_rule(opacity=0.45, strokeWidth=1.5).encode(
        y=alt.Y("low:Q", scale=y.scale), y2="high:Q"
    )
    line = base.mark_line().encode(y=y, strokeDash=dash)
    dots = base.mark_point(stroke=colour("paper"), strokeWidth=1.5).encode(
        y=y, fill=scale, color=alt.value(colour("paper")), shape=_shapes(names)
    )
    chart = alt.layer(band, whisker, line, dots).resolve_legend(fill="independent")
    return _both(
        chart,
        name="efficiency",
        words=f"Accuracy against labels. {words} "
        + " ".join(
            f"{line.name}: "
            + "; ".join(f"{counted(x, 'label')} {told(r)}" for x, r in line.points)
            + "."
            for line in drawn
        ),
        heights=(320, 260),
        head=("Model of", "Labels", "Accuracy", "95% interval", "n"),
        rows=tuple(
            (line.name, f"{x:,}", percent(r.value), interval(r), f"{r.n:,}")
            for line in drawn
            for x, r in line.points
        ),
    )


def _shapes(names: Sequence[str]) -> Any:
    import altair as alt

    shapes = ["circle", "square", "diamond", "triangle-up"]
    return alt.Shape(
        "arm:N",
        scale=alt.Scale(domain=list(names), range=[shapes[i % 4] for i in range(len(names))]),
        legend=None,
    )


@dataclass(frozen=True)
class Outcome:
    """The model of one round, as the chart over rounds shows it.

    Attributes:
        round_id: The round.
        accuracy: Its accuracy on the holdout.
        gate: ``passed``, ``rejected`` or "" for none.
    """

    round_id: str
    accuracy: Rate
    gate: str = ""


_GATES = (
    ("passed", "let into service", "circle", "good"),
    ("rejected", "kept out by the gate", "diamond", "bad"),
    ("", "no gate", "square", "grey"),
)


def over_rounds(outcomes: Sequence[Outcome]) -> Chart | None:
    """Return the accuracy of each round's model with its interval, and what the gate said."""
    import altair as alt

    if not outcomes:
        return None
    said = {state: words for state, words, _, _ in _GATES}
    rows = [
        {
            "round": one.round_id,
            "gate": said.get(one.gate, one.gate),
            "value": one.accuracy.value,
            "low": one.accuracy.low,
            "high": one.accuracy.high,
        }
        for one in outcomes
    ]
    used = [g for g in _GATES if g[1] in {row["gate"] for row in rows}]
    names = [g[1] for g in used]
    y = _share_axis("accuracy on the holdout", floor_of([one.accuracy for one in outcomes]))
    base = alt.Chart(values(rows)).encode(
        x=alt.X("round:O", title="round", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    )
    line = base.mark_line(color=colour("faint"), strokeWidth=1.25).encode(y=y)
    whisker = base.mark_rule(color=colour("soft"), strokeWidth=1.75).encode(
        y=alt.Y("low:Q", scale=y.scale, title=y.title, axis=y.axis), y2="high:Q"
    )
    key = {"domain": names}
    dots = base.mark_point(size=95).encode(
        y=y,
        color=alt.Color(
            "gate:N", scale=alt.Scale(**key, range=[colour(g[3]) for g in used]), sort=names
        ),
        shape=alt.Shape("gate:N", scale=alt.Scale(**key, range=[g[2] for g in used]), sort=names),
    )
    return _both(
        alt.layer(line, whisker, dots),
        name="rounds",
        words="Accuracy of each round's model. "
        + " ".join(
            f"Round {one.round_id}: {told(one.accuracy)}, {said.get(one.gate, one.gate)}."
            for one in outcomes
        ),
        heights=(260, 230),
        head=("Round", "Accuracy", "95% interval", "n", "Gate"),
        rows=tuple(
            (
                one.round_id,
                percent(one.accuracy.value),
                interval(one.accuracy),
                f"{one.accuracy.n:,}",
                said.get(one.gate, one.gate),
            )
            for one in outcomes
        ),
    )


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes:
        confidence: Mean confidence of its samples.
        accuracy: Share of them that is right.
    """

    confidence: float
    accuracy: Rate


def reliability(bins: Sequence[Bin], *, model: str) -> Chart | None:
    """Return accuracy against confidence: on the diagonal the model is as sure as it is right.

    Args:
        bins: Bins that hold a sample.
        model: The model in words.
    """
    import altair as alt

    held = [one for one in bins if one.accuracy.n]
    if not held:
        return None
    rows = [
        {
            "confidence": one.confidence,
            "value": one.accuracy.value,
            "low": one.accuracy.low,
            "high": one.accuracy.high,
            "n": one.accuracy.n,
        }
        for one in held
    ]
    x = alt.X(
        "confidence:Q",
        title="mean confidence",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=5),
    )
    y = _share_axis("share that is right", 0.0)
    base = alt.Chart(values(rows)).encode(x=x)
    ideal = (
        alt.Chart(values([{"confidence": 0, "value": 0}, {"confidence": 1, "value": 1}]))
        .mark_line(color=colour("faint"), strokeDash=[4, 4], strokeWidth=1.5)
        .encode(x=x, y=y)
    )
    whisker = base.mark_rule(color=colour("accent"), opacity=0.5, strokeWidth=2).encode(
        y=alt.Y("low:Q", scale=y.scale, title=y.title, axis=y.axis), y2="high:Q"
    )
    dots = base.mark_point(color=colour("accent")).encode(
        y=y,
        size=alt.Size("n:Q", scale=alt.Scale(range=[30, 240], zero=True), legend=None),
    )
    words = " ".join(
        f"Mean confidence {percent(one.confidence)}: right in {told(one.accuracy)}." for one in held
    )
    drawn = alt.layer(ideal, whisker, dots)
    return Chart(
        svg(
            drawn.properties(width=300, height=260),
            name="reliability",
            words=f"Calibration of the {model}. {words}",
        ),
        _none(),
        ("Mean confidence", "Right", "95% interval", "n"),
        tuple(
            (
                percent(one.confidence),
                percent(one.accuracy.value),
                interval(one.accuracy),
                f"{one.accuracy.n:,}",
            )
            for one in held
        ),
    )


@dataclass(frozen=True)
class Part:
    """One slice of the holdout.

    Attributes:
        name: Its value.
        accuracy: Accuracy on it.
        state: ``weak``, ``ok`` or ``few``.
    """

    name: str
    accuracy: Rate
    state: str = "ok"


_STATES = (
    ("weak", "weaker than the whole", "diamond", "bad"),
    ("ok", "no difference shown", "circle", "accent"),
    ("few", "too few to say", "square", "faint"),
)


def slices(
    parts: Sequence[Part], *, column: str, overall: Rate | None, name: str, floor: float
) -> Chart | None:
    """Return the accuracy on each slice as a dot on its interval.

    Args:
        parts: Slices of one column.
        column: The column.
        overall: Accuracy over all, drawn as a line across.
        name: Name that is unique on the page.
        floor: Where the axis begins, common to charts side by side.
    """
    import altair as alt

    if not parts:
        return None
    states = {state: words for state, words, _, _ in _STATES}
    rows = [
        {
            "slice": f"{one.name}",
            "place": i,
            "value": one.accuracy.value,
            "low": one.accuracy.low,
            "high": one.accuracy.high,
            "state": states[one.state],
        }
        for i, one in enumerate(parts)
    ]
    used = [s for s in _STATES if s[1] in {row["state"] for row in rows}]
    key = {"domain": [s[1] for s in used]}
    x = alt.X(
        "value:Q",
        title="accuracy",
        scale=alt.Scale(domain=[floor, 1], nice=False, zero=False),
        axis=alt.Axis(format=".0%", tickCount=5, grid=True),
    )
    y = alt.Y("slice:N", sort=[row["slice"] for row in rows], title=None,
              axis=alt.Axis(labelLimit=130, labelColor=colour("ink"), grid=False))  # fmt: skip
    base = alt.Chart(values(rows)).encode(y=y)
    layers = [
        base.mark_rule(strokeWidth=2, opacity=0.5, color=colour("soft")).encode(
            x=alt.X("low:Q", scale=x.scale, title=x.title, axis=x.axis), x2="high:Q"
        ),
        base.mark_point(size=75).encode(
            x=x,
            color=alt.Color(
                "state:N",
                scale=alt.Scale(**key, range=[colour(s[3]) for s in used]),
                legend=alt.Legend(columns=2),
            ),
            shape=alt.Shape("state:N", scale=alt.Scale(**key, range=[s[2] for s in used])),
        ),
    ]
    if overall is not None:
        line = alt.Chart(values([{"value": overall.value}]))
        layers.insert(0, line.mark_rule(color=colour("ink"), strokeDash=[3, 3]).encode(x=x))
    chart = alt.layer(*layers)
    height = 26 * len(parts)
    whole = f" Over all: {told(overall)}." if overall is not None else ""
    return _both(
        chart,
        name=name,
        words=f"Accuracy by {column}.{whole} "
        + " ".join(f"{one.name}: {told(one.accuracy)}, {states[one.state]}." for one in parts),
        heights=(height, height),
        head=(column, "Accuracy", "95% interval", "n", "What it says"),
        rows=tuple(
            (
                one.name,
                percent(one.accuracy.value),
                interval(one.accuracy),
                f"{one.accuracy.n:,}",
                states[one.state],
            )
            for one in parts
        ),
    )


def _none() -> Any:
    from markupsafe import Markup

    return Markup("")


def _both(
    chart: Any,
    *,
    name: str,
    words: str,
    heights: tuple[int, int],
    head: tuple[str, ...],
    rows: tuple[tuple[str, ...], ...],
) -> Chart:
    """Return a chart in both widths; its frame, axes and legend included, it is no wider."""
    import altair as alt

    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    wide, narrow = (
        svg(
            chart.properties(width=width, height=height, autosize=fit),
            name=f"{name}-{width}",
            words=words,
        )
        for width, height in zip((WIDE, NARROW), heights, strict=True)
    )
    return Chart(wide, narrow, head, rows)
