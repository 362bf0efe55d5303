"""Which boxes of different people are of one object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.provider import Box

Floats = NDArray[np.float64]
# Between equally good pairs those of one class belong together.
_SAME_CLASS = 1e-6


def overlaps(first: Sequence[Box], second: Sequence[Box]) -> Floats:
    """Return the intersection over union of each pair of boxes, float64 [n, m].

    Args:
        first: n boxes.
        second: m boxes. A box without an area overlaps with none.
    """
    a, b = _corners(first), _corners(second)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(a)[:, None] + _area(b)[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def matched(
    first: Sequence[Box], second: Sequence[Box], min_iou: float
) -> list[tuple[int, int, float]]:
    """Return the one-to-one matching of two people's boxes with the largest sum of overlaps.

    The assignment is optimal (Kuhn, The Hungarian Method, 1955; `scipy`), whatever the classes;
    pairs below `min_iou` count for nothing in it.

    Args:
        first: n boxes.
        second: m boxes.
        min_iou: Overlap from which two boxes can be of one object.

    Returns:
        ``(row of first, row of second, overlap)`` of each pair.

    Cost: O(n·m·min(n, m)).
    """
    from scipy.optimize import linear_sum_assignment

    if not first or not second:
        return []
    iou = overlaps(first, second)
    labels = np.array([[a.label == b.label for b in second] for a in first])
    worth = np.where(iou >= min_iou, iou + _SAME_CLASS * labels, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [
        (int(i), int(j), float(iou[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if iou[i, j] >= min_iou
    ]


def objects(boxes: Sequence[Sequence[Box]], min_iou: float) -> list[list[tuple[int, Box]]]:
    """Return the objects that several people's boxes are of.

    Boxes are joined from the best overlap down (agglomerative clustering with average linkage):
    two groups become one where nobody has a box in both, and their boxes overlap by `min_iou` on
    average.

    Args:
        boxes: The boxes of each person.
        min_iou: Overlap from which boxes are of one object.

    Returns:
        Of each object its boxes as ``(person, box)``, in the order of people; objects in the order
        of their first box.

    Cost: O(n²) overlaps and O(n³) in the worst case, for n boxes of one image.
    """
    flat = [(person, box) for person, own in enumerate(boxes) for box in own]
    if not flat:
        return []
    every = [box for _, box in flat]
    iou = overlaps(every, every)
    groups: dict[int, list[int]] = {i: [i] for i in range(len(flat))}
    near = np.argwhere(np.triu(iou, 1) >= min_iou)
    ranked = sorted((-float(iou[i, j]), int(i), int(j)) for i, j in near)
    where = list(range(len(flat)))
    joined = True
    while joined:  # a group that grew may overlap more with others than its parts did
        joined = False
        for _, i, j in ranked:
            one, other = sorted((where[i], where[j]))
            if one == other:
                continue
            mine, theirs = groups[one], groups[other]
            if {flat[k][0] for k in mine} & {flat[k][0] for k in theirs}:
                continue
            if iou[np.ix_(mine, theirs)].mean() < min_iou:
                continue
            groups[one] = sorted([*mine, *theirs])
            for k in groups.pop(other):
                where[k] = one
            joined = True
    return [[flat[k] for k in groups[first]] for first in sorted(groups)]


def _corners(boxes: Sequence[Box]) -> Floats:
    rows = [(b.x_min, b.y_min, b.x_max, b.y_max) for b in boxes]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _area(corners: Floats) -> Floats:
    return np.asarray(np.clip(corners[:, 2:] - corners[:, :2], 0, None).prod(axis=1))
