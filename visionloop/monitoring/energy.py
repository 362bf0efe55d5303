"""Are two samples of vectors drawn alike? The energy distance, with a permutation test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.exact import Floats

# Rows of either side that are compared: a test on more finds differences that do not matter.
ROWS = 500
# A permutation test may stop once so many shuffles were as far apart as what was observed.
_ENOUGH = 10
_SHUFFLES_AT_ONCE = 500


class Apart(NamedTuple):
    """How far two samples lie apart.

    Attributes:
        coefficient: Energy distance over its largest possible value, in [0, 1]; 0 for equal
            distributions.
        p_value: Probability of so large a value without a difference.
        left_out: Share of the current rows whose stratum the reference does not have.
    """

    coefficient: float
    p_value: float
    left_out: float = 0.0


def energy_test(
    reference: Floats,
    current: Floats,
    *,
    significance: float,
    strata: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
    seed: int = 0,
) -> Apart:
    """Compare two samples by their energy distance.

    `2E|X-Y| - E|X-X'| - E|Y-Y'|`, over `2E|X-Y|` (Szekely and Rizzo, Energy statistics: a class of
    statistics based on distances, 2013): the maximum mean discrepancy whose kernel is the distance
    (Sejdinovic et al., 2013). With strata the reference is weighted to the strata's shares in the
    current sample and only rows of one stratum change places, so that a difference of the shares
    alone counts as none.

    Args:
        reference: float32 [n, d]; `ROWS` of it are drawn where there are more.
        current: float32 [m, d]; likewise.
        significance: The level at which the caller decides: sets the number of shuffles.
        strata: A number for each row of the reference and of the current sample.
        seed: Of the draw and of the shuffles.

    Cost O(N^2 (d + 2 / significance)) at most, N = 2 `ROWS`.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    a, b = _drawn(len(reference), rng), _drawn(len(current), rng)
    of_a, of_b = strata or (np.zeros(len(reference), np.intp), np.zeros(len(current), np.intp))
    known = np.isin(of_b[b], of_a[a])
    left_out = float(1 - known.mean()) if len(b) else 0.0
    b = b[known]
    if len(a) < 2 or len(b) < 2:
        return Apart(0.0, 1.0, left_out)
    x = np.concatenate([reference[a], current[b]]).astype(np.float64)
    groups = np.unique(np.concatenate([of_a[a], of_b[b]]), return_inverse=True)[1]
    is_current = np.arange(len(x)) >= len(a)
    signed = _signed_weights(is_current, groups)
    squares = np.einsum("ij,ij->i", x, x)
    squared = squares[:, None] + squares - 2 * (x @ x.T)
    apart = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
    np.fill_diagonal(apart, 0)
    observed = -float(signed @ apart @ signed)
    plus, minus = np.maximum(signed, 0), np.maximum(-signed, 0)
    most = 2 * float(plus @ apart @ minus)
    if most <= 0:
        return Apart(0.0, 1.0, left_out)
    p_value = _p_value(apart, signed, groups, observed, significance, rng)
    return Apart(max(0.0, observed / most), p_value, left_out)


def _drawn(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    rows = np.arange(n, dtype=np.intp)
    return rows if n <= ROWS else np.sort(rng.choice(rows, ROWS, replace=False))


def _signed_weights(is_current: NDArray[np.bool_], groups: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return 1/m for each current row, and minus its stratum's share of that for the others."""
    m = is_current.sum()
    theirs = np.bincount(groups[is_current], minlength=groups.max() + 1)
    ours = np.bincount(groups[~is_current], minlength=groups.max() + 1)
    weight = np.where(is_current, 1.0, -(theirs / np.maximum(ours, 1))[groups]) / m
    return np.asarray(weight, dtype=np.float32)


def _p_value(
    apart: NDArray[np.float32],
    signed: NDArray[np.float32],
    groups: NDArray[np.intp],
    observed: float,
    significance: float,
    rng: np.random.Generator,
) -> float:
    # Rows in the order of their strata, so that a shuffle is a sort within each.
    order = np.argsort(groups, kind="stable")
    sorted_groups, sorted_signed = groups[order], signed[order]
    apart = np.ascontiguousarray(apart[order][:, order])

    def reached(number: int) -> NDArray[np.bool_]:
        keys = rng.random((number, len(groups))) + sorted_groups
        shuffled = sorted_signed[np.argsort(keys, axis=1)]
        values = -np.einsum("ij,ij->i", shuffled @ apart, shuffled)
        # float32 sums in another order: an equal value must count as one that reached it.
        return np.asarray(values >= observed - 1e-6 * abs(observed))

    return sequential_p_value(reached, significance)


def sequential_p_value(reached: Callable[[int], NDArray[np.bool_]], significance: float) -> float:
    """Return the probability of a permutation test, with no more shuffles than are needed.

    They end with the tenth that reaches the observed value, when ``10 / shuffles`` is a valid
    probability (Besag and Clifford, Sequential Monte Carlo p-values, Biometrika 78, 1991), or at
    twice as many as the level needs.

    Args:
        reached: Makes so many shuffles and returns for each whether it reached the observed value.
        significance: The level at which the caller decides.
    """
    most = math.ceil(2 / significance)
    found = done = 0
    while done < most:
        number = min(_SHUFFLES_AT_ONCE, most - done)
        as_far = found + np.cumsum(reached(number))
        if as_far[-1] >= _ENOUGH:
            return _ENOUGH / (done + int(np.searchsorted(as_far, _ENOUGH)) + 1)
        found, done = int(as_far[-1]), done + number
    return (found + 1) / (done + 1)
