"""Charts as small pure functions from values to SVG.

Colours come from the page's style sheet through class names, so that a chart follows light and
dark. Every word that could come from data is escaped here: the page embeds the result unescaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from visionloop.monitoring.intervals import Rate

_Scale = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """One line of the label-efficiency chart.

    Attributes:
        name: Words at the end of the line.
        style: Class name that colours it: ``loop`` or ``random``.
        points: Labels and accuracy, in ascending order of labels.
    """

    name: str
    style: str
    points: tuple[tuple[int, Rate], ...]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round values from ``low`` to ``high``, at most ``most`` of them.

    Steps are 1, 2 or 5 times a power of ten.

    Args:
        low: Smallest value of the axis.
        high: Largest value of the axis.
        most: How many there may be.
    """
    if high <= low:
        return [low]
    raw = (high - low) / max(1, most - 1)
    power: float = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def efficiency_chart(series: Sequence[Series], *, width: int, height: int) -> Markup:
    """Return accuracy against the number of labels, with a band for each interval.

    Args:
        series: Lines to draw; the first is drawn on top.
        width: Width in CSS pixels, which is also the size that the text is set for.
        height: Height in CSS pixels.
    """
    points = [(x, rate) for line in series for x, rate in line.points]
    if not points:
        return Markup("")
    left, right, top, bottom = 44, 14, 34, 44
    most = max(x for x, _ in points)
    floor = max(0.0, math.floor(min(rate.low for _, rate in points) * 10 - 1e-9) / 10)
    x_high = ticks(0, most, 6)[-1]
    x_high = max(most, x_high)

    def x_at(value: float) -> float:
        return left + (width - left - right) * value / max(x_high, 1)

    def y_at(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - floor) / (1 - floor))

    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(_efficiency_words(series))}">'
    ]
    for value in ticks(floor, 1.0, 6 if height > 250 else 4):
        y = y_at(value)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value:.0%}</text>"
        )
    for value in ticks(0, x_high, 6 if width > 500 else 5):
        if value != int(value):
            continue
        parts.append(
            f'<text class="tick" x="{x_at(value):.1f}" y="{height - bottom + 18}" '
            f'text-anchor="middle">{int(value):,}</text>'
        )
    parts.append(
        f'<text class="axis" x="{(left + width - right) / 2:.1f}" y="{height - 6}" '
        'text-anchor="middle">labels the model learned from</text>'
        f'<text class="axis" x="0" y="11">accuracy on the holdout</text>'
    )
    ends: list[float] = []
    for line in reversed(series):
        parts.extend(_line(line, x_at, y_at))
    for line in series:
        if not line.points:
            continue
        x, rate = line.points[-1]
        above = line is series[0]
        y = y_at(rate.value) + (-14 if above else 24)
        # Two lines that end close together would print their names over each other.
        while any(abs(y - other) < 15 for other in ends):
            y += 15
        ends.append(y)
        parts.append(
            f'<text class="name {escape(line.style)}" x="{x_at(x):.1f}" y="{y:.1f}" '
            f'text-anchor="end">{escape(line.name)} {rate.value:.1%}</text>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))  # every word from data went through escape()


def _line(line: Series, x_at: _Scale, y_at: _Scale) -> list[str]:
    upper = [f"{x_at(x):.1f},{y_at(rate.high):.1f}" for x, rate in line.points]
    lower = [f"{x_at(x):.1f},{y_at(rate.low):.1f}" for x, rate in reversed(line.points)]
    middle = [f"{x_at(x):.1f},{y_at(rate.value):.1f}" for x, rate in line.points]
    style = escape(line.style)
    parts = []
    if len(line.points) > 1:
        parts.append(f'<polygon class="band {style}" points="{" ".join(upper + lower)}"/>')
        parts.append(f'<polyline class="line {style}" points="{" ".join(middle)}"/>')
    for x, rate in line.points:
        if len(line.points) == 1:
            parts.append(
                f'<line class="line {style}" x1="{x_at(x):.1f}" x2="{x_at(x):.1f}" '
                f'y1="{y_at(rate.low):.1f}" y2="{y_at(rate.high):.1f}"/>'
            )
        parts.append(
            f'<circle class="dot {style}" cx="{x_at(x):.1f}" cy="{y_at(rate.value):.1f}" r="4">'
            f"<title>{escape(line.name)}: {x:,} labels, {rate.value:.1%} "
            f"({rate.low:.1%} to {rate.high:.1%})</title></circle>"
        )
    return parts


def _efficiency_words(series: Sequence[Series]) -> str:
    lines = [
        f"{line.name}: " + ", ".join(f"{rate.value:.1%} at {x:,} labels" for x, rate in line.points)
        for line in series
        if line.points
    ]
    return "Accuracy against labels. " + "; ".join(lines)


def histogram(
    shares: Sequence[float],
    reference: Sequence[float],
    *,
    highest: float,
    width: int = 220,
    height: int = 84,
) -> Markup:
    """Return a histogram over [0, 1] as bars, with the reference as an outline.

    Args:
        shares: Share of the samples in each bin.
        reference: The same of the reference window, or nothing.
        highest: Share that the full height stands for, common to histograms side by side.
        width: Width in CSS pixels.
        height: Height in CSS pixels.
    """
    floor = height - 16
    step = width / max(1, len(shares))
    scale = (floor - 4) / max(highest, 1e-9)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Histogram of confidences from 0 to 1">'
    ]
    for i, share in enumerate(shares):
        tall = share * scale
        if tall > 0:
            low, high = i / len(shares), (i + 1) / len(shares)
            parts.append(
                f'<rect class="bar" x="{i * step + 0.75:.1f}" y="{floor - tall:.1f}" '
                f'width="{step - 1.5:.1f}" height="{tall:.1f}" rx="1">'
                f"<title>{low:.2f} to {high:.2f}: {share:.1%}</title></rect>"
            )
    if reference:
        path = [f"M0 {floor}"]
        for i, share in enumerate(reference):
            y = floor - share * scale
            path.append(f"L{i * step:.1f} {y:.1f}L{(i + 1) * step:.1f} {y:.1f}")
        parts.append(f'<path class="outline" d="{"".join(path)}L{width} {floor}"/>')
    parts.append(
        f'<line class="base" x1="0" x2="{width}" y1="{floor}" y2="{floor}"/>'
        f'<text class="tick" x="0" y="{height - 3}">0</text>'
        f'<text class="tick" x="{width / 2}" y="{height - 3}" text-anchor="middle">0.5</text>'
        f'<text class="tick" x="{width}" y="{height - 3}" text-anchor="end">1</text></svg>'
    )
    return Markup("".join(parts))  # numbers only


