"""The data that objectives are defined on, found in the pool by the configuration's names."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection import scores
from visionloop.selection.pool import Pool

_FORMULAS = {
    "margin": scores.margin,
    "least_confidence": scores.least_confidence,
    "entropy": scores.entropy,
}
# Names that LightlyOne gives to what the lake measures of every image.
_LIGHTLY_COLUMNS = {
    "lightly.sharpness": "sharpness",
    "lightly.luminance": "brightness",
    "lightly.contrast": "contrast",
}


def score_of(pool: Pool, name: str) -> NDArray[np.float64]:
    """Return a score by name, float64 [n]; NaN everywhere when the pool does not have it.

    The current model's scores are computed from its probabilities where they were not given.
    """
    if name in pool.scores:
        return pool.scores[name]
    if name in _FORMULAS and pool.probabilities is not None:
        return _FORMULAS[name](pool.probabilities)
    return np.full(len(pool), np.nan)


def column_of(pool: Pool, key: str) -> NDArray[Any]:
    """Return a metadata column by name.

    Raises:
        InputError: The pool has no such column; the nearest names are given.
    """
    name = key if key in pool.metadata else _LIGHTLY_COLUMNS.get(key, key)
    if name not in pool.metadata:
        near = difflib.get_close_matches(name, pool.metadata, n=3) or sorted(pool.metadata)
        raise InputError(
            f"the pool has no metadata column {key!r}",
            where="selection.strategies",
            remedy=f"Use one of {', '.join(near)}" if near else "Ingest metadata first",
        )
    return pool.metadata[name]


def space_of(pool: Pool, wanted: str) -> str:
    """Return the embedding space to use.

    Raises:
        InputError: The wanted space is not there, or none was named and there are several or none.
    """
    have = sorted(pool.embeddings)
    if wanted and wanted not in have:
        raise InputError(
            f"the pool has no embeddings of the space {wanted!r}",
            where="selection.space",
            remedy=f"Use one of {', '.join(have)}" if have else "Run the stage infer first",
        )
    if wanted:
        return wanted
    if len(have) != 1:
        raise InputError(
            "the pool has no embeddings"
            if not have
            else f"the pool has {len(have)} embedding spaces",
            where="selection.space",
            remedy=f"Name one of {', '.join(have)}"
            if have
            else "Run the stage infer first, or use `strategy: random`",
        )
    return have[0]
