"""Uncertainty of a classifier's probabilities, each in [0, 1]; larger means less certain.

A row that holds a NaN is an image whose probabilities are not known; its score is NaN (*unknown*),
never 0: a zero would call it certain.

Source: Settles, "Active Learning Literature Survey" (2009), section 3.1, each rescaled so that a
uniform distribution scores 1 whatever the number of classes. Cost O(n·C).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError


def _probabilities(p: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(
            f"probabilities must have the shape [images, classes], got {list(values.shape)}"
        )
    return values


def least_confidence(p: NDArray[Any]) -> NDArray[np.float64]:
    """Return `(1 - p₁)·C / (C - 1)`, p₁ being the largest probability.

    Args:
        p: Probabilities, float [n, C], rows that sum to 1.

    Returns:
        float64 [n] in [0, 1]; 0 everywhere when there is one class; NaN where unknown.

    Raises:
        InputError: `p` is not a matrix.
    """
    values = _probabilities(p)
    classes = values.shape[1]
    top: NDArray[np.float64] = values.max(axis=1)  # propagates NaN
    if classes == 1:
        return np.asarray(np.where(np.isnan(top), np.nan, 0.0))
    score: NDArray[np.float64] = (1.0 - top) * classes / (classes - 1)
    return np.clip(score, 0.0, 1.0)


def margin(p: NDArray[Any]) -> NDArray[np.float64]:
    """Return `1 - (p₁ - p₂)`, the two largest probabilities being p₁ and p₂.

    Args:
        p: Probabilities, float [n, C], rows that sum to 1.

    Returns:
        float64 [n] in [0, 1]; 0 everywhere when there is one class; NaN where unknown.

    Raises:
        InputError: `p` is not a matrix.
    """
    values = _probabilities(p)
    unknown = np.isnan(values).any(axis=1)
    if values.shape[1] == 1:
        return np.where(unknown, np.nan, 0.0)
    two = np.partition(values, -2, axis=1)[:, -2:]
    return np.where(unknown, np.nan, np.clip(1.0 - (two[:, 1] - two[:, 0]), 0.0, 1.0))


def entropy(p: NDArray[Any]) -> NDArray[np.float64]:
    """Return `H(p) / ln C`, Shannon's entropy over its largest possible value.

    Args:
        p: Probabilities, float [n, C], rows that sum to 1.

    Returns:
        float64 [n] in [0, 1]; 0 everywhere when there is one class; NaN where unknown.

    Raises:
        InputError: `p` is not a matrix.
    """
    values = _probabilities(p)
    unknown = np.isnan(values).any(axis=1)
    if values.shape[1] == 1:
        return np.where(unknown, np.nan, 0.0)
    positive = np.maximum(values, np.finfo(np.float64).tiny)  # 0·ln 0 = 0, without a warning
    nats = -(np.maximum(values, 0.0) * np.log(positive)).sum(axis=1)
    return np.where(unknown, np.nan, np.clip(nats / np.log(values.shape[1]), 0.0, 1.0))


# Numbers that are scored at a time, as doubles in the processor's cache.
_AT_ONCE = 16_384


def uncertainties(p: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return the three scores by their names, in less time and memory than one by one.

    Args:
        p: Probabilities, float [n, C], rows that sum to 1, two classes or more.

    Returns:
        ``least_confidence``, ``margin`` and ``entropy``, each float64 [n] in [0, 1]; NaN where
        unknown.

    Raises:
        InputError: `p` is not a matrix of two classes or more.
    """
    given = np.asarray(p)
    if given.ndim != 2 or given.shape[1] < 2:
        raise InputError(
            "probabilities must have the shape [images, classes], of two classes or more, "
            f"got {list(given.shape)}"
        )
    n, classes = given.shape
    step = min(max(1, _AT_ONCE // classes), max(1, n))
    room, more_room = np.empty((2, step, classes))
    first, second, nats = np.empty((3, n))
    each = np.arange(step)
    for start in range(0, n, step):
        here = slice(start, min(start + step, n))
        values, logs = room[: here.stop - start], more_room[: here.stop - start]
        values[:] = given[here]
        np.maximum(values, np.finfo(np.float64).tiny, out=logs)  # 0·ln 0 = 0, without a warning
        np.log(logs, out=logs)
        np.einsum("ij,ij->i", values, logs, out=nats[here])
        best = values.argmax(axis=1)  # of a NaN, where there is one
        first[here] = values[each[: len(best)], best]
        values[each[: len(best)], best] = -np.inf
        values.max(axis=1, out=second[here])
    return {
        "least_confidence": np.clip((1.0 - first) * classes / (classes - 1), 0.0, 1.0),
        "margin": np.clip(1.0 - (first - second), 0.0, 1.0),
        "entropy": np.clip(nats / -np.log(classes), 0.0, 1.0),
    }
