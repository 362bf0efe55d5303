"""How good a model is on the frozen holdout: overall, by class and by slice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.corrections import holm, simultaneous_level
from visionloop.monitoring.differences import Interval
from visionloop.monitoring.intervals import wilson
from visionloop.training.reliability import brier_score, calibration_interval, reliability_table

# A text column with more values than this is an identifier, not a slice.
MAX_VALUES = 20
# Numbers are cut into quarters where each quarter has so many samples, else into halves.
QUARTER_SAMPLES = 20
MISSING = "(none)"


@dataclass(frozen=True)
class Evaluation:
    """Measures of one model on n samples.

    Attributes:
        n: Number of samples.
        accuracy: Share that is right; so are low and high, its 95% Wilson interval.
        low: See accuracy.
        high: See accuracy.
        macro_f1: Mean over the classes that occur in the truth of their F1.
        calibration: Expected calibration error of the confidence, with its 95% interval.
        brier: Brier score of the probabilities, with its 95% interval.
        reliability: Share right in each tenth of confidence, from `reliability_table`.
        classes: Their names, in the order of `confusion` and `per_class`.
        per_class: ``{class, n, predicted, precision, recall, f1}`` each; a precision or recall of
            nothing is 0.
        confusion: Counts, rows true and columns predicted, square.
    """

    n: int
    accuracy: float
    low: float
    high: float
    macro_f1: float
    calibration: Interval
    brier: Interval
    reliability: list[dict[str, Any]]
    classes: list[str]
    per_class: list[dict[str, Any]]
    confusion: list[list[int]]

    def metrics(self) -> dict[str, Any]:
        """Return what the table `experiments` keeps in its column `metrics`; all are finite."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_low": self.low,
            "accuracy_high": self.high,
            "macro_f1": self.macro_f1,
            "ece": self.calibration.value,
            "ece_low": self.calibration.low,
            "ece_high": self.calibration.high,
            "brier": self.brier.value,
            "brier_low": self.brier.low,
            "brier_high": self.brier.high,
            "reliability": self.reliability,
            "per_class": self.per_class,
        }


class Measured(NamedTuple):
    """One experiment with what was measured of its model.

    Attributes:
        row: Its row of `experiments`.
        evaluation: Measures on the holdout; None where it has no labels.
        slices: What `slice_rates` gave.
        probabilities: What the model answered, float32 [n, C] in the order of its own classes;
            None where there was nothing to ask it.
        sample_ids: The n samples.
    """

    row: dict[str, Any]
    evaluation: Evaluation | None
    slices: list[dict[str, Any]]
    probabilities: NDArray[np.float32] | None = None
    sample_ids: Sequence[str] = ()


def evaluate_predictions(
    probabilities: NDArray[np.float32],
    truth: Sequence[str],
    *,
    model_classes: Sequence[str],
    classes: Sequence[str],
) -> Evaluation:
    """Measure predictions against labels.

    Args:
        probabilities: float32 [n, C] in the order of `model_classes`, n at least 1.
        truth: The n labels, each one of `classes`.
        model_classes: The model's classes; it may lack some.
        classes: All classes, in the order of the confusion matrix; the model's are among them.
    """
    n = len(truth)
    number = {name: i for i, name in enumerate(classes)}
    to_all = np.array([number[name] for name in model_classes], dtype=np.intp)
    true = np.array([number[label] for label in truth], dtype=np.intp)
    predicted = to_all[probabilities.argmax(axis=1)]
    right, sure = predicted == true, probabilities.max(axis=1)
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (true, predicted), 1)
    rate = wilson(int(right.sum()), n)
    per_class = []
    for i, name in enumerate(classes):
        hits, is_class, said = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        per_class.append(
            {
                "class": name,
                "n": is_class,
                "predicted": said,
                "precision": hits / said if said else 0.0,
                "recall": hits / is_class if is_class else 0.0,
                "f1": 2 * hits / (said + is_class) if said + is_class else 0.0,
            }
        )
    return Evaluation(
        n,
        rate.value,
        rate.low,
        rate.high,
        float(np.mean([row["f1"] for row in per_class if row["n"]])),
        calibration_interval(sure, right),
        brier_score(probabilities, truth, model_classes),
        reliability_table(sure, right),
        list(classes),
        per_class,
        counts.tolist(),
    )


