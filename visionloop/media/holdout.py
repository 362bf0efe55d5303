"""The frozen holdout: the samples that every model is judged on, chosen once.

It is drawn from the first intake that brings a sample, and never changes: accuracies of different
rounds stay comparable. What belongs together stays on one side: samples of one group (a camera, a
patient, a video), and copies of one picture. A later sample of a group that is in the holdout is
``reserved``: training on it would leak, and adding it would move the holdout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS, as_words, distances

POOL, HOLDOUT, RESERVED = "pool", "holdout", "reserved"


@dataclass(frozen=True)
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


def first_splits(
    members: Sequence[Member], *, fraction: float, max_samples: int, seed: int
) -> dict[str, str]:
    """Choose the holdout from the first intake.

    Samples are put in the order of a seeded hash of their group (their id, where they have none);
    each is taken together with its unit: its group, the copies of its pictures, and the groups of
    those. A unit that no longer fits stays in the pool. So the choice depends on the samples alone,
    not on names or arrival. Where no unit fits, the smallest is taken, unless it is all there is.
    Costs O(n) for each sample looked at: as many as are held out, and few more.

    Args:
        members: All samples of the intake.
        fraction: Share of them to hold out.
        max_samples: No more than so many.
        seed: Seed of the hash.

    Returns:
        ``pool`` or ``holdout`` for each sample id.
    """
    splits = {member.sample_id: POOL for member in members}
    # The pool is never left empty.
    target = min(round(fraction * len(members)), max_samples, len(members) - 1)
    if target < 1:
        return splits
    ordered = sorted(members, key=lambda m: (_hash(seed, m.group_key or m.sample_id), m.sample_id))
    words = as_words([member.fingerprint for member in ordered])
    by_group: dict[str, list[int]] = {}
    for i, member in enumerate(ordered):
        by_group.setdefault(member.group_key or member.sample_id, []).append(i)
    looked_at: set[int] = set()
    chosen: list[int] = []
    smallest: list[int] = []
    for i in range(len(ordered)):
        if len(chosen) == target:
            break
        if i in looked_at:
            continue
        unit = _unit(i, ordered, words, by_group)
        looked_at.update(unit)
        if len(chosen) + len(unit) <= target:
            chosen += unit
        if not smallest or len(unit) < len(smallest):
            smallest = unit
    if not chosen and len(smallest) < len(ordered):
        chosen = smallest
    return splits | dict.fromkeys((ordered[i].sample_id for i in chosen), HOLDOUT)


def later_split(member: Member, holdout_groups: Collection[str]) -> str:
    """Return the split of a sample that arrives once the holdout is frozen."""
    return RESERVED if member.group_key and member.group_key in holdout_groups else POOL


def _unit(
    start: int,
    members: Sequence[Member],
    words: npt.NDArray[np.uint64],
    by_group: Mapping[str, list[int]],
) -> list[int]:
    """Return what must stay on one side with a sample, directly or through others."""
    unit = {start}
    frontier = [start]
    while frontier:
        i = frontier.pop()
        near = np.flatnonzero(distances(words[i : i + 1], words)[0] <= NEAR_DUPLICATE_BITS)
        together = by_group[members[i].group_key or members[i].sample_id]
        for other in (*near.tolist(), *together):
            if other not in unit:
                unit.add(other)
                frontier.append(other)
    return sorted(unit)


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
