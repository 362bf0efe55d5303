"""Every model with its numbers, and differences between models on one holdout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.corrections import simultaneous_level
from visionloop.monitoring.differences import (
    Interval,
    paired_difference,
    paired_p_value,
    rate_difference,
)
from visionloop.monitoring.intervals import Rate, wilson
from visionloop.monitoring.report.data_models import (
    Difference,
    ModelRow,
    ReliabilityBin,
    SliceRow,
)
from visionloop.monitoring.report.reading import Reader, array, content

PAIRED = "Tango's interval on the same pictures"
APART = "Newcombe's interval, as if each had its own pictures"


def model_rows(
    reader: Reader, n_holdout: int, thresholds: MonitoringConfig
) -> tuple[ModelRow, ...]:
    """Return every model, oldest first.

    Args:
        reader: The lake.
        n_holdout: Labelled holdout samples, for evaluations that did not record how many.
        thresholds: ``small_slice_below``.
    """
    compared = Compared(reader)
    gates: dict[str, dict[str, Any]] = {}
    for decision in reader.decisions:
        if decision["decision"] == "gate":
            gates[decision["subject"]] = decision
    rows: list[ModelRow] = []
    before: ModelRow | None = None
    for row in reader.experiments:
        metrics = content(row["metrics"])
        gate = gates.get(row["model_id"], {})
        accuracy = accuracy_of(metrics, n_holdout)
        loop = row["arm"] != "random"
        gained = None
        if loop and before is not None:
            gained = compared.difference(row["model_id"], accuracy, before)
        made = ModelRow(
            row["model_id"],
            reader.model_names[row["model_id"]],
            row["round_id"] or "",
            "loop" if loop else "random",
            row["state"] or "",
            int(row["n_labels"] or 0),
            accuracy,
            finite(metrics.get("macro_f1")),
            _measured("ece", metrics, accuracy),
            _measured("brier", metrics, accuracy),
            _bins(metrics),
            slice_rows(row["slices"], thresholds),
            gate.get("outcome") or "",
            gate.get("reason") or "",
            gained,
            row["trained_at"],
        )
        rows.append(made)
        if loop and accuracy is not None:
            before = made
    return tuple(rows)


def accuracy_of(metrics: Mapping[str, Any], n_holdout: int) -> Rate | None:
    """Return the accuracy that an evaluation recorded, None where there was none."""
    value = finite(metrics.get("accuracy"))
    if value is None:
        return None
    n = int(metrics.get("n", n_holdout))
    return wilson(min(n, max(0, round(value * n))), n) if n else None


def finite(value: Any) -> float | None:
    """Return a number, None for what is none or is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _measured(name: str, metrics: Mapping[str, Any], accuracy: Rate | None) -> Rate | None:
    """Return a measure of the answers to the holdout, with its interval where one is on record."""
    value = finite(metrics.get(name))
    if value is None:
        return None
    low, high = finite(metrics.get(f"{name}_low")), finite(metrics.get(f"{name}_high"))
    n = accuracy.n if accuracy else 0
    return Rate(value, value if low is None else low, value if high is None else high, n)


def _bins(metrics: Mapping[str, Any]) -> tuple[ReliabilityBin, ...]:
    bins = []
    for row in metrics.get("reliability") or ():
        n, right = int(row["n"]), finite(row["right"])
        rate = None
        if n and right is not None:
            rate = wilson(min(n, max(0, round(right * n))), n)
        bins.append(
            ReliabilityBin(float(row["from"]), float(row["to"]), n, finite(row["confidence"]), rate)
        )
    return tuple(bins)


def slice_rows(text: str | None, thresholds: MonitoringConfig) -> tuple[SliceRow, ...]:
    """Return the slices that an evaluation recorded.

    Args:
        text: Column ``slices`` of ``experiments``.
        thresholds: ``small_slice_below``.
    """
    rows = [
        row for row in content(text) or () if int(row["n"]) and finite(row["accuracy"]) is not None
    ]
    # So many intervals hold together at 95%.
    level = simultaneous_level(0.95, len(rows))
    found = []
    for row in rows:
        n = int(row["n"])
        right = min(n, max(0, round(float(row["accuracy"]) * n)))
        found.append(
            SliceRow(
                str(row["column"]),
                str(row["value"]),
                wilson(right, n, level=level),
                n < thresholds.small_slice_below,
                bool(row.get("worse")),
                len(rows) > 1,
            )
        )
    return tuple(found)


