"""Of rows that are near each other the first stays, however many pairs of them there are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from visionloop.vectors import thinning
from visionloop.vectors.thinning import thinned


def cloud(n: int, d: int, centres: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(centres, d))[rng.integers(centres, size=n)]
    x = x + spread * rng.normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def by_definition(x: np.ndarray, cosine: float, always: int) -> np.ndarray:
    products = x.astype(np.float64) @ x.T.astype(np.float64)
    stays = np.zeros(len(x), dtype=bool)
    for row in range(len(x)):
        stays[row] = row < always or not (products[row, :row][stays[:row]] >= cosine).any()
    return stays


@pytest.mark.parametrize("always", [0, 150])
@pytest.mark.parametrize("most", [1 << 22, 1000])
def test_both_ways_keep_those_that_the_definition_keeps(
    monkeypatch: pytest.MonkeyPatch, most: int, always: int
) -> None:
    monkeypatch.setattr(thinning, "_PAIRS", most)
    monkeypatch.setattr(thinning, "_PAIRS_A_ROW", 0)
    monkeypatch.setattr(thinning, "_BLOCK", 100)
    x = cloud(900, 6, 40, 0.2)
    expected = by_definition(x, 0.98, always)
    assert 60 < expected.sum() < 700
    assert (thinned(x, 0.98, always=always) == expected).all()


def test_thousands_of_equal_rows_take_little_memory() -> None:
    x = np.tile(cloud(1, 16, 1, 0.1), (6000, 1))
    tracemalloc.start()
    stays = thinned(x, 0.995)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stays.tolist() == [True] + [False] * 5999
    assert peak < 250 << 20, "18 million pairs took 1 GiB"
