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
# Beyond so many the rest of the tail is extrapolated from the largest values.
_MOST_SHUFFLES = 20_000
_IN_TAIL = 250


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
        significance: The level at which the caller decides: bounds the number of shuffles.
        strata: A number for each row of the reference and of the current sample.
        seed: Of the draw and of the shuffles.

    Cost O(N^2 (d + shuffles)), N = 2 `ROWS`, at most 20,000 shuffles and mostly a few dozen.
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


def farthest(reference: Floats, current: Floats, most: int) -> list[int]:
    """Return the rows of the current sample that lie farthest from the reference, on average.

    Args:
        reference: float32 [n, d]; `ROWS` of it are drawn where there are more.
        current: float32 [m, d].
        most: How many rows to return.

    Returns:
        Row numbers, the farthest first; none without a reference.
    """
    if not len(reference) or not len(current):
        return []
    rows = _drawn(len(reference), np.random.Generator(np.random.PCG64(0)))
    x = reference[rows].astype(np.float64)
    total = np.zeros(len(current))
    for begin in range(0, len(current), ROWS):
        y = current[begin : begin + ROWS].astype(np.float64)
        squared = (y**2).sum(axis=1)[:, None] + (x**2).sum(axis=1) - 2 * (y @ x.T)
        total[begin : begin + ROWS] = np.sqrt(np.maximum(squared, 0)).mean(axis=1)
    return [int(row) for row in np.argsort(-total, kind="stable")[:most]]


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

    def values(number: int) -> NDArray[np.floating]:
        keys = rng.random((number, len(groups))) + sorted_groups
        shuffled = sorted_signed[np.argsort(keys, axis=1)]
        return np.asarray(-np.einsum("ij,ij->i", shuffled @ apart, shuffled))

    return permutation_p_value(values, observed, significance)


def permutation_p_value(
    values: Callable[[int], NDArray[np.floating]], observed: float, significance: float
) -> float:
    """Return the probability of a permutation test, with no more shuffles than are needed.

    They end with the tenth that reaches the observed value, when ``10 / shuffles`` is a valid
    probability (Besag and Clifford, Sequential Monte Carlo p-values, Biometrika 78, 1991), or at
    twice as many as the level needs. Levels of late looks would need millions: after 20,000 the
    tail beyond the largest 250 is taken to fall exponentially (the generalised Pareto tail of
    Knijnenburg et al., Fewer permutations, more accurate P-values, Bioinformatics 25, 2009, at
    shape 0, which is the limit for sums of squares and heavier than that of counts), at a scale
    that is raised by two standard errors.

    Args:
        values: Makes so many shuffles and returns the statistic of each.
        observed: The statistic without a shuffle; the larger, the farther apart.
        significance: The level at which the caller decides.
    """
    needed = math.ceil(2 / significance)
    most = min(needed, _MOST_SHUFFLES)
    # Sums in another order: an equal value must count as one that reached it.
    enough = observed - 1e-6 * abs(observed)
    seen: list[NDArray[np.floating]] = []
    found = done = 0
    while done < most:
        number = min(_SHUFFLES_AT_ONCE, most - done)
        seen.append(values(number))
        as_far = found + np.cumsum(seen[-1] >= enough)
        if as_far[-1] >= _ENOUGH:
            return _ENOUGH / (done + int(np.searchsorted(as_far, _ENOUGH)) + 1)
        found, done = int(as_far[-1]), done + number
    counted = (found + 1) / (done + 1)
    return counted if most == needed else min(counted, _tail(np.concatenate(seen), observed))


def _tail(values: NDArray[np.floating], observed: float) -> float:
    """Return the probability of a value beyond all that were drawn, by an exponential tail."""
    largest = np.sort(values)[-_IN_TAIL - 1 :]
    edge = float(largest[0])
    scale = float((largest[1:] - edge).mean()) * (1 + 2 / math.sqrt(_IN_TAIL))
    share = _IN_TAIL / len(values)
    # Where all shuffles of the tail are alike, the observed value is beyond any of them.
    return share * math.exp(-(observed - edge) / scale) if scale > 0 else 0.0
