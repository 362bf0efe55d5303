"""Charts of what was learned: accuracy against labels and over rounds, calibration, slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.charts.reading import interval, percent, told
from visionloop.monitoring.report.charts.theme import Chart, Key, both, colour, one, values
from visionloop.monitoring.report.data_models import ArmPoint, Efficiency, ModelRow, SliceRow
from visionloop.words import counted, round_name, round_number

LOOP, RANDOM = "chosen by the loop", "drawn at random"
# What a model's state at the gate is called, its mark and its colour.
_GATES = {
    "passed": ("passed the gate", "circle", "good"),
    "rejected": ("kept out by the gate", "diamond", "bad"),
    "": ("no gate", "square", "grey"),
}
_SLICES = {
    "worse": ("below the rest", "diamond", "bad"),
    "ok": ("no difference shown", "circle", "accent"),
    "few": ("too few to say", "square", "faint"),
}


def floor_of(rates: Sequence[Rate]) -> float:
    """Return where an axis of shares begins: a tenth below every interval, at most 0.9."""
    lowest = min((rate.low for rate in rates), default=0.0)
    return max(0.0, min(0.9, int(10 * lowest - 1e-9) / 10))


def _share(field: str, floor: float, title: str) -> Any:
    """Return the vertical axis of a share; its title lies above it, where it can be read."""
    import altair as alt

    return alt.Y(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(domain=[floor, 1], nice=False, zero=False),
        axis=alt.Axis(
            format=".0%",
            tickCount=5,
            titleAngle=0,
            titleAlign="left",
            titleAnchor="end",
            titleX=-34,
            titleY=-10,
            titleBaseline="bottom",
        ),
    )


def _key(channel: Any, names: Sequence[str], marks: Sequence[Any]) -> Any:
    """Return an encoding that tells series apart, each name with a mark of its own."""
    import altair as alt

    scale = alt.Scale(domain=list(names), range=list(marks))
    return channel("series:N", scale=scale, sort=list(names), legend=None)


def efficiency(found: Efficiency, *, words: str) -> Chart | None:
    """Return accuracy against the number of labels, with a band for each interval.

    Args:
        found: Models of both arms; None comes back where neither has one.
        words: What the comparison says, for those who cannot see the chart.
    """
    import altair as alt

    arms = [(LOOP, found.loop), (RANDOM, found.random)]
    drawn: list[tuple[str, ArmPoint]] = [(name, p) for name, held in arms for p in held]
    if not drawn:
        return None
    names = [name for name, held in arms if held]
    floor = floor_of([p.accuracy for _, p in drawn])
    rows = [
        {"series": name, "labels": p.labels, "round": round_number(p.round_id), **_ends(p.accuracy)}
        for name, p in drawn
    ]
    title = "accuracy on the holdout"
    colours = [colour("accent" if name == LOOP else "grey") for name in names]
    base = alt.Chart(values(rows)).encode(
        x=alt.X(
            "labels:Q",
            title="labels the model learned from",
            scale=alt.Scale(zero=True, nice=True),
            axis=alt.Axis(format=",d", tickMinStep=1, tickCount=6),
        ),
        color=_key(alt.Color, names, colours),
    )
    low, value = _share("low", floor, title), _share("value", floor, title)
    band = base.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
    whisker = base.mark_rule(opacity=0.5, strokeWidth=1.5).encode(y=low, y2="high:Q")
    dashes = [[1, 0] if name == LOOP else [5, 4] for name in names]
    line = base.mark_line().encode(y=value, strokeDash=_key(alt.StrokeDash, names, dashes))
    shapes = ["circle" if name == LOOP else "square" for name in names]
    dots = base.mark_point(size=70).encode(y=value, shape=_key(alt.Shape, names, shapes))
    return both(
        alt.layer(band, whisker, line, dots),
        name="efficiency",
        words=f"Accuracy against labels. {words} "
        + " ".join(
            f"{name}, {counted(p.labels, 'label')}: {told(p.accuracy)}." for name, p in drawn
        ),
        heights=(300, 250),
        head=("Model of labels", "Round", "Labels", "Accuracy", "95% interval", "n"),
        rows=tuple(
            (name, round_number(p.round_id), f"{p.labels:,}", *_read(p.accuracy))
            for name, p in drawn
        ),
        keys=tuple(
            Key(name, "accent" if name == LOOP else "grey", "circle" if name == LOOP else "square")
            for name in names
        ),
    )


def _ends(rate: Rate) -> dict[str, float]:
    return {"value": rate.value, "low": rate.low, "high": rate.high}


def _read(rate: Rate) -> tuple[str, str, str]:
    return percent(rate.value), interval(rate), f"{rate.n:,}"


def over_rounds(models: Sequence[ModelRow]) -> Chart | None:
    """Return the accuracy of each of the loop's models with its interval and the gate's word."""
    import altair as alt

    held = [(m, m.accuracy) for m in models if m.arm != "random" and m.accuracy is not None]
    if not held:
        return None
    rows = [
        {"round": round_number(m.round_id), "series": _GATES[m.gate][0], **_ends(rate)}
        for m, rate in held
    ]
    used = [g for g in _GATES.values() if g[0] in {row["series"] for row in rows}]
    names = [g[0] for g in used]
    floor, title = floor_of([rate for _, rate in held]), "accuracy on the holdout"
    base = alt.Chart(values(rows)).encode(
        x=alt.X("round:O", title="round", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    )
    value = _share("value", floor, title)
    line = base.mark_line(color=colour("faint"), strokeWidth=1.25).encode(y=value)
    whisker = base.mark_rule(color=colour("soft"), strokeWidth=1.75).encode(
        y=_share("low", floor, title), y2="high:Q"
    )
    dots = base.mark_point(size=95).encode(
        y=value,
        color=_key(alt.Color, names, [colour(g[2]) for g in used]),
        shape=_key(alt.Shape, names, [g[1] for g in used]),
    )
    return both(
        alt.layer(line, whisker, dots),
        name="rounds",
        words="Accuracy of each round's model. "
        + " ".join(
            f"{round_name(m.round_id).capitalize()}: {told(rate)}, {_GATES[m.gate][0]}."
            for m, rate in held
        ),
        heights=(240, 220),
        head=("Round", "Accuracy", "95% interval", "n", "Gate"),
        rows=tuple((round_number(m.round_id), *_read(rate), _GATES[m.gate][0]) for m, rate in held),
        keys=tuple(Key(held[0], held[2], held[1]) for held in used),
    )


def reliability(model: ModelRow, *, name: str) -> Chart | None:
    """Return accuracy against confidence: on the diagonal a model is as sure as it is right.

    Args:
        model: The model; None comes back where its bins are unknown or empty.
        name: Name that is unique on the page.
    """
    import altair as alt

    held = [
        (b, b.confidence, b.right)
        for b in model.bins
        if b.n and b.confidence is not None and b.right is not None
    ]
    if not held:
        return None
    rows = [{"confidence": sure, "n": b.n, **_ends(right)} for b, sure, right in held]
    x = alt.X(
        "confidence:Q",
        title="mean confidence",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=5),
    )
    title = "share that is right"
    base = alt.Chart(values(rows)).encode(x=x)
    corners = [{"confidence": 0, "value": 0}, {"confidence": 1, "value": 1}]
    ideal = alt.Chart(values(corners)).mark_line(
        color=colour("faint"), strokeDash=[4, 4], strokeWidth=1.5
    )
    whisker = base.mark_rule(color=colour("accent"), opacity=0.5, strokeWidth=2)
    dots = base.mark_point(color=colour("accent"))
    size = alt.Size("n:Q", scale=alt.Scale(range=[30, 240], zero=True), legend=None)
    drawn = alt.layer(
        ideal.encode(x=x, y=_share("value", 0.0, title)),
        whisker.encode(y=_share("low", 0.0, title), y2="high:Q"),
        dots.encode(y=_share("value", 0.0, title), size=size),
    )
    said = " ".join(
        f"Mean confidence {percent(sure)}: right {told(right)}." for _, sure, right in held
    )
    return one(
        drawn,
        name=name,
        words=f"Calibration of the {model.name}. {said}",
        size=(340, 300),
        head=("Confidence", "Mean", "Right", "95% interval", "n"),
        rows=tuple(
            (f"{percent(b.low)} to {percent(b.high)}", percent(sure), *_read(right))
            for b, sure, right in held
        ),
        keys=(
            Key("the model, larger where more answers lie", "accent"),
            Key("as sure as it is right", "faint", "dashed"),
        ),
    )


def slices(
    rows: Sequence[SliceRow], *, column: str, overall: Rate | None, floor: float, name: str
) -> Chart | None:
    """Return the accuracy on each slice of one column as a dot on its interval.

    Args:
        rows: The slices.
        column: The column in words.
        overall: Accuracy over all, drawn as a line across.
        floor: Where the axis begins, common to charts below each other.
        name: Name that is unique on the page.
    """
    import altair as alt

    if not rows:
        return None
    states = ["few" if row.small else "worse" if row.worse else "ok" for row in rows]
    data = [
        {"slice": row.value, "series": _SLICES[state][0], **_ends(row.accuracy)}
        for row, state in zip(rows, states, strict=True)
    ]
    used = [held for state, held in _SLICES.items() if state in states]
    names = [held[0] for held in used]

    def across(field: str) -> Any:
        return alt.X(
            f"{field}:Q",
            title=None,
            scale=alt.Scale(domain=[floor, 1], nice=False, zero=False),
            axis=alt.Axis(format=".0%", tickCount=4, grid=True, labelOverlap=True),
        )

    base = alt.Chart(values(data)).encode(
        y=alt.Y(
            "slice:N",
            sort=[row.value for row in rows],
            title=None,
            axis=alt.Axis(labelLimit=120, labelColor=colour("ink"), grid=False),
        )
    )
    layers = [
        base.mark_rule(strokeWidth=2, opacity=0.55, color=colour("soft")).encode(
            x=across("low"), x2="high:Q"
        ),
        base.mark_point(size=75).encode(
            x=across("value"),
            color=_key(alt.Color, names, [colour(held[2]) for held in used]),
            shape=_key(alt.Shape, names, [held[1] for held in used]),
        ),
    ]
    if overall is not None:
        whole = alt.Chart(values([{"value": overall.value}]))
        layers.insert(
            0, whole.mark_rule(color=colour("ink"), strokeDash=[3, 3]).encode(x=across("value"))
        )
    told_whole = f" Over all: {told(overall)}." if overall is not None else ""
    said = " ".join(
        f"{row.value}: {told(row.accuracy)}, {_SLICES[state][0]}."
        for row, state in zip(rows, states, strict=True)
    )
    return both(
        alt.layer(*layers),
        name=name,
        words=f"Accuracy by {column}.{told_whole} {said}",
        heights=(40 + 26 * len(rows),) * 2,
        head=(column.capitalize(), "Accuracy", "95% interval", "n", "What it says"),
        rows=tuple(
            (row.value, *_read(row.accuracy), _SLICES[state][0])
            for row, state in zip(rows, states, strict=True)
        ),
        keys=(
            *(Key(held[0], held[2], held[1]) for held in used),
            *((Key("over all", "ink", "dashed"),) if overall is not None else ()),
        ),
    )
