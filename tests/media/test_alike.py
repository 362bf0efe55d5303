"""What hangs together through near duplicates is found whole, also where nearly all pairs are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.media.frames import frames
from visionloop.media import alike as module
from visionloop.media.alike import alike, joined

Words = NDArray[np.uint64]


def naive(words: Words, within: int) -> list[int]:
    """Return the first row of what each hangs together with, by looking at every pair."""
    near = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2, dtype=np.int64) <= within
    first = np.arange(len(words))
    while True:
        lower = np.where(near, first[None, :], len(words)).min(axis=1, initial=len(words))
        if (lower == first).all():
            return [int(one) for one in first]
        first = lower


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 150),
    cameras=st.sampled_from([1, 3, 20, 150]),
    noise=st.sampled_from([0.0, 0.05, 0.1, 0.15, 0.2, 0.4]),
    within=st.sampled_from([0, 1, 6, 10, 16]),
    crowd=st.sampled_from([0, 5, 50]),
    seed=st.integers(0, 1000),
)
def test_what_hangs_together_is_what_looking_at_every_pair_finds(
    n: int, cameras: int, noise: float, within: int, crowd: int, seed: int
) -> None:
    words = frames(n, cameras, noise, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", 0)
        patch.setattr(module, "_CROWD", crowd)
        patch.setattr(module, "_DRAWN", 20)
        patch.setattr(module, "_MEMBERS", 3)
        patch.setattr(module, "_WIDE", 7)
        patch.setattr(module, "_PAIRS", 10)
        assert alike(words, within).tolist() == naive(words, within)


def test_what_several_things_tie_together_is_one() -> None:
    by_group, by_picture = np.array([0, 1, 0, 3, 4, 4]), np.array([0, 1, 2, 2, 1, 5])
    assert joined(by_group, by_picture).tolist() == [0, 1, 0, 0, 1, 1]
    assert joined(np.zeros(0, np.intp)).tolist() == []


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_frames_of_a_camera_that_stands_still_are_not_compared_with_each_other(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    less_one = module.less_one

    def counted(left: Words, right: Words) -> NDArray[np.uint8]:
        nonlocal compared
        compared += len(left) * len(right)
        return less_one(left, right)

    monkeypatch.setattr(module, "less_one", counted)
    n = 20_000
    first = alike(frames(n, 1, noise, 0), 10)
    assert np.bincount(first).max() > 0.99 * n
    assert compared < 200 * n
