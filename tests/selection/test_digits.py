"""What selection is for: fewer labels for the same accuracy, on scikit-learn's real digits.

A short form of `python -m benchmarks.selection`: same split, model and batches, fewer seeds.
"""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.pool import Pool, Reference

BUDGETS = (20, 50, 100)
SEEDS = 4
CLASSES = [str(c) for c in range(10)]


def curve(strategy: str, seed: int) -> list[float]:
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    rows, test = train_test_split(
        np.arange(len(y)), train_size=1200, test_size=597, stratify=y, random_state=seed
    )
    x_pool, y_pool = x[rows], y[rows]
    names = [hashlib.sha256(row.tobytes()).hexdigest() for row in x_pool]
    place = {name: i for i, name in enumerate(names)}
    config = parse_selection_config({"strategy": strategy})
    chosen: list[int] = []
    probabilities = None
    accuracy = []
    while len(chosen) < max(BUDGETS):
        pool = Pool.build(
            names, embeddings={"pixels": x_pool}, probabilities=probabilities, classes=CLASSES
        )
        labelled = Reference.build(
            [names[i] for i in chosen], embeddings={"pixels": x_pool[chosen]}
        )
        selection = select(pool, config, 10, labelled=labelled, seed=1000 * seed + len(chosen))
        chosen += [place[s] for s in selection.sample_ids]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegression(C=10, max_iter=300).fit(x_pool[chosen], y_pool[chosen])
        probabilities = np.zeros((len(rows), 10), dtype=np.float32)
        probabilities[:, model.classes_] = model.predict_proba(x_pool)
        if len(chosen) in BUDGETS:
            accuracy.append(float(model.score(x[test], y[test])))
    return accuracy


@pytest.fixture(scope="module")
def accuracy() -> dict[str, np.ndarray]:
    return {
        strategy: np.mean([curve(strategy, seed) for seed in range(SEEDS)], axis=0)
        for strategy in ("auto", "random")
    }


def test_the_default_learns_more_from_every_budget_than_random(
    accuracy: dict[str, np.ndarray],
) -> None:
    gain = accuracy["auto"] - accuracy["random"]
    assert gain[0] > 0.10, f"at 20 labels: {accuracy}"
    assert gain[1] > 0.04, f"at 50 labels: {accuracy}"
    assert gain[2] > 0.015, f"at 100 labels: {accuracy}"


def test_the_default_is_no_worse_than_the_best_known_single_strategy(
    accuracy: dict[str, np.ndarray],
) -> None:
    # TypiClust at 20 and 50, margin at 100, over 20 seeds; a tenth of each batch here is random.
    assert (accuracy["auto"] > np.array([0.825, 0.902, 0.927]) - 0.025).all(), accuracy
