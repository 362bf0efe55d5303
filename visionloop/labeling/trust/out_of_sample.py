"""What a sample is by models that did not train on it, told from frozen embeddings.

Two experts look at each labelled sample, neither knowing its label: logistic regression that was
fitted on the other folds, and the labels of its nearest neighbours. How strongly the regression is
regularised, and how much the neighbours count, is what tells the given labels best (log loss).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
# Labels of a class that a fold must have trained on before it is asked about that class.
SEEN = 4
# Fewer labels teach no model that could doubt them.
LEAST_LABELS = 30
# Up to so many labels the folds are drawn several times, and the regularisation is chosen on all.
_SMALL = 4000
_REPEATS = 3
# Neighbours are looked for among so many labels at most.
_NEIGHBOURS_AMONG = 20_000
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NEAREST = (5, 10, 20)
_FLOOR = 1e-3  # a label that is wrong must not outweigh hundreds that are right


@dataclass(frozen=True)
class Linear:
    """A fitted logistic regression.

    Attributes:
        weights: float64 [C, d].
        offsets: float64 [C]; minus infinity for a class that it did not see.
    """

    weights: Floats
    offsets: Floats

    def probabilities(self, x: NDArray[np.float32]) -> Floats:
        """Return the probabilities of embeddings float32 [m, d], float64 [m, C]."""
        logits = x @ self.weights.T + self.offsets
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        return np.asarray(logits / logits.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class OutOfSample:
    """What models say of samples that they did not train on.

    Attributes:
        probabilities: float64 [n, C], of both experts together.
        linear: float64 [n, C], of the regression alone: comparable with `predict`.
        seen: bool [n], whether each sample's class was known to the models that were asked.
        models: The regressions of the folds.
        strength: The regression's C, the inverse of its regularisation.
        neighbours: How many neighbours are asked.
        share: How much they count.
    """

    probabilities: Floats
    linear: Floats
    seen: NDArray[np.bool_]
    models: tuple[Linear, ...]
    strength: float
    neighbours: int
    share: float

    def predict(self, x: NDArray[np.float32]) -> Floats:
        """Return the mean of the folds' regressions for embeddings of other samples, [m, C]."""
        total = self.models[0].probabilities(x)
        for model in self.models[1:]:
            total += model.probabilities(x)
        return total / len(self.models)


def cross_validate(
    x: NDArray[np.float32], y: Ints, n_classes: int, *, groups: Sequence[str] | None = None
) -> OutOfSample:
    """Return what each sample is by models that did not train on it, nor on others of its group.

    Deterministic. Folds are stratified. Of more than 4,000 samples the folds are drawn once instead
    of three times, and the regularisation is chosen on 4,000 of them.

    Args:
        x: float32 [n, d], embeddings; of length 1 for the regularisation to fit.
        y: int64 [n], their labels in 0 to C - 1.
        n_classes: C.
        groups: Group of each sample, whose samples are always on the same side; None where each
            stands for itself.

    Cost: about 25 fits of O(n·d·C) a step; neighbours O(n²·d), at most 20,000·n·d.
    """
    groups = _useful(groups)
    tried, chosen = _regularised(x, y, n_classes, groups)
    draws = [_draw(x, y, groups, seed) for seed in range(_REPEATS if len(y) <= _SMALL else 1)]
    fits = [
        tried if tried is not None and seed == 0 else _fitted(x, y, n_classes, folds, chosen)
        for seed, folds in enumerate(draws)
    ]
    linear = np.mean([p for p, _ in fits], axis=0)
    seen = np.ones(len(y), dtype=np.bool_)
    for folds in draws:
        for train, test in folds:
            seen[test] &= np.bincount(y[train], minlength=n_classes)[y[test]] >= SEEN
    best, probabilities = (_log_loss(linear, y), 0, 0.0), linear
    for number, by_labels in zip(NEAREST, neighbour_labels(x, y, n_classes, groups), strict=True):
        for share in _SHARES[1:]:
            mixed = (1 - share) * linear + share * by_labels
            loss = _log_loss(mixed, y)
            if loss < best[0]:
                best, probabilities = (loss, number, share), mixed
    models = tuple(model for _, own in fits for model in own)
    return OutOfSample(probabilities, linear, seen, models, chosen, best[1], best[2])


