"""Whether two pictures are the same picture: the pixels' answer to what fingerprints propose.

Fingerprints find candidates among millions, but a distance that finds cropped copies also finds
look-alikes: a quarter of scikit-learn's digits have another digit within 16 bits. So a candidate is
confirmed on its pixels. One picture is laid over the other (shift and scale of each axis, by
Gauss-Newton steps from coarse to fine; Baker and Matthews, Lucas-Kanade 20 Years On, 2004), its
contrast and brightness are fitted, and what is left unexplained is measured where it is largest: a
copy is the same everywhere, a look-alike and the next frame of a camera that stands still differ
somewhere. `python -m benchmarks.duplicates` measures it on copies and look-alikes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64

Floats = NDArray[np.float32]

# Pixels a side at which the pictures are laid over each other, and the steps at each.
_STEPS = ((16, 6), (32, 3), (64, 2))
# At 16 and 32 pixels copies correlate by .98 and more: below this the rest is not computed.
_HOPELESS = 0.93
# A crop may have lost a fifth of an axis; the largest shift of a centre that comes of it.
_SCALES, _SHIFTS = (0.8, 1.25), (-0.12, 0.12)
_GAINS = (0.3, 3.0)
_TILE = 8
_PAIRS = 64


def grey(picture: Image.Image | bytes) -> Floats:
    """Return a picture, or its encoded thumbnail, as it is compared: float32 [SIDE, SIDE].

    Args:
        picture: Upright, of any size and mode. A thumbnail was written by ingest.
    """
    if isinstance(picture, bytes):
        picture = Image.open(io.BytesIO(picture))
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values: Floats = np.asarray(small, dtype=np.float32)
    # Smoothed, so that what a fraction of a pixel does to fine texture is no difference.
    for _ in range(2):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        values = ((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / np.float32(4)).T
    return np.ascontiguousarray(values)


def likeness(left: Sequence[Floats] | Floats, right: Sequence[Floats] | Floats) -> Floats:
    """Return how much each picture is the same as its partner, at most 1.

    It is 1 less the share of a picture's variance that the other one, laid over it, leaves
    unexplained in the worst of 64 tiles; below 0 counts as 0. It does not depend on the order of
    the two, but for rounding. Brightness and contrast do not change it, nor do crops that lost no
    more than a fifth of a side. Flat pictures are like nothing.

    Args:
        left: As from `grey`, [n, SIDE, SIDE].
        right: As from `grey`, [n, SIDE, SIDE].

    Returns:
        float32 [n].
    """
    found = np.zeros(len(left), np.float32)
    for start in range(0, len(left), _PAIRS):
        one = np.asarray(left[start : start + _PAIRS], np.float32)
        other = np.asarray(right[start : start + _PAIRS], np.float32)
        # What was cropped is found best laid over the whole, and which it is nobody says.
        found[start : start + len(one)] = np.maximum(_of_block(one, other), _of_block(other, one))
    return found


def _of_block(left: Floats, right: Floats) -> Floats:
    best = _judged(left, right, _identity(len(left)))
    one, other = {SIDE: left}, {SIDE: right}
    for side in (32, 16):
        one[side], other[side] = _halved(one[2 * side]), _halved(other[2 * side])
    place = _identity(len(left))
    rows = np.arange(len(left))
    for side, steps in _STEPS:
        for _ in range(steps):
            place = _better(one[side][rows], other[side][rows], place)
        if side < SIDE:
            hopeful = _correlation(one[side][rows], other[side][rows], place) >= _HOPELESS
            rows, place = rows[hopeful], place[hopeful]
    best[rows] = np.maximum(best[rows], _judged(left[rows], right[rows], place))
    return best


def _identity(n: int) -> Floats:
    """Return scale and shift of rows and of columns that change nothing, float32 [n, 4]."""
    return np.tile(np.array([1, 0, 1, 0], np.float32), (n, 1))


def _halved(x: Floats) -> Floats:
    n, side, _ = x.shape
    means = x.reshape(n, side // 2, 2, side // 2, 2).mean(axis=(2, 4))
    return np.asarray(means, dtype=np.float32)


def _axis(side: int) -> Floats:
    """Return where pixels lie on an axis from -1/2 to 1/2."""
    return np.asarray((np.arange(side) + 0.5) / side - 0.5, dtype=np.float32)


def _maps(scale: Floats, shift: Floats, side: int) -> tuple[Floats, Floats]:
    """Return the bilinear maps of an axis, [n, side, side], and which places lie inside."""
    place = (scale[:, None] * _axis(side) + shift[:, None] + 0.5) * side - 0.5
    inside = ((place >= -0.5) & (place <= side - 0.5)).astype(np.float32)
    place = np.clip(place, 0, side - 1)
    left = np.minimum(place.astype(np.intp), side - 2)
    part = (place - left).astype(np.float32)
    maps: Floats = np.zeros((len(scale), side, side), np.float32)
    which, row = np.arange(len(scale))[:, None], np.arange(side)[None, :]
    maps[which, row, left] = 1 - part
    maps[which, row, left + 1] += part
    return maps, inside


def _laid_over(x: Floats, place: Floats) -> tuple[Floats, Floats]:
    """Return pictures laid over others, and which pixels they reach."""
    side = x.shape[1]
    rows, row_inside = _maps(place[:, 0], place[:, 1], side)
    columns, column_inside = _maps(place[:, 2], place[:, 3], side)
    laid = (rows @ x @ columns.transpose(0, 2, 1)).astype(np.float32, copy=False)
    return laid, row_inside[:, :, None] * column_inside[:, None, :]


def _better(left: Floats, right: Floats, place: Floats) -> Floats:
    """Return places after one Gauss-Newton step."""
    n, side, _ = left.shape
    if not n:
        return place
    laid, reached = _laid_over(left, place)
    down = np.gradient(laid, axis=1) * side / place[:, 0, None, None]
    across = np.gradient(laid, axis=2) * side / place[:, 2, None, None]
    u = _axis(side)
    terms = [laid, np.ones_like(laid), down * u[:, None], down, across * u, across]
    columns = np.stack(terms, axis=1).reshape(n, 6, -1)
    seen = columns * reached.reshape(n, 1, -1)
    normal = (seen @ columns.transpose(0, 2, 1)).astype(np.float64)
    wanted = (seen @ right.reshape(n, -1, 1)).astype(np.float64)
    # A flat picture has no gradient; the ridge keeps its step at 0.
    ridge = 1e-4 * np.einsum("nii->ni", normal) + 1e-3
    normal += ridge[:, :, None] * np.eye(6)
    solved = np.linalg.solve(normal, wanted)[:, :, 0]
    step = solved[:, 2:] / np.maximum(solved[:, :1], 0.1)
    place = place + np.clip(step, -1.5 / side, 1.5 / side).astype(np.float32)
    place[:, 0::2] = np.clip(place[:, 0::2], *_SCALES)
    place[:, 1::2] = np.clip(place[:, 1::2], *_SHIFTS)
    return place


def _moments(laid: Floats, right: Floats, reached: Floats) -> tuple[Floats, ...]:
    """Return both pictures without their means, their variances and their covariance."""
    total = np.maximum(reached.sum(axis=(1, 2), keepdims=True), 1)

    def mean(x: Floats) -> Floats:
        return np.asarray((x * reached).sum(axis=(1, 2), keepdims=True) / total)

    one, other = laid - mean(laid), right - mean(right)
    return one, other, mean(one * one), mean(other * other), mean(one * other)


def _correlation(left: Floats, right: Floats, place: Floats) -> Floats:
    laid, reached = _laid_over(left, place)
    _, _, one, other, both = _moments(laid, right, reached)
    return np.asarray((both / np.sqrt(np.maximum(one * other, 1e-6)))[:, 0, 0])


def _judged(left: Floats, right: Floats, place: Floats) -> Floats:
    """Return 1 less the unexplained share of the worst tile, float32 [n]."""
    n, tiles = len(left), SIDE // _TILE
    laid, reached = _laid_over(left, place)
    one, other, one_variance, other_variance, both = _moments(laid, right, reached)
    worst = np.full(n, np.inf, np.float32)
    # From one to the other and back: of two pictures the brighter one may have lost its lights.
    for x, variance, y, whole, of_y in (
        (one, one_variance, other, right, other_variance),
        (other, other_variance, one, laid, one_variance),
    ):
        gain = np.clip(both / np.maximum(variance, 1e-6), *_GAINS)
        expected = np.clip(gain * x + (whole - y), 0, 255)
        left_over = (whole - expected) ** 2 * reached
        sums = left_over.reshape(n, tiles, _TILE, tiles, _TILE).sum(axis=(2, 4))
        share = sums.max(axis=(1, 2)) / _TILE**2 / np.maximum(of_y[:, 0, 0], 1e-6)
        worst = np.minimum(worst, np.where(of_y[:, 0, 0] >= 1, share, np.inf))
    return np.maximum(0, 1 - worst).astype(np.float32)
