"""One look for every chart, and the way from a Vega-Lite chart to SVG that follows the page.

A chart is drawn once, before anybody knows whether it is read in light or in dark. So it is drawn
with placeholder colours, one for each colour of the page's style sheet, and in the finished SVG
each placeholder becomes ``var(--name)``. Fonts are left to the page too. Nothing is fetched: data
stand in the chart, and Vega-Lite is compiled into vl-convert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

# Names of the style sheet's colours. A chart may use no other.
COLOURS = (
    "paper",
    "ink",
    "soft",
    "faint",
    "rule",
    "accent",
    "grey",
    "good",
    "look",
    "bad",
    *(f"c{i}" for i in range(10)),
)
# Values that no palette would hold, so that replacing them replaces nothing else.
_PLACEHOLDER = {name: f"#fe00{i:02x}" for i, name in enumerate(COLOURS, start=1)}
_NAMES = {value: name for name, value in _PLACEHOLDER.items()}

# Widths in CSS pixels that charts are set for: a desktop's column and a phone's.
WIDE, NARROW = 880, 320

_COLOUR = re.compile(r'(fill|stroke)="(#fe00[0-9a-f]{2})"')
_NOISE = re.compile(
    r' (?:aria-[a-z]+|role|font-family|pointer-events|xmlns(?::xlink)?|version)="[^"]*"'
)
_NOTHING = re.compile(r'<path(?: class="(?:fore|back)ground")? d=""(?: display="none")?></path>')
_IDENTITY = re.compile(r'id="([^"]+)"')
_SIZE = re.compile(r'<svg class="marks" width="(\d+)" height="(\d+)"')


def colour(name: str) -> str:
    """Return what stands for a colour of the style sheet in a chart.

    Raises:
        KeyError: The style sheet has no such colour.
    """
    return _PLACEHOLDER[name]


@dataclass(frozen=True)
class Key:
    """One entry of a chart's legend, which the page writes: there it wraps and can be selected.

    Attributes:
        name: What the mark stands for.
        colour: Name of its colour.
        shape: ``circle``, ``square``, ``diamond``, ``line``, ``dashed`` or ``area``.
    """

    name: str
    colour: str
    shape: str = "circle"


@dataclass(frozen=True)
class Chart:
    """A chart as the page shows it.

    Attributes:
        wide: SVG set for a desktop's column.
        narrow: SVG set for a phone, "" where one serves both.
        head: Names of the columns of the same numbers as a table.
        rows: The numbers, as they are read.
        keys: The legend.
    """

    wide: Markup
    narrow: Markup
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[Key, ...] = ()


def svg(chart: Any, *, name: str, words: str) -> Markup:
    """Return an Altair chart as SVG for the page.

    Args:
        chart: The chart, drawn with `colour`.
        name: Name that is unique on the page; it is part of every id within the SVG.
        words: What the chart says, with its numbers, for those who cannot see it.
    """
    import vl_convert

    spec = chart.configure(**CONFIG).to_dict(validate=False)
    # No address is allowed: a chart that named one would fail instead of asking for it.
    drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return dressed(drawn, name=name, words=words)


def dressed(drawn: str, *, name: str, words: str) -> Markup:
    """Return a renderer's SVG in the page's colours and fonts, named and described.

    Args:
        drawn: SVG with placeholder colours, its text escaped.
        name: Name that is unique on the page.
        words: What the chart says.
    """
    text = _COLOUR.sub(lambda m: f'{m[1]}="var(--{_NAMES[m[2]]})"', drawn)
    # Only attributes are touched: in text a quotation mark of the data stands escaped.
    text = _NOISE.sub("", text)
    text = _NOTHING.sub("", text)
    # Vega numbers its ids anew in every process, and two charts of a page may not share one.
    for i, found in enumerate(dict.fromkeys(_IDENTITY.findall(text))):
        text = text.replace(f'id="{found}"', f'id="{name}-{i}"')
        text = text.replace(f"url(#{found})", f"url(#{name}-{i})")
    label = f'<svg class="chart" role="img" aria-label="{escape(words)}"'
    text = _SIZE.sub(lambda m: f'{label} width="{m[1]}" height="{m[2]}"', text, count=1)
    return Markup(text)  # Vega escapes the text of marks, escape() the description


def values(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as a chart's data, written into the chart itself."""
    return {"values": [dict(row) for row in rows]}


_TEXT = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "Liberation Sans",
    "padding": {"left": 2, "right": 12, "top": 6, "bottom": 2},
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "labelColor": colour("soft"),
        "titleColor": colour("soft"),
        "gridColor": colour("rule"),
        "domainColor": colour("faint"),
        "tickColor": colour("faint"),
        "tickSize": 4,
        "labelPadding": 5,
        "titlePadding": 9,
    },
    "axisY": {"domain": False, "ticks": False},
    "axisX": {"grid": False},
    "text": {"color": colour("ink"), "fontSize": 12},
    "line": {"strokeWidth": 2.25, "strokeJoin": "round"},
    "point": {"filled": True, "size": 60, "opacity": 1},
    "header": {"labelColor": colour("ink"), "labelFontSize": 12, "title": None},
}


def both(
    chart: Any,
    *,
    name: str,
    words: str,
    heights: tuple[int, int],
    head: tuple[str, ...],
    rows: tuple[tuple[str, ...], ...],
    keys: tuple[Key, ...] = (),
    on_phone: Any = None,
) -> Chart:
    """Return a chart set for a desktop and for a phone; axes and legend are within the width.

    Args:
        chart: The Altair chart.
        name: Name that is unique on the page.
        words: What the chart says, with its numbers.
        heights: Heights in CSS pixels, the desktop's first.
        head: Names of the columns of the table beside it.
        rows: The numbers, as they are read.
        keys: The legend.
        on_phone: What a phone shows where narrowing ``chart`` would not do.
    """
    wide, narrow = (
        svg(_sized(drawn, width, height), name=f"{name}-{width}", words=words)
        for drawn, width, height in zip(
            (chart, on_phone or chart), (WIDE, NARROW), heights, strict=True
        )
    )
    return Chart(wide, narrow, head, rows, keys)


def one(
    chart: Any,
    *,
    name: str,
    words: str,
    size: tuple[int, int],
    head: tuple[str, ...],
    rows: tuple[tuple[str, ...], ...],
    keys: tuple[Key, ...] = (),
) -> Chart:
    """Return a chart that is small enough for every screen; see `both`.

    Args:
        chart: The Altair chart.
        name: Name that is unique on the page.
        words: What the chart says, with its numbers.
        size: Width and height in CSS pixels; the width at most `NARROW`.
        head: Names of the columns of the table beside it.
        rows: The numbers, as they are read.
        keys: The legend.
    """
    return Chart(svg(_sized(chart, *size), name=name, words=words), Markup(""), head, rows, keys)


def _sized(chart: Any, width: int, height: int) -> Any:
    import altair

    fit = altair.AutoSizeParams(type="fit", contains="padding")
    return chart.properties(width=width, height=height, autosize=fit)
