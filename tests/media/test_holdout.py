"""The holdout: drawn until it is large enough, together with everything that belongs together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.media.fingerprint import as_words
from visionloop.media.holdout import (
    HOLDOUT,
    POOL,
    RESERVED,
    SPLITS,
    Samples,
)
from visionloop.media.holdout import draw_splits as draw_columns


class Member(NamedTuple):
    """A sample."""

    sample_id: str
    group_key: str
    fingerprint: bytes


class Held(NamedTuple):
    """A sample that came earlier."""

    member: Member
    split: str


def draw_splits(new: Sequence[Member], held: Sequence[Held] = (), **options: Any) -> dict[str, str]:
    """Return the split of each new sample, and of each earlier one that moves."""
    members = [*new, *(one.member for one in held)]
    had = ["" for _ in new] + [one.split for one in held]
    drawn = draw_columns(
        Samples(
            np.array([list(bytes.fromhex(m.sample_id)) for m in members], np.uint8).reshape(-1, 32),
            [m.group_key for m in members],
            as_words([m.fingerprint for m in members]),
            np.array([SPLITS.index(one) for one in had], np.uint8),
        ),
        **options,
    )
    told = zip(members, had, drawn.tolist(), strict=True)
    return {m.sample_id: SPLITS[code] for m, before, code in told if SPLITS[code] != before}


def member(name: str, group: str = "", copy_of: str = "") -> Member:
    like = hashlib.sha256((copy_of or name).encode()).digest()
    if copy_of:  # one bit apart
        like = bytes([like[0] ^ 1]) + like[1:]
    return Member(hashlib.sha256(name.encode()).hexdigest(), group, like)


def held(members: list[Member], **options: float) -> set[str]:
    chosen: dict[str, Any] = {"fraction": 0.2, "max_samples": 500, "seed": 0} | options
    splits = draw_splits(members, **chosen)
    assert set(splits) == {m.sample_id for m in members}
    assert set(splits.values()) <= {POOL, HOLDOUT}
    return {sample_id for sample_id, split in splits.items() if split == HOLDOUT}


SINGLES = [member(f"m{i}") for i in range(200)]


def test_the_share_and_the_most_are_kept() -> None:
    assert len(held(SINGLES)) == 40
    assert len(held(SINGLES, max_samples=7)) == 7
    assert held(SINGLES, fraction=0.0) == set()
    assert held([]) == set()


def test_the_choice_depends_on_the_samples_and_the_seed_alone() -> None:
    chosen = held(SINGLES)
    assert held(list(reversed(SINGLES))) == chosen
    assert held(SINGLES, seed=1) != chosen


def test_groups_are_never_divided() -> None:
    members = [member(f"m{i}", group=f"camera {i % 17}") for i in range(200)]
    chosen = held(members)
    groups = {m.group_key for m in members if m.sample_id in chosen}
    assert chosen == {m.sample_id for m in members if m.group_key in groups}
    assert 0 < len(chosen) <= 40


def test_copies_stay_on_the_side_of_their_original() -> None:
    members = SINGLES + [member(f"copy {i}", copy_of=f"m{i}") for i in range(100)]
    chosen = held(members)
    by_id = {m.sample_id: i for i, m in enumerate(members)}
    for i in range(100):
        original, copy = members[i].sample_id, members[200 + i].sample_id
        assert (original in chosen) == (copy in chosen)
    assert len(chosen) <= 60 and by_id


def test_copies_tie_their_groups_together() -> None:
    members = [member(f"m{i}", group=f"g{i % 4}") for i in range(40)]
    members.append(member("copy", group="g3", copy_of="m0"))  # m0 is of g0
    for seed in range(8):
        chosen = held(members, fraction=0.6, seed=seed)
        sides = {m.group_key: m.sample_id in chosen for m in members}
        assert sides["g0"] == sides["g3"]


def test_where_every_group_is_too_large_the_smallest_is_taken_unless_it_is_all() -> None:
    members = [member(f"a{i}", "big") for i in range(60)] + [
        member(f"b{i}", "small") for i in range(40)
    ]
    assert held(members, fraction=0.1) == {m.sample_id for m in members[60:]}
    assert held(members[:60], fraction=0.1) == set()


def test_a_later_sample_of_a_holdout_group_is_neither_trained_on_nor_held_out() -> None:
    later = [member("x", "camera 1"), member("y", "camera 2"), member("z")]
    options: dict[str, Any] = {"fraction": 0.5, "max_samples": 500, "min_samples": 1, "seed": 0}
    drawn = draw_splits(later, [Held(member("first", "camera 1"), HOLDOUT)], **options)
    assert list(drawn.values()) == [RESERVED, POOL, POOL]
    assert set(draw_splits(later, [], **options | {"fraction": 0.0}).values()) == {POOL}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=40, unique=True),
    st.floats(0, 0.9),
    st.integers(0, 50),
)
def test_whatever_comes_nothing_that_belongs_together_is_divided(
    drawn: list[tuple[int, int]], fraction: float, most: int
) -> None:
    members = [member(f"{i}/{g}", f"g{g}" if g else "") for i, g in drawn]
    chosen = held(members, fraction=fraction, max_samples=most)
    for group in range(1, 6):
        sides = {m.sample_id in chosen for m in members if m.group_key == f"g{group}"}
        assert len(sides) <= 1
    assert len(chosen) < len(members) or not members


def trickle(
    batches: list[list[Member]], *, movable: bool = True, **options: float
) -> list[dict[str, str]]:
    """Return the splits after each of several intakes."""
    chosen: dict[str, Any] = {
        "fraction": 0.2,
        "min_samples": 50,
        "max_samples": 200,
        "seed": 0,
    } | options
    splits: dict[str, str] = {}
    known: dict[str, Member] = {}
    states = []
    for batch in batches:
        earlier = [Held(known[name], split) for name, split in splits.items()]
        drawn = draw_splits(batch, earlier, movable=movable, **chosen)
        assert {m.sample_id for m in batch} <= set(drawn)
        moved = set(drawn) - {m.sample_id for m in batch}
        assert all(drawn[name] == HOLDOUT != splits[name] for name in moved)
        assert movable or not any(splits[name] == POOL for name in moved)
        splits |= drawn
        known |= {m.sample_id: m for m in batch}
        states.append(dict(splits))
    return states


def inside(splits: dict[str, str]) -> set[str]:
    return {name for name, split in splits.items() if split == HOLDOUT}


@pytest.mark.parametrize("size", [1, 2, 5, 30])
@pytest.mark.parametrize("movable", [True, False])
def test_small_intakes_fill_the_holdout_until_it_has_its_least_and_then_it_is_frozen(
    size: int, movable: bool
) -> None:
    many = [member(f"t{i}") for i in range(600)]
    batches = [many[i : i + size] for i in range(0, len(many), size)]
    states = trickle(batches, movable=movable)
    sizes = [len(inside(state)) for state in states]
    for number, (state, batch_end) in enumerate(zip(states, range(size, 601, size), strict=False)):
        if sizes[number] < 50:
            assert abs(len(inside(state)) - 0.2 * batch_end) <= 1
    assert 50 <= sizes[-1] <= 56
    full = next(i for i, n in enumerate(sizes) if n >= 50)
    assert all(inside(state) == inside(states[full]) for state in states[full:])
    assert all(inside(a) <= inside(b) for a, b in pairwise(states))


def test_a_first_intake_of_two_does_not_leave_the_loop_without_a_holdout() -> None:
    states = trickle([SINGLES[:2], SINGLES[2:]])
    assert [len(inside(state)) for state in states] == [0, 40]


def test_before_the_first_selection_whole_groups_may_still_move_and_after_it_none_may() -> None:
    first = [member(f"a{i}", group="abc"[i % 3]) for i in range(3)]
    later = [member(f"b{i}", group="abc"[i % 3]) for i in range(60)]
    moved = trickle([first, later], fraction=0.4)[-1]
    held = {m.group_key for m in [*first, *later] if m.sample_id in inside(moved)}
    assert 0 < len(held) < 3 and 20 <= len(inside(moved)) <= 26
    assert not inside(trickle([first, later], movable=False, fraction=0.1)[-1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 5)), max_size=60, unique=True),
    st.integers(1, 9),
    st.floats(0, 0.9),
    st.booleans(),
    st.integers(1, 20),
)
def test_however_intakes_are_cut_no_group_and_no_copies_are_on_both_sides(
    drawn: list[tuple[int, int]], size: int, fraction: float, movable: bool, least: int
) -> None:
    members = [member(f"{i}/{g}", f"g{g}" if g else "") for i, g in drawn]
    batches = [members[i : i + size] for i in range(0, len(members), size)]
    states = trickle(batches, movable=movable, fraction=fraction, min_samples=least)
    for splits in states:
        for group in range(1, 6):
            sides = {
                splits[m.sample_id]
                for m in members
                if m.group_key == f"g{group}" and m.sample_id in splits
            }
            assert sides <= {POOL} or sides <= {HOLDOUT, RESERVED}
    assert not members or len(inside(states[-1])) < len(members)
