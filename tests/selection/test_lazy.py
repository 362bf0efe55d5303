"""The lazy greedy rule picks what the plain one picks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.selection.greedy import Picked, _lazily, _step_by_step
from visionloop.selection.lazy import lazy_greedy, radius
from visionloop.selection.objectives import Diversity, Fixed
from visionloop.vectors.exact import nearest_exactly


def clustered(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, n // 20), d))
    x = centres[rng.integers(len(centres), size=n)] + 0.3 * rng.normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


@given(
    n=st.integers(1, 300),
    n_labelled=st.integers(0, 5),
    strength=st.sampled_from([0.3, 1.0, 4.0]),
    refuse=st.integers(2, 50),
    minimum=st.sampled_from([None, 0.3, 0.8]),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_lazy_and_step_by_step_pick_the_same_for_the_same_reasons(
    n: int, n_labelled: int, strength: float, refuse: int, minimum: float | None, seed: int
) -> None:
    x, already = clustered(n, 8, seed), clustered(n_labelled, 8, seed + 1)
    rng = np.random.default_rng(seed)
    uncertainty = Fixed("margin", rng.random(n), 0.7, scale=1.0)
    allowed = rng.random(n) > 0.1
    k = min(n, 40)

    def accept(candidate: int) -> bool:
        return candidate % refuse != 1

    def diversity() -> Diversity:
        return Diversity(x, already, strength, minimum_distance=minimum)

    one, other = diversity(), diversity()
    lazy: list[Picked] = []
    plain: list[Picked] = []
    why = _lazily([uncertainty, one], one, allowed, k, accept, lazy.append)
    because = _step_by_step([uncertainty, other], [other], allowed, k, accept, plain.append)
    assert [p.candidate for p in lazy] == [p.candidate for p in plain]
    assert why == because
    for a, b in zip(lazy, plain, strict=True):
        assert a.values.keys() == b.values.keys()
        for name, value in a.values.items():
            assert value == pytest.approx(b.values[name], abs=1e-4)


@pytest.mark.parametrize("active", [1, 7, 64, 5000])
def test_any_size_of_the_active_set_gives_k_center(active: int) -> None:
    x = clustered(3000, 16, seed=3)
    distance = np.full(len(x), np.inf)
    plain = [0]
    for _ in range(99):
        new = 2 - 2 * x.astype(np.float64) @ x[plain[-1]].astype(np.float64)
        distance = np.minimum(distance, new)
        plain.append(int(distance.argmax()))

    def score(rows: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return np.where(np.isinf(squared), 9.0, squared.astype(np.float64))

    found = lazy_greedy(x, x[:0], 100, score=score, accept=lambda _: True, active=active)
    assert [row for row, _ in found] == plain


def test_equal_candidates_go_to_the_smallest_row_wherever_they_wait() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 50, axis=0)

    def score(rows: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return np.where(np.isinf(squared), 9.0, np.round(squared, 4).astype(np.float64))

    for active in (1, 3, 60, 200):
        found = lazy_greedy(x, x[:0], 6, score=score, accept=lambda _: True, active=active)
        assert [row for row, _ in found] == [0, 50, 100, 150, 1, 2]


@given(
    points=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=60),
    active=st.integers(1, 12),
    k=st.integers(1, 30),
)
@settings(max_examples=150, deadline=None)
def test_ties_are_broken_as_if_every_candidate_were_weighed(
    points: list[tuple[int, int]], active: int, k: int
) -> None:
    x = np.array(points, dtype=np.float32)  # distances of a grid are exact, and often equal

    def score(rows: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return np.where(np.isinf(squared), 99.0, squared.astype(np.float64))

    distance, plain = np.full(len(x), np.inf), []
    left = np.ones(len(x), dtype=bool)
    for _ in range(min(k, len(x))):
        plain.append(int(np.where(left, np.minimum(distance, 99), -1).argmax()))
        left[plain[-1]] = False
        distance = np.minimum(distance, ((x - x[plain[-1]]) ** 2).sum(axis=1))
    found = lazy_greedy(x, x[:0], k, score=score, accept=lambda _: True, active=active)
    assert [row for row, _ in found] == plain


def test_it_ends_when_nothing_is_left() -> None:
    x = clustered(20, 4, seed=0)

    def score(rows: np.ndarray, squared: np.ndarray) -> np.ndarray:
        total = np.where(np.isinf(squared), 9.0, squared.astype(np.float64))
        return np.where(rows >= 12, -np.inf, total)

    found = lazy_greedy(x, x[:0], 50, score=score, accept=lambda row: row != 5, active=4)
    rows = [row for row, _ in found]
    assert sorted(rows) == [row for row in range(12) if row != 5]
    assert list(lazy_greedy(x[:0], x[:0], 3, score=score, accept=lambda _: True)) == []


@given(n=st.integers(1, 400), m=st.integers(1, 400), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_the_radius_is_the_largest_distance_to_a_nearest_centre(n: int, m: int, seed: int) -> None:
    x, centres = clustered(n, 8, seed), clustered(m, 8, seed + 1)
    assert radius(x, centres) == float(np.sqrt(nearest_exactly(x, centres)[1].max()))
    assert radius(x, x) == 0.0
    assert radius(x, x[:0]) == np.inf
