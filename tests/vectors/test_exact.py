"""Distances are the same however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.vectors.exact import (
    nearest_exactly,
    product_error,
    squared_between,
    squared_norms,
)


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(n=st.integers(1, 60), m=st.integers(0, 60), d=st.integers(1, 40), seed=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_the_nearest_is_the_nearest_in_float64(n: int, m: int, d: int, seed: int) -> None:
    a, b = vectors(n, d, seed), vectors(m, d, seed + 100)
    who, squared = nearest_exactly(a, b)
    if not m:
        assert (who == -1).all() and np.isinf(squared).all()
        return
    plain = ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=2).astype(np.float32)
    np.testing.assert_array_equal(who, plain.argmin(axis=1))
    np.testing.assert_array_equal(squared, plain.min(axis=1))


def test_equal_rows_are_at_distance_zero_and_the_first_of_them_is_nearest() -> None:
    x = np.repeat(vectors(5, 512), 3, axis=0)
    who, squared = nearest_exactly(x, x)
    assert who.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12, 12]
    assert (squared == 0).all()


def test_a_distance_does_not_depend_on_what_else_is_computed_with_it() -> None:
    a, b = vectors(10_000, 513), vectors(10_000, 513, seed=1)
    together = squared_between(a, b)
    alone = np.concatenate(
        [squared_between(a[i : i + 1], b[i : i + 1]) for i in range(0, 10_000, 7)]
    )
    np.testing.assert_array_equal(together[::7], alone)
    to_one = squared_between(a, b[3])
    np.testing.assert_array_equal(to_one[3:4], together[3:4])


@pytest.mark.parametrize("d", [2, 64, 512, 2048])
def test_a_product_is_never_off_by_more_than_its_error_bound(d: int) -> None:
    a, b = vectors(200, d), vectors(200, d, seed=1)
    b[:50] = a[:50]  # the difference of nearly equal numbers loses the most
    product = squared_norms(a) + squared_norms(b) - 2 * np.einsum("ij,ij->i", a, b)
    true = ((a.astype(np.float64) - b) ** 2).sum(axis=1)
    off = np.abs(product - true).max()
    assert off <= product_error(d, max(squared_norms(a).max(), squared_norms(b).max()))
    assert off > 0
