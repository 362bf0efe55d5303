"""The live view's pages, drawn here from templates; names from data are escaped by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from visionloop.errors import VisionloopError
from visionloop.monitoring.live.asking import SIZES, Asked, Found, facets
from visionloop.monitoring.live.columns import moment, plain
from visionloop.monitoring.live.details import Details
from visionloop.monitoring.live.filters import OPERATORS
from visionloop.monitoring.live.following import Shown
from visionloop.monitoring.live.index import Index
from visionloop.monitoring.telling import file_name
from visionloop.words import round_name

# Columns whose texts are counted beside the images, and how many of them.
_FACETS = (
    "flags", "label", "prediction", "agrees", "split", "checks", "arm", "picked_in", "round",
    "label_origin", "source",
)  # fmt: skip
_FACET_TEXTS = 10
_FOLDER = Path(__file__).parent / "templates"


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"moment": moment, "plain": plain, "round_name": round_name}
    return made


def _drawn(template: str, shown: Shown, **values: Any) -> str:
    return str(_environment().get_template(template).render(shown=shown, **values))


def style() -> str:
    """Return the style sheet: the report's own, and what these pages have more."""
    from visionloop.monitoring.report import page

    report = (Path(page.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return report + (_FOLDER / "live.css").read_text(encoding="utf-8")


def script() -> str:
    """Return the script: it says when there is a newer version or report; nothing needs it."""
    return (_FOLDER / "live.js").read_text(encoding="utf-8")


def no_picture() -> bytes:
    """Return what is shown in the place of a picture that is not there any more, as SVG."""
    return (_FOLDER / "no_picture.svg.j2").read_bytes()


def waiting_words(shown: Shown, place: str) -> str:
    """Return what is waited for, in one sentence.

    Args:
        shown: What there is to show.
        place: Where the lake is to be.
    """
    if shown.lake is None:
        return f"There is no lake at {place} yet. This page waits for it."
    return "The lake is being read for the first time."


def waiting(shown: Shown, place: str) -> str:
    """Return the page that waits; it asks again by itself."""
    words = waiting_words(shown, place)
    return _drawn("waiting.html.j2", shown, words=words)


def problem(shown: Shown, error: VisionloopError) -> str:
    """Return the page of an error that a person can do something about."""
    return _drawn("problem.html.j2", shown, error=error)


def unknown(shown: Shown) -> str:
    """Return the page of an address that names nothing."""
    error = VisionloopError(
        "the lake has no such image or page", remedy="It may have been erased; look in Images"
    )
    return _drawn("problem.html.j2", shown, error=error)


def report(shown: Shown) -> str:
    """Return the page that holds the report in a frame."""
    return _drawn("report.html.j2", shown)


def images(
    shown: Shown, index: Index, asked: Asked, found: Found, rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return a page of images.

    Args:
        shown: What there is to show.
        index: The images.
        asked: What was asked for.
        found: What was found.
        rows: The page's images.
    """
    texts = [name for name, one in index.columns.items() if name.startswith("metadata.")]
    counted = facets(index, found.every, [*_FACETS, *texts], _FACET_TEXTS)
    return _drawn(
        "images.html.j2",
        shown,
        index=index,
        asked=asked,
        found=found,
        tiles=[_tile(row, asked, index) for row in rows],
        facets={name: pairs for name, pairs in counted.items() if len(pairs) > 1},
        operators=OPERATORS,
        sizes=SIZES,
    )


def _tile(row: Mapping[str, Any], asked: Asked, index: Index) -> dict[str, Any]:
    """Return what is told under a thumbnail: label, prediction, flags, and what was asked for."""
    name = file_name(str(row.get("source_uri") or row["uri"] or "")) or row["sample_id"][:12]
    said = row.get("prediction")
    confidence = row.get("confidence")
    prediction = ""
    if said:
        sure = f", {confidence:.1%} as answered" if confidence is not None else ""
        prediction = f"{said}{sure}"
    known = {"sample_id", "uri", "source_uri", "label", "prediction", "confidence", "flags"}
    named = [one.column for one in asked.filters] + ([asked.sort] if asked.sort else [])
    more = [
        (column, index.words(column, row[column]))
        for column in dict.fromkeys(named)
        if column not in known
    ]
    return {
        "sample_id": row["sample_id"],
        "name": name,
        "label": row.get("label"),
        "prediction": prediction,
        "wrong": row.get("agrees") is False,
        "flags": [index.words("flags", kind) for kind in row["flags"]],
        "small": max(row["width"] or 0, row["height"] or 0) <= _SQUARES,
        "more": more,
    }


# A picture with so few pixels a side is shown as squares: smoothing hides what the model sees.
_SQUARES = 64


def image(
    shown: Shown,
    index: Index,
    sample_id: str,
    details: Details,
    near: Sequence[tuple[str, float]] | None,
    *,
    there: bool,
) -> str:
    """Return the page of an image.

    Args:
        shown: What there is to show.
        index: The images.
        sample_id: The image.
        details: What is known of it.
        near: Its neighbours with their distances; None where nobody looked for them.
        there: Whether its file is where it lay.
    """
    row = index.rows([index.row_of(sample_id)])[0]
    names = {}
    for other in {name for name, _ in near or ()} | {o for f in details.flags for o in f.images}:
        place = index.row_of(other)
        if place >= 0:
            names[other] = _tile(index.rows([place])[0], Asked(), index)
    return _drawn(
        "image.html.j2",
        shown,
        index=index,
        tile=_tile(row, Asked(), index),
        row=row,
        details=details,
        near=near,
        names=names,
        there=there,
    )
