"""The embedding map as a still picture, for where no script runs."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from visionloop.monitoring.report.charts.theme import WIDE, Key, colour, svg, values
from visionloop.monitoring.report.data_map import EmbeddingMap
from visionloop.words import counted

# Classes with a colour of their own; the colours are told apart by eye up to about ten.
NAMED = 10
# In CSS pixels.
HEIGHT = 560
UNLABELLED, OTHER = "no label", "other labels"


def groups(found: EmbeddingMap) -> list[tuple[str, str]]:
    """Return the most frequent labels with their colours, then the rest, then no label."""
    counts: dict[str, int] = {}
    for point in found.points:
        if point.label:
            label = _told(point.label)
            counts[label] = counts.get(label, 0) + 1
    ordered = sorted(counts, key=lambda label: (-counts[label], label))
    shown = NAMED if len(ordered) <= NAMED else NAMED - 1
    named = [(label, f"c{i}") for i, label in enumerate(ordered[:shown])]
    if len(ordered) > shown:
        named.append((OTHER, f"c{NAMED - 1}"))
    if any(not point.label for point in found.points):
        named.append((UNLABELLED, "grey"))
    return named


def _told(label: str) -> str:
    """Return a class as the legend names it; one called like a group of its own in quotes."""
    return f'"{label}"' if label in (UNLABELLED, OTHER) else label


def still(found: EmbeddingMap) -> tuple[Markup, tuple[Key, ...]]:
    """Return the map as SVG, and its legend.

    Args:
        found: A map with at least one point.
    """
    import altair as alt

    named = groups(found)
    names = dict(named)
    rows = []
    for point in found.points:
        label = _told(point.label) if point.label else UNLABELLED
        rows.append(
            {
                "x": round(point.x, 4),
                "y": round(point.y, 4),
                "g": label if label in names else OTHER,
            }
        )
    rows.sort(key=lambda row: row["g"] != UNLABELLED)  # what has a label lies on top
    # As wide as the page and not as high, it must not be stretched: nearness is all it says.
    edge = WIDE / HEIGHT / 2

    def axis(half: float) -> dict[str, Any]:
        return {"axis": None, "scale": alt.Scale(domain=[0.5 - half, 0.5 + half], nice=False)}

    chart = (
        alt.Chart(values(rows))
        .mark_square(size=14, opacity=0.8)
        .encode(
            x=alt.X("x:Q", **axis(1.04 * edge)),
            y=alt.Y("y:Q", **axis(1.04 / 2)),
            color=alt.Color(
                "g:N",
                scale=alt.Scale(
                    domain=[name for name, _ in named], range=[colour(mark) for _, mark in named]
                ),
                legend=None,
            ),
        )
        .properties(
            width=WIDE, height=HEIGHT, autosize=alt.AutoSizeParams(type="fit", contains="padding")
        )
    )
    words = (
        f"Map of {counted(len(found.points), 'picture')} by likeness, coloured by label: "
        + ", ".join(name for name, _ in named)
    )
    return svg(chart, name="map", words=words), tuple(Key(n, mark, "square") for n, mark in named)
