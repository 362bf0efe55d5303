"""Confusion matrices of the slices that a model is worst at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionloop.training.evaluation import Evaluation, Measured, slice_names


@dataclass(frozen=True)
class SliceConfusion:
    """One slice of the holdout.

    Attributes:
        column: Name of the metadata column.
        value: Its value, or the range of it.
        n: Number of samples.
        accuracy: Share that is right, with the interval that `slice_rates` gave it.
        low: See accuracy.
        high: See accuracy.
        worse: Whether it is significantly below the rest of its column.
        classes: Names of the classes.
        counts: Rows true and columns predicted, square.
    """

    column: str
    value: str
    n: int
    accuracy: float
    low: float
    high: float
    worse: bool
    classes: list[str]
    counts: list[list[int]]

    @property
    def title(self) -> str:
        """The slice in words, with its accuracy."""
        share = f"{self.accuracy:.1%} right ({self.low:.1%} to {self.high:.1%})"
        worse = ", worse than the rest" if self.worse else ""
        return f"{self.column} = {self.value}: {share} of {self.n:,}{worse}"


def worst_slices(
    measured: Measured, labels: Mapping[str, str], columns: Mapping[str, Sequence[Any]], most: int
) -> list[SliceConfusion]:
    """Return the slices that a model is worst at, those that are significantly so first.

    Slices that are too small to say anything about are left out.

    Args:
        measured: The model, its answers and its slices.
        labels: Label of each of its samples.
        columns: Value of each metadata column of its samples, in their order.
        most: At most so many.
    """
    evaluation, answers = measured.evaluation, measured.probabilities
    if evaluation is None or answers is None:
        return []
    told = [row for row in measured.slices if row["p"] is not None]
    told.sort(key=lambda row: (not row["worse"], row["accuracy"], row["column"], row["value"]))
    number = {name: i for i, name in enumerate(evaluation.classes)}
    own = [number[name] for name in measured.row["classes"]]
    predicted = np.array(own, dtype=np.intp)[answers.argmax(axis=1)]
    true = np.array([number[labels[one]] for one in measured.sample_ids], dtype=np.intp)
    return [_confusion(row, evaluation, columns[row["column"]], true, predicted)
            for row in told[:most]]  # fmt: skip


def _confusion(
    row: Mapping[str, Any],
    evaluation: Evaluation,
    values: Sequence[Any],
    true: np.ndarray,
    predicted: np.ndarray,
) -> SliceConfusion:
    inside = np.array(slice_names(values), dtype=object) == row["value"]
    counts = np.zeros((len(evaluation.classes),) * 2, dtype=np.int64)
    np.add.at(counts, (true[inside], predicted[inside]), 1)
    return SliceConfusion(
        row["column"],
        row["value"],
        row["n"],
        row["accuracy"],
        row["low"],
        row["high"],
        bool(row["worse"]),
        list(evaluation.classes),
        counts.tolist(),
    )
