"""Neighbours and near pairs against all pairs, on clustered, spread and degenerate rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from visionloop.vectors import knn
from visionloop.vectors.cells import cells_of, within_reach
from visionloop.vectors.knn import nearest_neighbours, smallest
from visionloop.vectors.pairs import near_pairs


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def spread(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Overlapping groups whose energy falls off like that of an image encoder's embeddings."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.8
    groups = rng.normal(size=(max(2, n // 50), d)) * scale
    return unit(groups[rng.integers(len(groups), size=n)] + 0.3 * rng.normal(size=(n, d)) * scale)


def with_copies(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Make a tenth of the rows noisy copies of others, some nearer than the threshold, some not."""
    rng = np.random.default_rng(seed)
    x, number = x.copy(), len(x) // 10
    rows = rng.permutation(len(x))[: 2 * number]
    noise = unit(rng.normal(size=(number, x.shape[1]))) * rng.uniform(0, 0.5, (number, 1))
    x[rows[:number]] = unit(x[rows[number:]] + noise)
    return x


def all_pairs(x: np.ndarray, cosine: float) -> list[tuple[int, int]]:
    likeness = x.astype(np.float64) @ x.astype(np.float64).T
    i, j = np.nonzero(np.triu(likeness >= cosine, 1))
    return list(zip(i.tolist(), j.tolist(), strict=True))


@given(
    n=st.integers(0, 200),
    d=st.sampled_from([1, 3, 40, 80]),
    cosine=st.sampled_from([0.2, 0.9, 0.97]),
    seed=st.integers(0, 30),
)
@settings(max_examples=80, deadline=None)
def test_near_pairs_are_those_of_all_pairs(n: int, d: int, cosine: float, seed: int) -> None:
    x = with_copies(spread(n, d, seed), seed) if n else np.zeros((0, d), np.float32)
    pairs = near_pairs(x, cosine)
    assert [tuple(p) for p in pairs.tolist()] == all_pairs(x, cosine)


@pytest.mark.parametrize("seed", [0, 7])
def test_near_pairs_of_many_rows_do_not_depend_on_the_cells(seed: int) -> None:
    x = with_copies(spread(5000, 128, seed=1))
    pairs = near_pairs(x, 0.97, seed=seed)
    expected = all_pairs(x, 0.97)
    assert len(expected) > 100
    assert [tuple(p) for p in pairs.tolist()] == expected


def test_rows_that_are_all_the_same_are_all_near() -> None:
    x = np.repeat(unit(np.ones((1, 8))), 40, axis=0)
    pairs = near_pairs(x, 0.97)
    assert len(pairs) == 40 * 39 // 2


def test_within_reach_brings_every_near_pair_once() -> None:
    x = spread(800, 16)
    cells = cells_of(x, 28)
    assert sorted(cells.order.tolist()) == list(range(800))
    brought = set()
    for cell, others in within_reach(x, cells, 0.5):
        for row in cells.rows(cell).tolist():
            for other in others.tolist():
                if cells.member[other] != cell or row < other:
                    pair = (min(row, other), max(row, other))
                    assert pair not in brought
                    brought.add(pair)
    distance = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=2)
    i, j = np.nonzero(np.triu(distance <= 0.5, 1))
    assert set(zip(i.tolist(), j.tolist(), strict=True)) <= brought
    assert len(brought) < 800 * 799 // 2


@given(m=st.integers(1, 8), n=st.integers(1, 700), k=st.integers(1, 25), seed=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_the_smallest_values_of_a_row_are_found(m: int, n: int, k: int, seed: int) -> None:
    k = min(k, n)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 50, size=(m, n)).astype(np.float32)
    columns = smallest(values, k)
    assert all(len(set(row)) == k for row in columns.tolist())
    got = np.sort(np.take_along_axis(values, columns, axis=1), axis=1)
    np.testing.assert_array_equal(got, np.sort(values, axis=1)[:, :k])


def true_neighbours(x: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    x64 = x.astype(np.float64)
    squared = (x64**2).sum(axis=1)
    distance = squared[rows][:, None] + squared - 2 * x64[rows] @ x64.T
    distance = np.sqrt(np.maximum(distance, 0.0))
    distance[np.arange(len(rows)), rows] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (30, 7), (3, 7), (3000, 20)])
def test_of_few_rows_the_neighbours_are_exact(n: int, k: int) -> None:
    x = spread(n, 24)
    found = nearest_neighbours(x, k)
    k = min(k, n - 1)
    assert found.recall == 1.0 and found.rows.shape == (n, k)
    rows = np.arange(n)[:: max(1, n // 200)]
    expected, distance = true_neighbours(x, rows, k)
    np.testing.assert_array_equal(found.rows[rows], expected)
    np.testing.assert_allclose(found.distances[rows], distance, atol=1e-6)


def test_a_row_alone_has_no_neighbours() -> None:
    assert nearest_neighbours(spread(1, 4), 5).rows.shape == (1, 0)
    assert nearest_neighbours(np.zeros((0, 4), np.float32), 5).rows.shape == (0, 0)


def test_a_copy_is_a_neighbour_at_distance_zero() -> None:
    x = spread(100, 512)
    x[60] = x[3]
    found = nearest_neighbours(x, 4)
    assert found.rows[3, 0] == 60 and found.rows[60, 0] == 3
    assert found.distances[3, 0] == 0.0


def test_of_many_rows_the_recall_that_is_told_is_the_recall() -> None:
    x = spread(24_000, 32)
    found = nearest_neighbours(x, 20, recall=0.99)
    rows = np.random.default_rng(5).permutation(len(x))[:400]
    expected, _ = true_neighbours(x, rows, 20)
    got = found.rows[rows]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(expected, got, strict=True)]
    recall = float(np.mean(shared)) / 20
    assert found.compared < 0.5, "cells were searched, not all pairs"
    assert recall >= 0.985
    assert found.recall == pytest.approx(recall, abs=0.012)
    assert (found.rows != np.arange(len(x))[:, None]).all()
    # What was found is as far as it is said to be.
    exact = np.linalg.norm(x[found.rows[rows]].astype(np.float64) - x[rows][:, None], axis=2)
    np.testing.assert_allclose(found.distances[rows], exact, atol=1e-6)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_rows_in_cells_of_their_own_still_have_k_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(knn, "_ALL_PAIRS", 1000)
    rng = np.random.default_rng(0)
    x = np.repeat(unit(np.ones((1, 16))), 6000, axis=0)
    x[:6] = unit(rng.normal(size=(6, 16)))  # each is like nothing else
    found = nearest_neighbours(x, 20)
    assert found.compared < 1.0, "cells were searched, not all pairs"
    assert np.isfinite(found.distances).all() and (found.rows >= 0).all()
    assert found.distances[6:].max() == 0.0


def test_neighbours_and_pairs_are_the_same_with_one_thread_and_two() -> None:
    x = with_copies(spread(21_000, 96))
    answers = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found, pairs = nearest_neighbours(x, 10), near_pairs(x, 0.97)
        answers.append((found.rows.tobytes(), found.distances.tobytes(), pairs.tobytes()))
    assert answers[0] == answers[1]
