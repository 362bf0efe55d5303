"""Active learning on scikit-learn's digits: one protocol for every strategy, run by the engine.

1,200 images in the pool and 597 to test on, stratified, split anew by each seed; logistic
regression (C=10) on the pixels over 16; batches of 10, or one request from each budget to the
next. What needs a model starts from the same 10 images drawn at random, k-center from one. No
random share: it serves unbiased estimates, not accuracy.

Embeddings of the engine have length 1. Two spaces hold the pixels: `directions` scales each image
to length 1; `pixels` lays them on a sphere thirty times as wide as they are long (one dimension
more), which is nearly flat, so that distances are those of the pixels within 1%, in another unit.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 10
CLASSES = 10
FLATNESS = 30.0  # radius of the sphere over the length of the longest image


@dataclass(frozen=True)
class Split:
    """The digits of one seed.

    Attributes:
        sample_ids: Of the pool's rows.
        embeddings: float32 [1200, 64 or 65] by space, of length 1.
        x: float32 [1200, 64], the pool.
        y: int64 [1200], its classes.
        x_test: float32 [597, 64].
        y_test: int64 [597].
    """

    sample_ids: tuple[str, ...]
    embeddings: Mapping[str, NDArray[np.float32]]
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


@cache
def split(seed: int) -> Split:
    """Return the split of a seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    rows, test = train_test_split(
        np.arange(len(y)), train_size=1200, test_size=597, stratify=y, random_state=seed
    )
    names = tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in x[rows])
    pool = x[rows].astype(np.float64)
    lengths = np.linalg.norm(pool, axis=1)
    radius = FLATNESS * lengths.max()
    sphere = np.column_stack([pool, np.sqrt(radius**2 - lengths**2)]) / radius
    embeddings = {
        "directions": (pool / lengths[:, None]).astype(np.float32),
        "pixels": sphere.astype(np.float32),
    }
    return Split(names, embeddings, x[rows], y[rows], x[test], y[test])


def accuracies(
    config: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    budgets: Sequence[int],
    drawn: int,
    at_once: bool = False,
) -> NDArray[np.float64]:
    """Return the accuracy at each budget of labels, float64 [seeds, budgets].

    Args:
        config: The selection's configuration; its random share is set to 0.
        seeds: Of the split, of the first batch where it is drawn, and of the engine.
        budgets: Multiples of 10, ascending.
        drawn: How many images are drawn at random at first, 0 to 10; the others are chosen.
        at_once: Ask once for all that is missing to the next budget, not for 10 at a time.
    """
    return np.array(
        [curve(config, seed=s, budgets=budgets, drawn=drawn, at_once=at_once) for s in seeds]
    )


def requests(budgets: Sequence[int], *, at_once: bool) -> list[int]:
    """Return after how many labels a model is trained and more are asked for, ascending."""
    return list(budgets) if at_once else list(range(BATCH, max(budgets) + 1, BATCH))


def curve(
    config: Mapping[str, Any],
    *,
    seed: int,
    budgets: Sequence[int],
    drawn: int,
    at_once: bool = False,
) -> list[float]:
    """Return the accuracy at each budget of labels of one seed; see `accuracies`."""
    from visionloop.selection.config import parse_selection_config
    from visionloop.selection.engine import select
    from visionloop.selection.pool import Pool, Reference

    data = split(seed)
    place = {name: i for i, name in enumerate(data.sample_ids)}
    # On the sphere different images lie closer to each other than near duplicates elsewhere.
    unlike = {"duplicate_distance": 0.0, "random_share": 0.0, "space": "directions"}
    wanted = parse_selection_config({**unlike, **config})
    chosen: list[int] = []
    rng = np.random.default_rng(seed)
    if drawn == 1:
        chosen = [int(rng.integers(len(data.x)))]
    elif drawn:
        chosen = [int(row) for row in rng.choice(len(data.x), drawn, replace=False)]
    accuracy = []
    probabilities: NDArray[np.float32] | None = None
    for labels in requests(budgets, at_once=at_once):
        if len(chosen) < labels:
            selection = select(
                Pool.build(
                    data.sample_ids,
                    embeddings=data.embeddings,
                    probabilities=probabilities,
                    classes=[str(c) for c in range(CLASSES)],
                ),
                wanted,
                labels - len(chosen),
                labelled=Reference.build(
                    [data.sample_ids[i] for i in chosen],
                    embeddings={name: x[chosen] for name, x in data.embeddings.items()},
                ),
                n_classes=CLASSES,
                seed=1000 * seed + len(chosen),
            )
            chosen += [place[s] for s in selection.sample_ids]
        model = _fit(data, chosen)
        if labels in budgets:
            accuracy.append(float(model.score(data.x_test, data.y_test)))
        probabilities = np.zeros((len(data.x), CLASSES), dtype=np.float32)
        probabilities[:, model.classes_] = model.predict_proba(data.x)
    return accuracy


def _fit(data: Split, rows: Sequence[int]) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 300 steps do not always converge; all alike
        return LogisticRegression(C=10, max_iter=300).fit(data.x[list(rows)], data.y[list(rows)])