def neighbour_labels(
    x: NDArray[np.float32],
    y: Ints,
    n_classes: int,
    groups: Sequence[str] | None = None,
    *,
    of: NDArray[np.float32] | None = None,
) -> list[Floats]:
    """Return the shares of classes among each sample's 5, 10 and 20 nearest others.

    Args:
        x: float32 [n, d], of length 1: near is what has a large cosine.
        y: int64 [n].
        n_classes: C.
        groups: Of each sample; those of the same group are not asked.
        of: float32 [m, d], other samples that are asked about instead.

    Returns:
        float64 [n or m, C] for each number of neighbours.
    """
    rows = np.arange(len(y))
    if len(y) > _NEIGHBOURS_AMONG:
        rows = np.sort(np.random.default_rng(0).permutation(len(y))[:_NEIGHBOURS_AMONG])
    known = x[rows]
    number = _numbers(groups) if groups is not None else np.arange(len(y))
    asked = x if of is None else of
    most = min(max(NEAREST), len(rows) - 1)
    counts = [np.zeros((len(asked), n_classes)) for _ in NEAREST]
    for start in range(0, len(asked), 1024):
        block = asked[start : start + 1024]
        alike = block @ known.T
        if of is None:
            alike[number[start : start + len(block), None] == number[rows][None, :]] = -np.inf
        nearest = np.argpartition(-alike, most - 1, axis=1)[:, :most]
        order = np.argsort(np.take_along_axis(-alike, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        theirs = y[rows][nearest]
        real = np.isfinite(np.take_along_axis(alike, nearest, axis=1))
        for place, k in enumerate(NEAREST):
            for j in range(min(k, most)):
                into = counts[place][start : start + len(block)]
                into[np.arange(len(block)), theirs[:, j]] += real[:, j]
    return [_shares(found) for found in counts]


def _shares(counts: Floats) -> Floats:
    total = counts.sum(axis=1, keepdims=True)
    even = np.full_like(counts, 1 / counts.shape[1])  # nobody of another group is there to ask
    return np.asarray(np.divide(counts, total, out=even, where=total > 0))


def _regularised(
    x: NDArray[np.float32], y: Ints, n_classes: int, groups: Sequence[str] | None
) -> tuple[tuple[Floats, list[Linear]] | None, float]:
    """Return the regularisation that tells the labels best, with the fits of all of them."""
    whole = len(y) <= _SMALL
    rows = np.arange(len(y))
    if not whole:
        rows = np.sort(np.random.default_rng(0).permutation(len(y))[:_SMALL])
    some = None if groups is None else [groups[int(i)] for i in rows]
    folds = _draw(x[rows], y[rows], _useful(some), 0)
    best: tuple[float, float, tuple[Floats, list[Linear]]] | None = None
    for strength in _STRENGTHS:
        found = _fitted(x[rows], y[rows], n_classes, folds, strength)
        loss = _log_loss(found[0], y[rows])
        if best is not None and loss >= best[0]:
            break  # the loss has one valley
        best = (loss, strength, found)
    assert best is not None
    return (best[2] if whole else None), best[1]


def _fitted(
    x: NDArray[np.float32], y: Ints, n_classes: int, folds: list[Any], strength: float
) -> tuple[Floats, list[Linear]]:
    p = np.zeros((len(y), n_classes))
    models = []
    for train, test in folds:
        model = fit_linear(x[train], y[train], n_classes, strength)
        p[test] = model.probabilities(x[test])
        models.append(model)
    return p, models


def fit_linear(x: NDArray[np.float32], y: Ints, n_classes: int, strength: float) -> Linear:
    """Fit a multinomial logistic regression, L2-regularised.

    Args:
        x: float32 [n, d].
        y: int64 [n], of two classes at least.
        n_classes: C.
        strength: scikit-learn's C.
    """
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 steps tell as much as more
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x, y)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # it keeps one row for two classes
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weights = np.zeros((n_classes, x.shape[1]))
    offsets = np.full(n_classes, -np.inf)
    weights[model.classes_], offsets[model.classes_] = coefficients, intercepts
    return Linear(weights, offsets)


def _draw(x: NDArray[np.float32], y: Ints, groups: Sequence[str] | None, seed: int) -> list[Any]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer samples than folds; see `seen`
        if groups is None:
            most = int(np.bincount(y).max())
            drawn = StratifiedKFold(min(FOLDS, most), shuffle=True, random_state=seed)
            return list(drawn.split(x, y))
        folds = min(FOLDS, len(set(groups)))
        by_group = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        split = list(by_group.split(x, y, groups=_numbers(groups)))
    # Where one group is of one class, what is left may be of one class alone.
    return [(a, b) for a, b in split if len(np.unique(y[a])) > 1]


def _useful(groups: Sequence[str] | None) -> Sequence[str] | None:
    """Return groups that can be told apart and hold more than one sample; None without such."""
    if groups is None:
        return None
    number = len(set(groups))
    return groups if 1 < number < len(groups) else None


def _numbers(groups: Sequence[str]) -> Ints:
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _log_loss(p: Floats, y: Ints) -> float:
    return float(-np.log(np.clip(p[np.arange(len(y)), y], _FLOOR, 1.0)).mean())
