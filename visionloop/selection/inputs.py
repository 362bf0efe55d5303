"""The data that objectives are defined on, found in the pool by the configuration's names."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.media.metadata import column_name
from visionloop.selection.alike import value_of_similar
from visionloop.selection.committee import bald, consensus_divergence, vote_entropy
from visionloop.selection.detections import FORMULAS, Reducer
from visionloop.selection.lines import DEPLOYED, SIMILAR, SelectionInput
from visionloop.selection.notes import EMBED
from visionloop.selection.pool import Pool, named

# Names that LightlyOne gives to what the lake measures of every image.
_LIGHTLY_COLUMNS = {
    "lightly.sharpness": "sharpness",
    "lightly.luminance": "brightness",
    "lightly.contrast": "contrast",
}
# Harvested images that similar ones are looked for among. The first by id: ids are hashes, so this
# is as good as a draw, and the same at every run.
HARVESTED = 10_000
_ROWS = 1 << 14  # compared at a time, so that no second copy of all is made
OF_BOXES = frozenset({"object_frequency", "objectness_least_confidence"})
_COMMITTEE = {"vote_entropy": vote_entropy, "consensus_divergence": consensus_divergence}


def score_of(
    pool: Pool, name: str, *, reducer: Reducer = "max", space: str = "", empty: float = np.nan
) -> NDArray[np.float64]:
    """Return a score by name, float64 [n]; NaN where the pool does not know it.

    The current model's scores are computed from its probabilities, or from its boxes where it is a
    detector, unless they were given.

    Args:
        pool: The pool.
        name: See `visionloop.selection.lines.SCORES`.
        reducer: What becomes of several boxes. All but `sum` leave scores in [0, 1].
        space: Embedding space of `similar_deployed_…`; empty for the only one.
        empty: What an image counts in which a detector found nothing. Unknown by default;
            LightlyOne means 0.

    Raises:
        InputError: The model in service does not offer what the score is made of.
    """
    if name in pool.scores:
        return pool.scores[name]
    if name.startswith(SIMILAR):
        return _similar(pool, name.removeprefix(SIMILAR), space)
    if name in _COMMITTEE:
        if pool.committee is None or len(pool.committee) < 2:
            return np.full(len(pool), np.nan)
        return _COMMITTEE[name](pool.committee)
    if name == "bald":
        if pool.passes is None:
            raise InputError(
                "the score 'bald' needs several predictions of each image with dropout, which the "
                "model in service does not offer",
                where="selection.strategies",
                remedy="Use vote_entropy or consensus_divergence over the last models instead",
            )
        return bald(pool.passes)
    found = pool.detections
    if found is None and name in FORMULAS and pool.probabilities is not None:
        return FORMULAS[name](pool.probabilities)
    if found is not None and not name.startswith(DEPLOYED):
        if name == "object_frequency":
            return np.asarray(found.category_counts().sum(axis=1))
        values = (
            found.uncertainty(name, reducer)
            if name in FORMULAS
            else found.objectness_least_confidence()
        )
        return np.where(found.without_boxes, empty, values)
    if name in OF_BOXES and pool.probabilities is not None:
        raise InputError(
            f"the score {name!r} is made of boxes, and the model in service is a classifier",
            where="selection.strategies",
            remedy="Use margin, least_confidence or entropy",
        )
    return np.full(len(pool), np.nan)


def _similar(pool: Pool, name: str, space: str) -> NDArray[np.float64]:
    """Return what similar harvested images scored, NaN for those that were harvested themselves."""
    direct = pool.scores.get(DEPLOYED + name, np.full(len(pool), np.nan))
    result = np.full(len(pool), np.nan)
    if not pool.embeddings:
        return result
    x = pool.embeddings[space_of(pool, space)]
    if pool.harvested is None:
        told = np.flatnonzero(np.isfinite(direct))[:HARVESTED]
        known, values = x[told], direct[told]
    else:
        all_values = pool.harvested.scores.get(name, np.zeros(0))
        told = np.flatnonzero(np.isfinite(all_values))
        known, values = pool.harvested.x[told], all_values[told]
    if len(told):
        asked = np.flatnonzero(np.isnan(direct))
        for start in range(0, len(asked), _ROWS):
            rows = asked[start : start + _ROWS]
            result[rows] = value_of_similar(x[rows], known, values)
    return result


def predictions_of(pool: Pool, source: SelectionInput) -> tuple[list[str], NDArray[np.float64]]:
    """Return the classes of a line's input PREDICTIONS and how much of each there is.

    Returns:
        C' class names, and float64 [n, C']: `CATEGORY_COUNT` counts the boxes of each class (a
        classifier finds one thing, of its most probable class), `CLASS_DISTRIBUTION` sums their
        probabilities. NaN rows are unknown.

    Raises:
        InputError: `categories` names a class that the model does not have.
    """
    # Before the first model nothing tells what it will find.
    names = list(pool.classes or source.categories or ())
    wanted = list(source.categories or names)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise InputError(
            f"`categories` names classes that the model does not have: {', '.join(unknown)}",
            where="selection.strategies",
            remedy=f"It has {', '.join(names)}",
        )
    columns = [names.index(name) for name in wanted]
    counted = source.name == "CATEGORY_COUNT"
    if pool.detections is not None:
        found = pool.detections
        amounts = found.category_counts() if counted else found.class_distribution()
    elif pool.probabilities is None:
        amounts = np.full((len(pool), len(names)), np.nan)
    else:
        amounts = pool.probabilities.astype(np.float64)
        if counted:
            known = np.asarray(np.isfinite(amounts).all(axis=1))
            best = np.where(known, np.where(known[:, None], amounts, 0.0).argmax(axis=1), 0)
            amounts = np.where(known[:, None], np.eye(len(names))[best], np.nan)
    return wanted, amounts[:, columns]


def amounts_of(
    pool: Pool, source: SelectionInput, *, reducer: Reducer, space: str = "", empty: float = np.nan
) -> tuple[str, NDArray[np.float64]]:
    """Return the name and the numbers of an input for WEIGHTS and THRESHOLD, float64 [n].

    Args:
        pool: The pool.
        source: An input of the type SCORES, METADATA or PREDICTIONS.
        reducer: As in `score_of`, where the input does not say.
        space: As in `score_of`.
        empty: As in `score_of`.

    Raises:
        InputError: The pool does not have it, or it is text.
    """
    if source.type == "SCORES":
        name = source.score_name()
        return name, score_of(
            pool, name, reducer=source.reducer or reducer, space=space, empty=empty
        )
    if source.type == "PREDICTIONS":
        names, amounts = predictions_of(pool, source)
        kind = "count" if source.name == "CATEGORY_COUNT" else "probability"
        return "_".join([kind, *(names if source.categories else [])]), amounts.sum(axis=1)
    key = str(source.key)
    values = column_of(pool, key)
    if values.dtype == object:
        raise InputError(
            f"the metadata column {key!r} holds text; WEIGHTS and THRESHOLD need numbers",
            where="selection.strategies",
            remedy="Use BALANCE for a column of text",
        )
    return key, values


def column_of(pool: Pool, key: str) -> NDArray[Any]:
    """Return a metadata column by name, that of a sidecar (`weather.description`) included.

    Raises:
        InputError: The pool has no such column (the nearest names are given), or a value is
            infinite.
    """
    name = key
    if name not in pool.metadata:
        name = _LIGHTLY_COLUMNS.get(key, column_name(key))
    if name not in pool.metadata:
        near = difflib.get_close_matches(key, pool.metadata, n=3) or sorted(pool.metadata)
        raise InputError(
            f"the pool has no metadata column {key!r}",
            where="selection.strategies",
            remedy=f"Use one of {', '.join(near)}" if near else "Ingest metadata first",
        )
    values = pool.metadata[name]
    endless = [] if values.dtype == object else np.flatnonzero(np.isinf(values)).tolist()
    if endless:
        raise InputError(
            f"{len(endless)} samples have an infinite value of {key!r}: "
            + named([pool.sample_ids[row] for row in endless]),
            where="selection.strategies",
            remedy="Correct their sidecars and ingest them again, or use another column",
        )
    return values


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
            remedy=f"Use one of {', '.join(have)}" if have else EMBED,
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
            else f"{EMBED}; `strategy: random` needs none",
        )
    return have[0]
