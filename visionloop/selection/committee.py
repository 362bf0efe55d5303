"""Disagreement: where several models, or several passes of one, do not answer alike.

All are in [0, 1]; larger means less certain. What fewer than two members answered is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError

_TINY = np.finfo(np.float64).tiny


def vote_entropy(p: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the entropy of the members' votes over `ln min(M, C)`.

    Source: Dagan & Engelson, "Committee-Based Sampling" (1995), normalised as there. Cost O(M·n·C).

    Args:
        p: float [M, n, C], M members' probabilities; NaN rows are unknown.

    Returns:
        float64 [n].

    Raises:
        InputError: `p` has another shape.
    """
    known, members = _members(p)
    classes = p.shape[2]
    votes = np.zeros(p.shape[1:])
    filled = np.where(known[:, :, None], p, -1.0)
    for member, answered in zip(filled, known, strict=True):
        rows = np.flatnonzero(answered)
        votes[rows, member[rows].argmax(axis=1)] += 1.0
    share = votes / np.maximum(members, 1)[:, None]
    return _over_largest(_entropy(share), members, classes)


def consensus_divergence(p: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean divergence of the members from their mean, over `ln min(M, C)`.

    `mean_m KL(p_m ‖ p̄) = H(p̄) - mean_m H(p_m)`, p̄ being the members' mean. Source: McCallum &
    Nigam, "Employing EM and Pool-Based Active Learning for Text Classification" (1998). Cost
    O(M·n·C).

    Args:
        p: float [M, n, C], M members' probabilities; NaN rows are unknown.

    Returns:
        float64 [n].

    Raises:
        InputError: `p` has another shape.
    """
    known, members = _members(p)
    filled = np.where(known[:, :, None], p, 0.0).astype(np.float64)
    count = np.maximum(members, 1)
    mean = filled.sum(axis=0) / count[:, None]
    inner = _entropy(filled).sum(axis=0) / count
    return _over_largest(_entropy(mean) - inner, members, p.shape[2])


def bald(p: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what the label would tell about the model's parameters, over `ln min(S, C)`.

    The mutual information `H(p̄) - mean_s H(p_s)` over S passes with dropout. Source: Houlsby et
    al., "Bayesian Active Learning for Classification and Preference Learning" (2011); Gal, Islam &
    Ghahramani, "Deep Bayesian Active Learning with Image Data" (2017). The formula is that of
    `consensus_divergence`, the members being passes of one model.

    Args:
        p: float [S, n, C], the probabilities of S passes; NaN rows are unknown.

    Returns:
        float64 [n].

    Raises:
        InputError: `p` has another shape.
    """
    return consensus_divergence(p)


def _members(p: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    if p.ndim != 3 or p.shape[2] == 0:
        raise InputError(
            f"a committee's probabilities must have the shape [members, images, classes], got "
            f"{list(p.shape)}"
        )
    known: NDArray[np.bool_] = np.asarray(np.isfinite(p).all(axis=2))
    return known, known.sum(axis=0)


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(p * np.log(np.maximum(p, _TINY))).sum(axis=-1))


def _over_largest(
    values: NDArray[np.float64], members: NDArray[np.intp], classes: int
) -> NDArray[np.float64]:
    largest = np.log(np.maximum(np.minimum(members, classes), 2))
    return np.where(members > 1, np.clip(values / largest, 0.0, 1.0), np.nan)
