"""Charts of how the loop runs: drift over rounds, confidences in production, funnel, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionloop.monitoring.report.charts.reading import apart, duration, figure, percent
from visionloop.monitoring.report.charts.theme import (
    Chart,
    Key,
    both,
    colour,
    one,
    values,
)
from visionloop.monitoring.report.data import Window
from visionloop.monitoring.report.data_cost import RoundCost
from visionloop.monitoring.report.data_drift import DRIFT, STABLE, TOO_FEW, DriftSeries
from visionloop.monitoring.report.data_funnel import Account
from visionloop.words import counted, in_round, round_name, round_number

# A phone shows one beside nothing, a desktop two or three beside each other.
SMALL = (272, 150)
# Stages with a colour of their own; the rest are one colour more.
STAGES = 7
# Rounds that a chart of costs shows; the table beside it has all.
COST_ROUNDS = 24

_DRIFT = {
    DRIFT: ("drift", "diamond", "bad"),
    STABLE: ("stable", "circle", "accent"),
    TOO_FEW: ("too few to say", "square", "faint"),
}


def drift(series: DriftSeries, *, name: str, upcoming: str = "") -> Chart | None:
    """Return what was measured in each round, and the threshold that it was held against.

    Args:
        series: The measure; None comes back where no round has a score.
        name: Name that is unique on the page.
        upcoming: Id of the round that was not opened yet.
    """
    import altair as alt

    held = [(p, p.score) for p in series.points if p.score is not None]
    if not held:
        return None
    rows = [
        {
            "round": round_number(p.round_id, upcoming),
            "score": score,
            "threshold": p.threshold,
            "series": _DRIFT.get(p.state, _DRIFT[TOO_FEW])[0],
        }
        for p, score in held
    ]
    kinds = list(_DRIFT.values())
    names = [kind[0] for kind in kinds]
    base = alt.Chart(values(rows)).encode(
        x=alt.X(
            "round:O",
            title=None,
            sort=None,
            axis=alt.Axis(labelAngle=0, labelOverlap=True, labelFontSize=11),
        )
    )
    form = ".0%" if series.unit == "share" else "~g"

    def tall(field: str) -> Any:
        return alt.Y(
            f"{field}:Q",
            title=None,
            scale=alt.Scale(zero=True, nice=True),
            axis=alt.Axis(format=form, tickCount=3, labelFontSize=11),
        )

    limit = base.mark_line(
        color=colour("look"), strokeDash=[5, 3], strokeWidth=1.5, interpolate="step", clip=False
    ).encode(y=tall("threshold"))
    # A line through one point is nothing: of a first comparison a tick shows the threshold.
    limits = base.mark_tick(color=colour("look"), thickness=1.5, width=22).encode(
        y=tall("threshold")
    )
    line = base.mark_line(color=colour("accent"), strokeWidth=1.75).encode(y=tall("score"))
    dots = base.mark_point(size=60).encode(
        y=tall("score"),
        color=alt.Color(
            "series:N",
            scale=alt.Scale(domain=names, range=[colour(kind[2]) for kind in kinds]),
            legend=None,
        ),
        shape=alt.Shape(
            "series:N",
            scale=alt.Scale(domain=names, range=[kind[1] for kind in kinds]),
            legend=None,
        ),
    )
    return one(
        alt.layer(limit if len(held) > 1 else limits, line, dots),
        name=name,
        words=f"{series.title}, {series.subject_type} {series.subject}. "
        + " ".join(
            f"{round_name(p.round_id, upcoming).capitalize()}: "
            f"{', threshold '.join(apart(p.score, p.threshold, series.unit))}, {p.state}."
            for p, _ in held
        ),
        size=SMALL,
        head=("Round", "Measured", "Threshold", "n", "State"),
        rows=tuple(
            (
                round_number(p.round_id, upcoming),
                *apart(p.score, p.threshold, series.unit),
                f"{p.n:,}" if p.n else "\u2013",
                p.state + (f": {p.reason}" if p.reason else ""),
            )
            for p in series.points
        ),
        keys=DRIFT_KEYS,
    )


DRIFT_KEYS = (
    *(Key(kind[0], kind[2], kind[1]) for kind in _DRIFT.values()),
    Key("threshold", "look", "dashed"),
)
CONFIDENCE_KEYS = (
    Key("in production", "accent", "area"),
    Key("the same model on its holdout", "ink", "line"),
)


def confidences(window: Window, *, highest: float, name: str, upcoming: str = "") -> Chart:
    """Return how sure a model was in production, and how sure it is on its own holdout.

    Args:
        window: The confidences.
        highest: Share that the full height stands for, common to charts side by side.
        name: Name that is unique on the page.
        upcoming: Id of the round that was not opened yet.
    """
    import altair as alt

    n = max(1, len(window.histogram))
    rows = [{"low": i / n, "high": (i + 1) / n, "share": s} for i, s in enumerate(window.histogram)]
    top = max(highest, 1e-9)

    def tall(field: str) -> Any:
        return alt.Y(
            f"{field}:Q",
            title=None,
            scale=alt.Scale(domain=[0, top], nice=True),
            axis=alt.Axis(format=".0%", tickCount=3, labelFontSize=11),
        )

    x = alt.X(
        "low:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], labelFontSize=11),
    )
    layers = [
        alt.Chart(values(rows))
        .mark_bar(color=colour("accent"), binSpacing=1)
        .encode(x=x, x2="high:Q", y=tall("share"), y2=alt.datum(0))
    ]
    if window.reference:
        ends = [*window.reference, window.reference[-1]]
        outline = [{"low": i / n, "share": s} for i, s in enumerate(ends)]
        layers.append(
            alt.Chart(values(outline))
            .mark_line(color=colour("ink"), strokeWidth=1.25, interpolate="step-after")
            .encode(x=x, y=tall("share"))
        )
    reference = [*window.reference, *[None] * (n - len(window.reference))]
    sure = sum(window.histogram[round(0.9 * n) :])
    return one(
        alt.layer(*layers),
        name=name,
        words=f"Confidences of {window.endpoint} {in_round(window.round_id, upcoming)}: "
        f"{percent(sure)} of {counted(window.n, 'inference')} are at least 90% sure.",
        size=SMALL,
        head=("Confidence", "In production", "On the holdout"),
        rows=tuple(
            (
                f"{percent(i / n)} to {percent((i + 1) / n)}",
                percent(share),
                "\u2013" if other is None else percent(other),
            )
            for i, (share, other) in enumerate(zip(window.histogram, reference, strict=False))
        ),
        keys=CONFIDENCE_KEYS,
    )


def funnel(account: Account, *, events: bool = False) -> Chart | None:
    """Return how many reached each step, over how many could have.

    Args:
        account: The funnel.
        events: Whether the steps of the endpoint's logged events are drawn instead of the files'.
    """
    steps = account.events if events else account.steps
    if not any(step.n or step.of for step in steps):
        return None
    rows: list[dict[str, Any]] = []
    for step in steps:
        came = (step.of or 0) + sum(part.n for part in step.entered) if step.of else step.n
        rows.append(
            {
                "step": step.title,
                "n": step.n,
                "came": came,
                "count": f"{step.n:,}",
                "told": f"{step.n:,}" if came <= step.n else f"{step.n:,} of {came:,}",
            }
        )
    name = "events" if events else "funnel"
    return both(
        _steps(rows, "told"),
        on_phone=_steps(rows, "count"),
        name=name,
        words="Funnel. "
        + " ".join(
            f"{step.title}: {step.n:,}" + (f" of {step.of:,}." if step.of is not None else ".")
            for step in steps
        ),
        heights=(24 * len(steps) + 10,) * 2,
        head=("Step", "Reached", "Of", "Where the rest went"),
        rows=tuple(
            (
                step.title,
                f"{step.n:,}",
                "\u2013" if step.of is None else f"{step.of:,}",
                "; ".join(f"{part.n:,} {part.name}" for part in step.rest if part.n) or "\u2013",
            )
            for step in steps
        ),
        keys=(
            Key("reached this step", "accent", "area"),
            Key("came from the step before and did not", "rule", "area"),
        ),
    )


def _steps(rows: Sequence[Mapping[str, Any]], told: str) -> Any:
    """Return a bar for each step over a paler one for what came, the numbers beside it."""
    import altair as alt

    # Room at the right for the longest number.
    room = 8 + 7 * max(len(row[told]) for row in rows)
    scale = alt.Scale(
        domain=[0, max(row["came"] for row in rows)],
        range=[0, {"expr": f"width - {room}"}],
        nice=False,
    )
    base = alt.Chart(values(rows)).encode(
        y=alt.Y(
            "step:N",
            sort=[row["step"] for row in rows],
            title=None,
            axis=alt.Axis(labelLimit=150, labelColor=colour("ink"), labelPadding=8),
        )
    )
    came, n = (alt.X(f"{one}:Q", title=None, axis=None, scale=scale) for one in ("came", "n"))
    return alt.layer(
        base.mark_bar(color=colour("rule"), height=14).encode(x=came),
        base.mark_bar(color=colour("accent"), height=14).encode(x=n),
        base.mark_text(align="left", dx=6, color=colour("ink")).encode(x=came, text=f"{told}:N"),
    )


def cost(rounds: Sequence[RoundCost], upcoming: str = "") -> Chart | None:
    """Return the seconds of work of each stage, a bar a round.

    Args:
        rounds: Costs, oldest first; None comes back where no stage ran.
        upcoming: Id of the round that was not opened yet.
    """
    import altair as alt

    held = [one for one in rounds if one.seconds][-COST_ROUNDS:]
    if not held:
        return None
    named = [(round_name(one.round_id, upcoming), one) for one in held]
    totals: dict[str, float] = {}
    for spent in held:
        for stage, seconds in spent.seconds.items():
            totals[stage] = totals.get(stage, 0.0) + seconds
    largest = sorted(totals, key=lambda stage: (-totals[stage], stage))[:STAGES]
    rest = "all other stages"
    names = [*largest, *([rest] if len(totals) > len(largest) else [])]
    rows: list[dict[str, Any]] = []
    for spent in held:
        grouped: dict[str, float] = {}
        for stage, seconds in spent.seconds.items():
            key = stage if stage in largest else rest
            grouped[key] = grouped.get(key, 0.0) + seconds
        number = round_number(spent.round_id, upcoming)
        rows += [
            {"round": number, "stage": n, "s": grouped[n], "order": i}
            for i, n in enumerate(names)
            if n in grouped
        ]
    marks = [*(f"c{i}" for i in range(len(largest))), "grey"][: len(names)]
    unit, scale = ("hours", 3600.0) if max(h.total_seconds for h in held) > 5400 else ("seconds", 1)
    for row in rows:
        row["s"] /= scale
    chart = (
        alt.Chart(values(rows))
        .mark_bar(height={"band": 0.7}, stroke=colour("paper"), strokeWidth=0.75)
        .encode(
            x=alt.X("s:Q", title=f"{unit} of work", axis=alt.Axis(grid=True, tickCount=5)),
            y=alt.Y("round:O", title=None, sort=None, axis=alt.Axis(labelColor=colour("ink"))),
            order="order:O",
            color=alt.Color(
                "stage:N",
                scale=alt.Scale(domain=names, range=[colour(mark) for mark in marks]),
                legend=None,
            ),
        )
    )
    return both(
        chart,
        name="cost",
        words="Work of each round. "
        + " ".join(f"{name.capitalize()}: {duration(one.total_seconds)}." for name, one in named),
        heights=(50 + 26 * len(held),) * 2,
        head=("Stage", *(name.capitalize() for name, _ in named), "All"),
        rows=tuple(
            (
                stage.replace("_", " "),
                *(
                    figure(spent.seconds[stage]) + " s" if stage in spent.seconds else "\u2013"
                    for spent in held
                ),
                duration(totals[stage]),
            )
            for stage in sorted(totals, key=lambda stage: (-totals[stage], stage))
        ),
        keys=tuple(
            Key(n.replace("_", " "), mark, "square") for n, mark in zip(names, marks, strict=True)
        ),
    )
