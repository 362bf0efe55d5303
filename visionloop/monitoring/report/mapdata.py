"""The embedding map as the page's script reads it: columns of numbers, words written once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from markupsafe import Markup

from visionloop.monitoring.report.data_map import EmbeddingMap
from visionloop.words import round_name

# The script places points on a grid of so many steps each way; finer would not be seen.
UNIT = 10_000


def map_json(found: EmbeddingMap, upcoming: str = "") -> Markup:
    """Return the map's points as JSON that can stand inside of a ``<script>`` element.

    Args:
        found: The map.
        upcoming: Id of the round that was not opened yet.
    """
    points, name = found.points, partial(round_name, upcoming=upcoming)
    held: dict[str, Any] = {
        "x": [round(point.x * UNIT) for point in points],
        "y": [round(point.y * UNIT) for point in points],
        "name": [point.name for point in points],
        "sample": [point.sample_id for point in points],
        # Tenths of a percent; -1 where the model was not asked.
        "confidence": [
            -1 if point.confidence is None else round(1000 * point.confidence) for point in points
        ],
        "thumbnail": [point.thumbnail for point in points],
        "small": [int(point.small) for point in points],
        "thumbnails": list(found.thumbnails),
        "label": _words([point.label] if point.label else [] for point in points),
        "prediction": _words([point.prediction] if point.prediction else [] for point in points),
        "flag": _words(point.flags for point in points),
        "flag_kind": _words(point.flag_kinds for point in points),
        "why": _words([point.why] if point.why else [] for point in points),
        "round": _words([name(point.round_id)] if point.round_id else [] for point in points),
        "picked": _words([name(point.picked_in)] if point.picked_in else [] for point in points),
        "source": _words([point.source] if point.source else [] for point in points),
        "split": _words([point.split] if point.split else [] for point in points),
    }
    text = json.dumps(held, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    # "</script>" or "<!--" in a file's name must not end the element.
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _words(rows: Iterable[Iterable[str]]) -> dict[str, list[Any]]:
    words: dict[str, int] = {}
    at: list[Any] = []
    for row in rows:
        found = [words.setdefault(word, len(words)) for word in row]
        at.append(found if len(found) > 1 else found[0] if found else -1)
    return {"words": list(words), "at": at}
