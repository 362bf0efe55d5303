"""What selection is for: fewer labels for the same accuracy, on scikit-learn's real digits.

A short form of `python -m benchmarks.active_learning`: the same protocol with fewer seeds.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._digits import requests, split
from benchmarks.active_learning import (
    REFERENCE,
    STRATEGIES,
    default_rows,
    measured,
    reference_rows,
)

BUDGETS = (10, 20, 30, 50, 100)
SEEDS = range(4)
NAMES = ("random", "margin", "k-center", "TypiClust")
# Three standard errors of the mean of four seeds: one seed's accuracies vary by two thirds of this.
ALLOWED = (0.11, 0.09, 0.075, 0.05, 0.025)


@pytest.fixture(scope="module")
def curves() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return measured(SEEDS, BUDGETS, NAMES)


@pytest.mark.slow
def test_the_default_learns_more_from_every_budget_than_random(
    curves: tuple[dict[str, np.ndarray], np.ndarray],
) -> None:
    single, auto = curves
    gain = auto.mean(axis=0) - single["random"].mean(axis=0)
    assert (gain > [0.15, 0.10, 0.07, 0.04, 0.015]).all(), gain


@pytest.mark.slow
def test_the_default_is_no_worse_than_the_best_single_strategy_at_any_budget(
    curves: tuple[dict[str, np.ndarray], np.ndarray],
) -> None:
    single, auto = curves
    rows = [row for row in default_rows(auto, single, BUDGETS) if "best single" in row.peer_name]
    assert [row.holds for row in rows] == [True] * len(BUDGETS), rows
    assert {row.peer_name for row in rows} >= {"best single: TypiClust"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_alone_learns_what_its_authors_rule_does(
    curves: tuple[dict[str, np.ndarray], np.ndarray], name: str
) -> None:
    far = np.abs(curves[0][name].mean(axis=0) - REFERENCE[name][: len(BUDGETS)])
    assert (far < ALLOWED).all(), far


def test_the_flat_space_keeps_the_distances_of_the_pixels() -> None:
    data = split(0)
    i, j = np.random.default_rng(0).integers(0, len(data.x), (2, 2000))
    true = np.linalg.norm(data.x[i] - data.x[j], axis=1)
    flat = data.embeddings["pixels"].astype(np.float64)
    mine = np.linalg.norm(flat[i] - flat[j], axis=1)
    apart = true > 0
    unit = mine[apart] / true[apart]
    assert unit.max() / unit.min() < 1.01


def test_a_mean_far_from_the_reference_misses_the_goal() -> None:
    near = np.add.outer([0.01, -0.01, 0.005, -0.005], REFERENCE["margin"])
    budgets = (10, 20, 30, 50, 100, 200, 400)
    far = near.copy()
    far[:, 3] += 0.02
    for curve, holds in ((near, True), (far, False)):
        rows = reference_rows({"margin": curve}, budgets, 2.0)
        assert [row.holds for row in rows if row.holds is not None] == [holds]
    assert set(REFERENCE) == set(STRATEGIES) - {"TypiClust in batches"}


def test_labels_are_asked_for_in_batches_or_from_each_budget_to_the_next() -> None:
    assert requests((10, 30, 50), at_once=False) == [10, 20, 30, 40, 50]
    assert requests((10, 30, 50), at_once=True) == [10, 30, 50]
