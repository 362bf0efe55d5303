"""Automatic labels on scikit-learn's digits: how often the stated precision is missed, and gain.

Each split: 200 labels train logistic regression on the pixels, once as it is well regularised
(C=1) and once as it is far too sure of itself (C=10,000, probabilities raised to the power of 3);
200 others are the holdout, the remaining 1,397 are to be labelled. Ours labels from where the
holdout proves the stated precision; the peer labels from a confidence of .95 on, as is usual.

A split misses where what was labelled is less precise than stated. A loop's first model, as each is
here, is proved wrongly in at most one of forty splits over all that could be drawn; of 1,397 that
were drawn a few more fall below.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._rows import Row, arguments, report
from visionloop.labeling.auto.proof import Judged, miss_of, prove

LABELS = HOLDOUT = 200
PEER = "confidence of .95"
MODELS = {"calibrated": (1.0, 1.0), "too sure": (10_000.0, 3.0)}


@dataclass(frozen=True)
class Outcome:
    """What became of one split.

    Attributes:
        labelled: Share of the pool that got a label.
        precision: Share of those that are right; 1 where there are none.
    """

    labelled: float
    precision: float


def outcomes(seed: int, model: str, precision: float) -> tuple[Outcome, Outcome]:
    """Return what ours and the peer make of one split.

    Args:
        seed: Of the split.
        model: One of `MODELS`.
        precision: The stated precision.
    """
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(y))
    train, holdout, pool = np.split(order, [LABELS, LABELS + HOLDOUT])
    strength, power = MODELS[model]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # C=10,000 does not converge, which is the point
        fitted = LogisticRegression(C=strength, max_iter=300).fit(x[train] / 16, y[train])

    def said(rows: Any) -> tuple[Any, Any]:
        probabilities = fitted.predict_proba(x[rows] / 16) ** power
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return fitted.classes_[probabilities.argmax(axis=1)], probabilities.max(axis=1)

    labels, sure = said(holdout)
    judged = [
        Judged(str(label), float(c), bool(label == truth))
        for label, c, truth in zip(labels, sure, y[holdout], strict=True)
    ]
    labels, sure = said(pool)
    proof = prove(judged, sure.tolist(), precision, miss_of(1))
    ours = [proof.admits(str(label), float(c)) for label, c in zip(labels, sure, strict=True)]
    right = labels == y[pool]
    return _outcome(np.array(ours), right), _outcome(sure >= 0.95, right)


def _outcome(taken: Any, right: Any) -> Outcome:
    return Outcome(float(taken.mean()), float(right[taken].mean()) if taken.any() else 1.0)


def rows_of(model: str, precision: float, splits: int) -> list[Row]:
    """Return what is measured of a model over splits."""
    found = [outcomes(seed, model, precision) for seed in range(splits)]
    ours, peer = ([pair[i] for pair in found] for i in (0, 1))
    case = f"{model} model, {precision:g} stated, {splits} splits"

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    def missed(of: list[Outcome]) -> float:
        return mean([one.precision < precision for one in of])

    def labelled(of: list[Outcome]) -> float:
        return mean([one.labelled for one in of])

    def right(of: list[Outcome]) -> float:
        return mean([one.precision for one in of])

    return [
        Row(f"{case}: splits below it", missed(ours), PEER, missed(peer), "of 1"),
        Row(f"{case}: precision", right(ours), PEER, right(peer), "of 1", None, False),
        Row(f"{case}: labels saved", labelled(ours), PEER, labelled(peer), "of 1", None, False),
    ]


def main() -> None:
    """Run the benchmark."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--splits", type=int, default=200, help="splits (default: 200)")

    options = arguments(__doc__, more)
    splits = min(options.splits, 20) if options.quick else options.splits
    rows = [
        row
        for model in MODELS
        for precision in (0.9, 0.95, 0.98)
        for row in rows_of(model, precision, splits)
    ]
    report("auto_labels", rows, as_json=options.json)


if __name__ == "__main__":
    main()
