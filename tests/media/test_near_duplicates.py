"""The search of near duplicates misses no pair and invents none, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.media.frames import frames
from visionloop.media import near_duplicates as module
from visionloop.media.near_duplicates import NEVER, near_duplicates, nearest_earlier, within_of

Words = NDArray[np.uint64]


def prints(n: int, seed: int, *, like_pictures: bool = True) -> Words:
    """Return fingerprints with copies among them: thermometers as of pictures, or any bits."""
    rng = np.random.Generator(np.random.PCG64(seed))
    if like_pictures:
        values = rng.standard_normal((n, 51)) * rng.uniform(0.2, 2, 51)
        values[n // 2 :] = values[rng.integers(0, n // 2, n - n // 2)]
        values[n // 2 :] += rng.standard_normal((n - n // 2, 51)) * rng.choice([0, 0.05, 0.1, 0.2])
        levels = np.array([-0.77, -0.34, 0, 0.34, 0.77])
        bits = (values[:, None, :] > levels[None, :, None]).reshape(n, 255)
    else:
        bits = rng.random((n, 256)) < 0.5
        bits[n // 2 :] = bits[: n - n // 2] ^ (rng.random((n - n // 2, 256)) < 0.04)
    return np.packbits(bits[rng.permutation(n)], axis=1).view(np.uint64)


def naive(words: Words, within: int) -> list[tuple[int, int, int]]:
    bits = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2, dtype=np.int64)
    i, j = np.nonzero(np.triu(bits <= within, 1))
    return list(zip(i.tolist(), j.tolist(), bits[i, j].tolist(), strict=True))


def found(words: Words, within: int) -> list[tuple[int, int, int]]:
    pairs, bits = near_duplicates(words, within)
    return [(i, j, b) for (i, j), b in zip(pairs.tolist(), bits.tolist(), strict=True)]


def partition(number: int, within: int) -> list[module.Group]:
    """Deal the coefficients to groups whose radii add up as `choose` has them."""
    whole, more = divmod(within + 1, number)
    return [
        module.Group(list(range(module.COEFFICIENTS))[i::number], whole + (i < more) - 1)
        for i in range(number)
    ]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 300),
    seed=st.integers(0, 10_000),
    within=st.sampled_from([0, 1, 5, 10, 16, 24, 40]),
    groups=st.integers(1, 26),
    like_pictures=st.booleans(),
)
def test_every_partition_finds_the_pairs_of_a_naive_search(
    n: int, seed: int, within: int, groups: int, like_pictures: bool
) -> None:
    words = prints(n, seed, like_pictures=like_pictures)
    dealt = partition(min(groups, within + 1), within)
    if any(module.offset_number(len(g.columns), g.radius) > 3000 for g in dealt):
        dealt = partition(within + 1, within)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW_PAIRS", 0)
        patch.setattr(module, "choose", lambda *_: dealt)
        assert found(words, within) == naive(words, within)


@pytest.mark.parametrize("within", [2, 3])
def test_groups_of_more_coefficients_than_a_number_holds_lose_no_pair(
    within: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = prints(3_000, 1, like_pictures=True)
    everything = found(words, within)
    assert len(everything) > 20
    monkeypatch.setattr(module, "FEW_PAIRS", 0)
    monkeypatch.setattr(module, "choose", lambda *_: partition(2, within))
    assert found(words, within) == everything


@pytest.mark.parametrize("within", [10, 24])
def test_what_the_costs_choose_is_what_comparing_everything_finds(
    within: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = prints(4_000, 1)
    everything = found(words, within)
    assert len(everything) > 200
    monkeypatch.setattr(module, "FEW_PAIRS", 0)
    monkeypatch.setattr(module, "_A_CALL", 0)  # a larger collection would be worth them
    assert len(module.choose(words, 0, within)) > 1
    assert found(words, within) == everything


@pytest.mark.parametrize("start", [0, 1, 350, 699])
@pytest.mark.parametrize("few", [0, 1 << 60])
def test_the_nearest_earlier_fingerprint_is_that_of_a_naive_search(
    start: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW_PAIRS", few)
    words = prints(700, 2)
    words[500] = words[20] = words[3]
    bits = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2, dtype=np.int64)
    bits[np.triu_indices(700)] = 999
    near = bits[start:].min(axis=1) <= 24
    row, distance = nearest_earlier(words, start, 24)
    assert (row == np.where(near, bits[start:].argmin(axis=1), -1)).all()
    assert (distance == np.where(near, bits[start:].min(axis=1), NEVER)).all()


def test_the_closest_of_a_few_are_those_of_a_naive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 100)  # several blocks
    words, others = prints(300, 3)[:200], prints(300, 3)[150:]
    expected = []
    for i, word in enumerate(words):
        bits = np.bitwise_count(word ^ others).sum(axis=1, dtype=np.int64)
        order = sorted((int(b), j) for j, b in enumerate(bits) if b <= 40)[:3]
        expected += [(i, j, b) for b, j in order]
    blocks = list(within_of(words, others, 40, 3))
    assert len(blocks) > 1
    assert [row for some in blocks for row in zip(*(x.tolist() for x in some), strict=True)] == (
        expected
    )
    assert not list(within_of(words, others[:0], 40, 3))


def test_nothing_has_no_near_duplicates() -> None:
    for n in (0, 1):
        pairs, bits = near_duplicates(np.zeros((n, 4), np.uint64))
        assert pairs.shape == (0, 2) and bits.shape == (0,)
        row, _ = nearest_earlier(np.zeros((n, 4), np.uint64), 0, 10)
        assert (row == -1).all() and len(row) == n


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("few", [0, 1 << 60])
def test_of_frames_that_are_all_alike_each_has_its_nearest_and_every_pair_is_found(
    noise: float, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW_PAIRS", few)
    monkeypatch.setattr(module, "_WIDE", 100)
    monkeypatch.setattr(module, "_BLOCK", 1000)
    words = frames(600, 2, noise, 4)
    assert found(words, 10) == naive(words, 10)
    bits = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2, dtype=np.int64)
    bits[np.triu_indices(600)] = 999
    for start in (0, 300):
        row, distance = nearest_earlier(words, start, 24)
        least = bits[start:].min(axis=1)
        assert (row == np.where(least <= 24, bits[start:].argmin(axis=1), -1)).all()
        assert (distance == np.where(least <= 24, least, NEVER)).all()


def test_frames_that_are_all_alike_take_no_time_for_each_pair_of_them() -> None:
    import time

    words = frames(30_000, 1, 0.02, 5)
    began = time.process_time()
    row, distance = nearest_earlier(words, 0, 24)
    assert time.process_time() - began < 10, "listing their pairs would take a minute"
    assert (distance[1:] <= 24).all() and row[0] == -1
