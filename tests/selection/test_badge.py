"""BADGE against its definition: explicit gradients, and how often each candidate is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from visionloop.selection.badge import Badge
from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.greedy import greedy
from visionloop.selection.pool import Pool


def cases(n: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, features, and the gradients as the paper writes them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), size=n).astype(np.float32)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    error = p.astype(np.float64) - np.eye(3)[p.argmax(axis=1)]
    return p, x, np.einsum("ic,id->icd", error, x.astype(np.float64)).reshape(n, -1)


def test_the_values_are_squared_distances_of_the_explicit_gradients() -> None:
    p, x, gradients = cases()
    badge = Badge(p, x)
    lengths = (gradients**2).sum(axis=1)
    np.testing.assert_allclose(badge.values(), np.maximum(lengths / lengths.max(), 1e-6), atol=1e-5)
    assert not badge.noise().any(), "the first pick is the longest gradient, not a draw"
    chosen = [3, 7]
    for candidate in chosen:
        badge.choose(candidate)
    squared = ((gradients[:, None] - gradients[chosen]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(badge.values(), np.maximum(squared / squared.max(), 1e-6), atol=1e-5)


def test_later_picks_are_drawn_with_a_chance_proportional_to_the_squared_distance() -> None:
    p, x, gradients = cases(n=6)
    first = int((gradients**2).sum(axis=1).argmax())
    chance = ((gradients - gradients[first]) ** 2).sum(axis=1)
    chance /= chance.sum()
    rounds = 3000
    counts = np.zeros(6)
    everyone = np.ones(6, dtype=bool)
    for seed in range(rounds):
        picks, _ = greedy([Badge(p, x, seed=seed)], everyone, 2, accept=lambda _: True)
        assert picks[0].candidate == first
        counts[picks[1].candidate] += 1
    open_to = np.arange(6) != first
    expected = rounds * chance[open_to]
    chi2 = ((counts[open_to] - expected) ** 2 / expected).sum()
    assert chi2 < 18.5  # 0.1% of 4 degrees of freedom


def test_a_candidate_without_probabilities_is_neutral_and_told_as_unknown() -> None:
    p, x, _ = cases()
    p[2] = np.nan
    badge = Badge(p, x)
    assert not badge.known(2)
    known = np.delete(badge.values(), 2)
    assert badge.values()[2] == pytest.approx(np.median(known))


def test_the_preset_needs_a_model_and_says_when_there_is_none() -> None:
    p, x, _ = cases(30)
    names = [f"{i:04d}" for i in range(30)]
    config = parse_selection_config({"strategy": "badge", "random_share": 0})
    cold = select(Pool.build(names, embeddings={"e": x}), config, 5)
    assert cold.flags == ("cold_start",)
    pool = Pool.build(names, embeddings={"e": x}, probabilities=p, classes=list("abc"))
    warm = select(pool, config, 5, seed=1)
    assert set(warm.strengths) == {"badge"}
    assert all(0 < v <= 1 for pick in warm.picks for v in pick.objectives.values() if v)
    assert warm.sample_ids == select(pool, config, 5, seed=1).sample_ids