def slice_rates(
    columns: Mapping[str, Sequence[Any]], right: NDArray[np.bool_], *, small_below: int = 30
) -> list[dict[str, Any]]:
    """Return accuracy by slice of each column, with intervals and tests for as many as there are.

    Text and truth values make a slice each, where there are at most 20; numbers are cut at their
    quartiles, or at the median where a quarter would have fewer than 20 samples. A column with a
    single slice, of times, or of too many texts is left out.

    The Wilson intervals hold together at 95% (Sidak). A slice is worse than the rest of its column
    where Fisher's exact test says so at 5% after Holm's correction for all slices that are tested;
    smaller ones are not tested, which is no statement that they are as good.

    Args:
        columns: The n values of each metadata column; None where a sample has none.
        right: bool [n], whether each sample was predicted rightly.
        small_below: Samples below which a slice is too small to say.

    Returns:
        ``{column, value, n, accuracy, low, high, p, worse}`` each, in the order of columns and
        values; p (corrected) and worse are None where the slice is too small.
    """
    found: list[dict[str, Any]] = []
    for column in sorted(columns):
        names = slice_names(columns[column])
        if names is None or len(set(names)) < 2:
            continue
        array = np.array(names, dtype=object)
        for name in dict.fromkeys(sorted(names, key=_slice_order)):
            rows = array == name
            found.append({"column": column, "value": name, "n": int(rows.sum()),
                          "right": int(right[rows].sum())})  # fmt: skip
    level = simultaneous_level(0.95, len(found))
    tested = [row for row in found if row["n"] >= small_below and row["n"] < len(right)]
    p_values = holm([_as_bad_by_chance(row["right"], row["n"], right) for row in tested])
    corrected = {id(row): p for row, p in zip(tested, p_values, strict=True)}
    told = []
    for row in found:
        rate, p = wilson(row["right"], row["n"], level=level), corrected.get(id(row))
        told.append(
            {
                "column": row["column"],
                "value": row["value"],
                "n": rate.n,
                "accuracy": rate.value,
                "low": rate.low,
                "high": rate.high,
                "p": p,
                "worse": None if p is None else p < 0.05,
            }
        )
    return told


def _as_bad_by_chance(hits: int, n: int, right: NDArray[np.bool_]) -> float:
    """Return the probability of as few hits among n of the samples: Fisher's test, one-sided."""
    from scipy.stats import hypergeom

    return float(min(1.0, hypergeom.cdf(hits, len(right), int(right.sum()), n)))


def slice_names(values: Sequence[Any]) -> list[str] | None:
    """Return the slice that each value belongs to; None where the column cannot be sliced."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(isinstance(value, (bool, str)) for value in known):
        if len(set(known)) > MAX_VALUES:
            return None
        return [MISSING if value is None else _said(value) for value in values]
    if not all(isinstance(value, (int, float)) for value in known):
        return None
    numbers = np.array([float(value) for value in known])
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    if len(set(numbers.tolist())) <= 4:
        return [MISSING if not _finite(value) else f"{float(value):g}" for value in values]
    shares = [0.25, 0.5, 0.75] if len(numbers) >= 4 * QUARTER_SAMPLES else [0.5]
    edges = np.unique(np.quantile(numbers, shares))
    names = [f"below {edges[0]:.4g}"]
    names += [f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(edges)]
    names.append(f"{edges[-1]:.4g} and above")
    # The place in front keeps slices in the order of their numbers.
    names = [f"{i + 1}: {name}" for i, name in enumerate(names)]
    return [
        names[int(np.searchsorted(edges, float(value), side="right"))]
        if _finite(value)
        else MISSING
        for value in values
    ]


def _said(value: Any) -> str:
    """Return a text as a slice is named; one that is spelt as what is missing stands in quotes."""
    text = str(value)
    return f'"{text}"' if text == MISSING else text


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(float(value))


def _slice_order(name: str) -> tuple[bool, float, str]:
    try:
        return (name == MISSING, float(name), name)
    except ValueError:
        return (name == MISSING, math.inf, name)
