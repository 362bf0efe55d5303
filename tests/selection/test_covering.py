"""ProbCover against its definition, written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.errors import InputError
from visionloop.selection.clusters import kmeans
from visionloop.selection.config import parse_selection_config
from visionloop.selection.covering import ProbCover, radius_of_purity
from visionloop.selection.engine import select
from visionloop.selection.pool import Pool, Reference


def blobs(n: int, k: int, d: int = 8, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(k, d))[rng.integers(k, size=n)] + spread * rng.normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def plain_probcover(x: np.ndarray, already: np.ndarray, radius: float, k: int) -> list[int]:
    everything = np.concatenate([x, already]).astype(np.float64)
    near = everything @ everything.T >= 1 - radius**2 / 2
    np.fill_diagonal(near, True)
    covered = near[:, len(x) :].any(axis=1)
    chosen: list[int] = []
    for _ in range(k):
        gain = [-1 if i in chosen else int((near[i] & ~covered).sum()) for i in range(len(x))]
        chosen.append(int(np.argmax(gain)))
        covered |= near[chosen[-1]]
    return chosen


@given(seed=st.integers(0, 50), labels=st.integers(0, 4), radius=st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=25, deadline=None)
def test_it_picks_who_covers_most_of_what_is_uncovered(
    seed: int, labels: int, radius: float
) -> None:
    x, already = blobs(80, 6, seed=seed), blobs(labels, 3, seed=seed + 100)
    line = {
        "input": {"type": "EMBEDDINGS"},
        "strategy": {"type": "PROBCOVER", "radius": radius},
    }
    config = parse_selection_config(
        {"strategies": [line], "random_share": 0, "duplicate_distance": 0}
    )
    names = [f"{i:04d}" for i in range(len(x))]
    labelled = Reference.build([f"z{i}" for i in range(labels)], embeddings={"e": already})
    selection = select(Pool.build(names, embeddings={"e": x}), config, 10, labelled=labelled)
    assert [int(s) for s in selection.sample_ids] == plain_probcover(x, already, radius, 10)


def test_the_share_that_is_covered_grows_to_one() -> None:
    x = blobs(60, 4)
    cover = ProbCover(x, x[:0], 0.6)
    shares = [cover.covered]
    for _ in range(60):
        cover.choose(int(cover.values().argmax()))
        shares.append(cover.covered)
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("purity", [0.8, 0.95])
def test_the_radius_is_the_largest_at_which_the_wanted_share_of_balls_is_pure(
    purity: float,
) -> None:
    x = blobs(300, 5, spread=0.5, seed=3)
    radius = radius_of_purity(x, 5, purity, seed=7)
    member = kmeans(x, 5, seed=7)
    distance = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=2)

    def pure(at: float) -> float:
        return float(
            np.mean([len(set(member[row <= at])) == 1 for row in distance])  # its own included
        )

    assert pure(radius) >= purity
    assert pure(radius + 1e-3) < purity + 1 / 300


def test_balls_that_hold_too_many_pairs_are_refused_before_they_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from visionloop.selection import covering

    monkeypatch.setattr(covering, "MOST_PAIRS", 500)
    x = blobs(200, 1, spread=0.1)
    with pytest.raises(InputError, match=r"about 20,\d+ pairs of 200 samples.*smaller `radius`"):
        ProbCover(x, x[:0], 1.3)
    ProbCover(x, x[:0], 1e-3)


def test_the_preset_needs_neither_a_radius_nor_a_model() -> None:
    x = blobs(100, 5)
    pool = Pool.build([f"{i:04d}" for i in range(100)], embeddings={"e": x}, classes=list("abcde"))
    selection = select(pool, parse_selection_config({"strategy": "probcover"}), 5)
    assert set(selection.strengths) == {"probcover"}
    assert selection.picks[0].objectives["probcover"] == 1.0
    radius = radius_of_purity(x, 5, 0.95, seed=0)
    assert [int(s) for s in selection.sample_ids] == plain_probcover(x, x[:0], radius, 5)