def interval_mark(
    rate: Rate, *, overall: float | None, floor: float = 0.0, width: int = 260
) -> Markup:
    """Return a rate as a dot on its interval, on a track from a floor to 1.

    Args:
        rate: The rate to draw.
        overall: A rate to compare with, drawn as a thin mark across the track.
        floor: What the left end stands for, below every value shown.
        width: Width in CSS pixels.
    """
    span = width - 10

    def x_at(value: float) -> float:
        return 5 + span * (value - floor) / (1 - floor)

    parts = [
        f'<svg class="mark" viewBox="0 0 {width} 16" width="{width}" height="16" '
        'aria-hidden="true">'
        f'<line class="grid" x1="5" x2="{width - 5}" y1="8" y2="8"/>'
    ]
    if overall is not None:
        parts.append(
            f'<line class="overall" x1="{x_at(overall):.1f}" x2="{x_at(overall):.1f}" '
            'y1="1" y2="15"/>'
        )
    parts.append(
        f'<line class="whisker" x1="{x_at(rate.low):.1f}" x2="{x_at(rate.high):.1f}" '
        f'y1="8" y2="8"/><circle class="dot loop" cx="{x_at(rate.value):.1f}" cy="8" r="4"/></svg>'
    )
    return Markup("".join(parts))  # numbers only
