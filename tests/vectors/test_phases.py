"""Long work on vectors tells how far it is, whoever does it and however deep."""

from __future__ import annotations

import numpy as np
import pytest

from visionloop.selection.clusters import kmeans
from visionloop.selection.neighbours import copies_of
from visionloop.selection.objectives import local_typicality
from visionloop.vectors import phases
from visionloop.vectors.exact import nearest_exactly
from visionloop.vectors.knn import nearest_neighbours
from visionloop.vectors.pairs import near_pairs
from visionloop.vectors.phases import shown, steps


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "_PACE_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_only_the_outermost_loop_is_told_and_one_that_is_left_early_silences_nobody() -> None:
    told: list[tuple[str, float]] = []
    with shown(lambda name, share: told.append((name, share))):
        for outer in steps("outer", range(4)):
            for _ in steps("inner", range(3)):
                pass
            if outer == 2:
                break
        for _ in steps("after", iter("ab"), 2):
            pass
    list(steps("nobody listens", range(3)))
    assert told == [("outer", 0.25), ("outer", 0.5), ("after", 0.5), ("after", 1.0)]


@pytest.mark.usefixtures("at_once")
def test_everything_that_takes_long_before_the_first_pick_is_told() -> None:
    x = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    prints = np.random.default_rng(0).integers(1, 2**63, size=(400, 4)).astype(np.uint64)
    told: dict[str, list[float]] = {}
    with shown(lambda name, share: told.setdefault(name, []).append(share)):
        member = kmeans(x, 10, seed=0)
        local_typicality(x, member, 10)
        nearest_neighbours(x, 5, recall=1.0)
        near_pairs(x, 0.99)
        nearest_exactly(x, x[:9])
        copies_of(prints, prints, 3)
    names = {"first centres", "k-means", "nearest centres", "typicality", "neighbours"}
    assert set(told) == names | {"cells", "near pairs", "distances", "copies"}
    assert all(0 < share <= 1 for shares in told.values() for share in shares)
