"""Rows gathered from several matrices are what a copy of them would be."""

from __future__ import annotations

import numpy as np
import pytest

from visionloop.selection.clusters import kmeans
from visionloop.selection.lazy import lazy_greedy
from visionloop.selection.objectives import Diversity, local_typicality
from visionloop.vectors.exact import nearest_exactly, squared_norms
from visionloop.vectors.gathered import Gathered, below, dots


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def both() -> tuple[Gathered, np.ndarray]:
    pool, labelled = unit(500, 12, 0), unit(40, 12, 1)
    rows = np.sort(np.random.default_rng(2).permutation(500)[:350])
    gathered = below(Gathered((pool, rows)), labelled)
    assert isinstance(gathered, Gathered)
    return gathered, np.concatenate([pool[rows], labelled])


@pytest.mark.parametrize(
    "key", [3, 389, slice(0, 20), slice(340, 400), [1, 380, 2], np.array([[0, 389], [351, 7]]), []]
)
def test_rows_are_those_of_the_copy(both: tuple[Gathered, np.ndarray], key: object) -> None:
    gathered, copy = both
    np.testing.assert_array_equal(gathered[key], copy[key])  # type: ignore[index]
    assert gathered.shape == copy.shape and len(gathered) == len(copy)
    np.testing.assert_array_equal(np.asarray(gathered), copy)


def test_sums_over_rows_are_those_of_the_copy(both: tuple[Gathered, np.ndarray]) -> None:
    gathered, copy = both
    np.testing.assert_array_equal(squared_norms(gathered), squared_norms(copy))
    np.testing.assert_array_equal(dots(gathered, copy[0]), dots(copy, copy[0]))
    np.testing.assert_allclose(gathered @ copy[0], copy @ copy[0], atol=1e-6)


def test_selection_computes_the_same_on_both(both: tuple[Gathered, np.ndarray]) -> None:
    gathered, copy = both

    def score(_rows: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return squared.astype(np.float64)

    found, expected = (
        list(lazy_greedy(x, copy[:3], 60, score=score, accept=lambda _: True))
        for x in (gathered, copy)
    )
    assert found == expected
    member = kmeans(gathered, 9, seed=1)
    np.testing.assert_array_equal(member, kmeans(copy, 9, seed=1))
    np.testing.assert_array_equal(
        local_typicality(gathered, member, 9), local_typicality(copy, member, 9)
    )
    for x in (gathered, copy):
        np.testing.assert_array_equal(
            nearest_exactly(x, copy[:5])[1], nearest_exactly(copy, copy[:5])[1]
        )
    steps = [Diversity(x, copy[:2]) for x in (gathered, copy)]
    for one in steps:
        _ = one.squared
        one.choose(7)
    np.testing.assert_array_equal(steps[0].squared, steps[1].squared)
