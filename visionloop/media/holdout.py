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
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionloop.media.alike import alike, joined
from visionloop.media.fingerprint import as_words

POOL, HOLDOUT, RESERVED = "pool", "holdout", "reserved"


@dataclass(frozen=True, slots=True)
class Member:
    """A sample that is given a split.

    Attributes:
        sample_id: Its id.
        group_key: Its group; empty when it has none.
        fingerprint: Its 32 bytes.
    """

    sample_id: str
    group_key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """A sample that the lake has.

    Attributes:
        member: The sample.
        split: The split that it is in.
    """

    member: Member
    split: str


def draw_splits(
    new: Sequence[Member],
    held: Sequence[Held] = (),
    *,
    movable: bool = True,
    fraction: float,
    min_samples: int = 1,
    max_samples: int,
    seed: int,
) -> dict[str, str]:
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
        new: Samples of this intake.
        held: Samples that came earlier.
        movable: Whether those of the pool may still move: nobody has selected any, nor trained.
        fraction: Share of all samples to hold out.
        min_samples: From so many on the holdout is frozen.
        max_samples: No more than so many.
        seed: Seed of the hash.

    Returns:
        The split of each new sample id, and of each earlier one that moves into the holdout.
    """
    chosen = [h.member for h in held if h.split == HOLDOUT]
    taken: set[str] = set()
    if new and len(chosen) < min_samples:
        total = len(held) + len(new)
        # The pool is never left empty.
        target = min(round(fraction * total), max_samples, total - 1) - len(chosen)
        if target > 0:
            taken = _draw(new, held, target, movable=movable, seed=seed)
    everyone = [*chosen, *new, *(h.member for h in held if h.member.sample_id in taken)]
    inside = {member.sample_id for member in chosen} | taken
    groups = {m.group_key for m in everyone if m.group_key and m.sample_id in inside}
    splits = {member.sample_id: later_split(member, groups) for member in new}
    return splits | dict.fromkeys(sorted(taken), HOLDOUT)


def _draw(
    new: Sequence[Member], held: Sequence[Held], target: int, *, movable: bool, seed: int
) -> set[str]:
    """Return the ids of at most `target` samples that join the holdout, or of the smallest unit."""
    split = {h.member.sample_id: h.split for h in held}
    members = [*new, *(h.member for h in held)]
    ordered = sorted(members, key=lambda m: (_hash(seed, m.group_key or m.sample_id), m.sample_id))
    splits = [split.get(member.sample_id, "") for member in ordered]
    keys = [member.group_key or member.sample_id for member in ordered]
    first: dict[str, int] = {}
    group = np.array([first.setdefault(key, i) for i, key in enumerate(keys)])
    size = np.bincount(group)
    units = _Units(joined(group, alike(as_words([member.fingerprint for member in ordered]))))
    in_pool = {key for key, where in zip(keys, splits, strict=True) if where == POOL}
    in_holdout = {key for key, where in zip(keys, splits, strict=True) if where == HOLDOUT}
    looked_at: set[int] = set()
    chosen: list[int] = []
    beside: list[int] = []
    smallest: list[int] = []
    for i in range(len(ordered)):
        if len(chosen) == target:
            break
        if i in looked_at or (keys[i] in in_pool and not movable):
            continue
        # Told without looking for copies, in most of a large lake whenever few are still wanted.
        large = size[group[i]] > target - len(chosen)
        if large and in_holdout and keys[i] not in in_holdout:
            continue
        unit = units.of(i)
        looked_at.update(unit)
        if not movable and any(splits[j] == POOL for j in unit):
            continue
        if any(splits[j] == HOLDOUT for j in unit):
            beside += [j for j in unit if splits[j] != HOLDOUT]
            continue
        if len(chosen) + len(unit) <= target:
            chosen += unit
        if not smallest or len(unit) < len(smallest):
            smallest = unit
    if not chosen and not in_holdout and len(smallest) < len(ordered):
        chosen = smallest
    # These may be divided: the rest of their groups is reserved, that of copies never trained on.
    chosen += beside[: max(0, target - len(chosen))]
    return {ordered[i].sample_id for i in chosen}


def later_split(member: Member, holdout_groups: Collection[str]) -> str:
    """Return the split of a sample that is not drawn."""
    return RESERVED if member.group_key and member.group_key in holdout_groups else POOL


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


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
