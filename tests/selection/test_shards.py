"""Selection in shards: within its bound, whatever their order, and exact where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.errors import InputError
from visionloop.selection.lazy import lazy_greedy
from visionloop.selection.shards import Candidates, farthest, merge, select_shard


def clustered(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, d))[rng.integers(12, size=n)] + 0.4 * rng.normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def names(n: int) -> list[str]:
    return [f"{i:05d}" for i in range(n)]


def radius_of(x: np.ndarray, centres: np.ndarray) -> float:
    squared = ((x[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)
    return float(np.sqrt(squared.min(axis=1).max()))


@given(
    n=st.integers(20, 400),
    number=st.integers(1, 6),
    k=st.integers(1, 20),
    more=st.integers(0, 20),
    labelled=st.integers(0, 3),
    seed=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_no_row_is_farther_than_the_bound_and_no_centres_are_better_than_the_least(
    n: int, number: int, k: int, more: int, labelled: int, seed: int
) -> None:
    x, ids, already = clustered(n, 6, seed), names(n), clustered(labelled, 6, seed + 1)
    shard_of = np.random.default_rng(seed).integers(number, size=n)
    shards = []
    for shard in np.unique(shard_of):
        rows = np.flatnonzero(shard_of == shard)
        mine = [ids[r] for r in rows]
        shards.append(select_shard(mine, x[rows], k + more, already=already))
        chosen = np.concatenate([already, shards[-1].x])
        assert radius_of(x[rows], chosen) <= shards[-1].radius + 1e-5
    merged = merge(shards, k, already=already)
    assert len(set(merged.sample_ids)) == min(k, n)
    centres = np.concatenate([already, x[[int(s) for s in merged.sample_ids]]])
    radius = radius_of(x, centres)
    assert radius <= merged.bound + 1e-5
    assert farthest(x, centres) == pytest.approx(radius, abs=5e-6)
    # Exact greedy is one choice of k centres: not better than the least, nor half of what we have.
    exact = lazy_greedy(
        x,
        already,
        k,
        score=lambda _, squared: np.where(np.isinf(squared), 9.0, squared.astype(np.float64)),
        accept=lambda _: True,
    )
    exact_radius = radius_of(x, np.concatenate([already, x[[row for row, _ in exact]]]))
    assert exact_radius >= merged.least - 1e-5
    assert radius <= 4 * exact_radius + 1e-5


def test_neither_the_order_of_shards_nor_of_rows_changes_the_picks() -> None:
    x, ids = clustered(900, 16), names(900)
    parts = np.array_split(np.random.default_rng(0).permutation(900), 4)

    def picks(order: list[int], turned: bool) -> tuple[tuple[str, ...], bytes]:
        shards = []
        for i in order:
            rows = parts[i][::-1] if turned else parts[i]
            shards.append(select_shard([ids[r] for r in rows], x[rows], 30))
        merged = merge(shards, 30)
        return merged.sample_ids, merged.distances.tobytes()

    assert picks([0, 1, 2, 3], False) == picks([2, 0, 3, 1], True)


def test_one_shard_gives_the_exact_picks() -> None:
    x, ids = clustered(700, 16), names(700)
    exact = lazy_greedy(
        x,
        x[:0],
        25,
        score=lambda _, squared: np.where(np.isinf(squared), 9.0, squared.astype(np.float64)),
        accept=lambda _: True,
    )
    merged = merge([select_shard(ids, x, 25)], 25)
    assert [int(s) for s in merged.sample_ids] == [row for row, _ in exact]
    assert merged.distances[0] == np.inf
    assert (np.diff(merged.distances[1:]) <= 0).all()


def test_a_device_gives_the_same_candidates() -> None:
    x, ids = clustered(700, 16), names(700)
    one, other = select_shard(ids, x, 25), select_shard(ids, x, 25, device="cpu")
    assert one.sample_ids == other.sample_ids and one.radius == other.radius


def test_shards_that_do_not_fit_are_refused_with_a_remedy() -> None:
    x = clustered(10, 4)
    few = Candidates(("a", "b"), x[:2], 0.5, 10)
    with pytest.raises(InputError, match="10 samples gave 2 candidates for 3 picks") as refusal:
        merge([few], 3)
    assert refusal.value.remedy
    with pytest.raises(InputError, match="1 samples come twice: a"):
        merge([few, Candidates(("a", "c"), x[2:4], 0.5, 2)], 2)
    with pytest.raises(InputError, match="no shards"):
        merge([], 3)
    with pytest.raises(InputError, match="3 samples came with 10"):
        select_shard(["a", "b", "c"], x, 2)


def test_a_shard_smaller_than_the_batch_gives_all_it_has() -> None:
    x = clustered(10, 4)
    small = select_shard(["a", "b"], x[:2], 5)
    assert set(small.sample_ids) == {"a", "b"} and small.radius == 0.0
    merged = merge([small, select_shard(names(8), x[2:], 5)], 5)
    assert len(merged.sample_ids) == 5