class Compared:
    """Differences of accuracies, sample by sample where both models answered on the holdout."""

    def __init__(self, reader: Reader) -> None:
        self._right: dict[str, dict[str, bool]] | None = None
        self._reader = reader
        # What evaluations counted: samples, those that only the first and only the second had.
        self._counted: dict[tuple[str, str], tuple[int, int, int]] = {}
        for row in reader.experiments:
            for pair in content(row["metrics"]).get("paired") or ():
                n, only, lost = (int(pair[name]) for name in ("n", "only_this", "only_that"))
                self._counted[row["model_id"], pair["model_id"]] = (n, only, lost)
                self._counted[pair["model_id"], row["model_id"]] = (n, lost, only)

    def right(self, model_id: str) -> dict[str, bool]:
        """Return on which labelled holdout samples a model is right."""
        if self._right is None:
            self._right = _right_on_holdout(self._reader)
        return self._right.get(model_id, {})

    def difference(
        self, model_id: str, accuracy: Rate | None, other: ModelRow
    ) -> Difference | None:
        """Return a model's accuracy less another's; None where one has none.

        Args:
            model_id: The model.
            accuracy: Its accuracy.
            other: The other.
        """
        if accuracy is None or other.accuracy is None:
            return None
        counted = self._counted.get((model_id, other.model_id))
        if counted is not None:
            n, only, lost = counted
            p = paired_p_value(only, lost)
            return _told(paired_difference(only, lost, n), PAIRED, paired=True, p=p)
        mine, theirs = self.right(model_id), self.right(other.model_id)
        both = mine.keys() & theirs.keys()
        # The two recorded accuracies are of the holdout of their time: where it grew since, or a
        # label was corrected, the same samples tell more.
        if both and len(both) >= 0.9 * max(accuracy.n, other.accuracy.n):
            only = sum(mine[s] and not theirs[s] for s in both)
            lost = sum(theirs[s] and not mine[s] for s in both)
            found = paired_difference(only, lost, len(both))
            return _told(found, PAIRED, paired=True, p=paired_p_value(only, lost))
        a, b = accuracy, other.accuracy
        found = rate_difference(round(a.value * a.n), a.n, round(b.value * b.n), b.n)
        return _told(found, APART)


def _told(
    found: Interval, method: str, *, paired: bool = False, p: float | None = None
) -> Difference:
    return Difference(found.value, found.low, found.high, found.n, paired, method, p)


def apart(right: int, n: int, other_right: int, other_n: int) -> Difference:
    """Return the difference of two rates of different samples.

    Args:
        right: Successes of the one.
        n: Its samples.
        other_right: Successes of the other.
        other_n: Its samples.
    """
    return _told(rate_difference(right, n, other_right, other_n), APART)


def _right_on_holdout(reader: Reader) -> dict[str, dict[str, bool]]:
    answers = reader.answers
    known = answers.filter(pc.is_valid(answers["label"]))
    inside = pc.is_in(known["sample_id"], value_set=reader.holdout)
    known = known.filter(inside)
    truth = array(known["label"])
    ids = array(known["sample_id"])
    rows = reader.holdout_predictions
    at = pc.index_in(array(rows["sample_id"]), value_set=ids)
    there = pc.and_(pc.is_valid(at), pc.is_valid(rows["label"]))
    rows = rows.append_column("at", at).filter(there)
    same = np.asarray(
        pc.equal(array(rows["label"]), truth.take(pa.array(rows["at"].combine_chunks())))
    )
    found: dict[str, dict[str, bool]] = {}
    for model, sample, right in zip(
        rows["model_id"].to_pylist(), rows["sample_id"].to_pylist(), same, strict=True
    ):
        found.setdefault(model, {})[sample] = bool(right)
    return found
