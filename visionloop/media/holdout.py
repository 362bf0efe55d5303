"""The holdout: what every model is judged on, drawn until there is enough of it, then frozen.

Each intake adds to it until it has ``holdout.min_samples``; from then on it never changes, so that
accuracies of different rounds stay comparable. It is drawn from what nobody has learnt from: from
the intake's new samples, and before the first selection also from those that came earlier. What
belongs together stays on one side: samples of one group (a camera, a patient, a video), and copies
of one picture, as far as fingerprints tell. A later sample of a group that is in the holdout is
``reserved``: training on it would leak, and once the holdout is frozen, adding it would move it. So
is a copy that the pixels tell, see `visionloop.media.copies`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionloop.media.alike import alike, joined

POOL, HOLDOUT, RESERVED = "pool", "holdout", "reserved"
# A new sample has none yet.
SPLITS = ("", POOL, HOLDOUT, RESERVED)
_NEW, _POOL, _HOLDOUT, _RESERVED = range(len(SPLITS))


@dataclass(frozen=True)
class Samples:
    """Samples that have a split or get one, as columns: a million of them take 150 MB.

    Attributes:
        ids: Their ids, uint8 [n, 32].
        groups: Their groups, length n; empty for none.
        words: Their fingerprints, uint64 [n, 4], see `visionloop.media.fingerprint.as_words`.
        splits: Places in `SPLITS`, uint8 [n].
    """

    ids: npt.NDArray[np.uint8]
    groups: Sequence[str]
    words: npt.NDArray[np.uint64]
    splits: npt.NDArray[np.uint8]


def draw_splits(
    samples: Samples,
    *,
    movable: bool = True,
    fraction: float,
    min_samples: int = 1,
    max_samples: int,
    seed: int,
) -> npt.NDArray[np.uint8]:
    """Give new samples their split, and draw the holdout from them while it is too small.

    The holdout is filled up to a fraction of all samples that have come so far, so that many small
    intakes give what one large one would. Samples are put in the order of a seeded hash of their
    group (their id, where they have none); each is taken together with its unit: its group, the
    copies of its pictures, and the groups of those. A unit that no longer fits stays in the pool,
    and so does one with a sample that may not move. So the choice depends on the samples alone, not
    on names or the order within an intake. Where there is no holdout and no unit fits, the smallest
    is taken, unless it is all there is. What is still missing is taken from samples that belong to
    the holdout already: of its groups, or copies of it.

    Args:
        samples: Those of this intake, and those that came earlier.
        movable: Whether those of the pool may still move: nobody has selected any, nor trained.
        fraction: Share of all samples to hold out.
        min_samples: From so many on the holdout is frozen.
        max_samples: No more than so many.
        seed: Seed of the hash.

    Returns:
        The split of each, places in `SPLITS`; an earlier one may move from the pool to the holdout.
    """
    splits = samples.splits.copy()
    is_new = splits == _NEW
    n, held_out = len(splits), int(np.count_nonzero(splits == _HOLDOUT))
    if is_new.any() and held_out < min_samples:
        # The pool is never left empty.
        target = min(round(fraction * n), max_samples, n - 1) - held_out
        if target > 0:
            splits[_draw(samples, target, movable=movable, seed=seed)] = _HOLDOUT
    inside = {samples.groups[row] for row in np.flatnonzero(splits == _HOLDOUT).tolist()} - {""}
    leaks = np.fromiter((group in inside for group in samples.groups), bool, n)
    later = splits == _NEW
    splits[later] = np.where(leaks[later], _RESERVED, _POOL)
    return splits


def _draw(samples: Samples, target: int, *, movable: bool, seed: int) -> npt.NDArray[np.intp]:
    """Return at most `target` rows that join the holdout, or those of the smallest unit."""
    order = _order(samples, seed)
    n = len(order)
    first: dict[str, int] = {}
    group = np.arange(n)
    for i, row in enumerate(order.tolist()):
        if samples.groups[row]:
            group[i] = first.setdefault(samples.groups[row], i)
    splits = samples.splits[order]
    in_pool, in_holdout = np.zeros(n, bool), np.zeros(n, bool)
    in_pool[group[splits == _POOL]] = True
    in_holdout[group[splits == _HOLDOUT]] = True
    is_begun = bool(in_holdout.any())
    size = np.bincount(group)
    units = _Units(joined(group, alike(samples.words[order])))
    looked_at = np.zeros(n, bool)
    chosen: list[int] = []
    beside: list[int] = []
    smallest: list[int] = []
    for i in range(n):
        if len(chosen) == target:
            break
        mine = group[i]
        if looked_at[i] or (in_pool[mine] and not movable):
            continue
        # Told without its copies, in most of a large lake whenever few are still wanted.
        if size[mine] > target - len(chosen) and is_begun and not in_holdout[mine]:
            continue
        unit = units.of(i)
        looked_at[unit] = True
        theirs = splits[unit]
        if not movable and (theirs == _POOL).any():
            continue
        if (theirs == _HOLDOUT).any():
            beside += [j for j in unit if splits[j] != _HOLDOUT]
            continue
        if len(chosen) + len(unit) <= target:
            chosen += unit
        if not smallest or len(unit) < len(smallest):
            smallest = unit
    if not chosen and not is_begun and len(smallest) < n:
        chosen = smallest
    # These may be divided: the rest of their groups is reserved, that of copies never trained on.
    chosen += beside[: max(0, target - len(chosen))]
    return order[np.array(chosen, np.intp)]


def _order(samples: Samples, seed: int) -> npt.NDArray[np.intp]:
    """Return the rows in the order of a seeded hash of group or id, and within that of the id."""
    digests = np.empty_like(samples.ids)
    for row, group in enumerate(samples.groups):
        name = f"{seed}:{group or samples.ids[row].tobytes().hex()}"
        digests[row] = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint8)
    keys = np.concatenate([digests, samples.ids], axis=1).view(">u8").astype(np.uint64)
    return np.lexsort(keys.T[::-1])


class _Units:
    """What must stay on one side, directly or through others.

    Args:
        first: The first row of each row's unit, intp [n].
    """

    def __init__(self, first: npt.NDArray[np.intp]) -> None:
        self._first = first
        self._rows = np.argsort(first, kind="stable")
        self._sorted = first[self._rows]

    def of(self, row: int) -> list[int]:
        """Return the rows of a row's unit, ascending."""
        begin, end = np.searchsorted(self._sorted, [self._first[row], self._first[row] + 1])
        rows: list[int] = self._rows[begin:end].tolist()
        return rows
