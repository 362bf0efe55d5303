"""Label efficiency against random choice, and labels saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.monitoring.differences import rate_difference
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.data_models import (
    ArmPoint,
    Difference,
    Efficiency,
    ModelRow,
    Saved,
    ShareComparison,
)
from visionloop.monitoring.report.models import APART, Compared
from visionloop.monitoring.report.reading import Reader, array

# Fewer answers than this in one group say nothing about a difference of two shares.
ENOUGH = 10
# Accuracies that are drawn for an interval; the same seed, so that one version gives one report.
_DRAWS, _SEED = 1000, 0

Values = NDArray[np.float64]


def efficiency(reader: Reader, models: Sequence[ModelRow]) -> Efficiency:
    """Return how the loop stands against random choice.

    Args:
        reader: The lake.
        models: Every model, oldest first.
    """
    loop, random = newest_of_rounds(models, "loop"), newest_of_rounds(models, "random")
    compared = Compared(reader)
    differences = {}
    for round_id, other in random.items():
        mine = loop.get(round_id)
        if mine is not None:
            found = compared.difference(mine.model_id, mine.accuracy, other)
            if found is not None:
                differences[round_id] = found
    points, others = _points(loop), _points(random)
    return Efficiency(points, others, differences, saved(points, others), shares(reader))


def newest_of_rounds(models: Sequence[ModelRow], arm: str) -> dict[str, ModelRow]:
    """Return the newest model of an arm of each round.

    Args:
        models: Oldest first.
        arm: ``loop`` or ``random``.
    """
    return {row.round_id: row for row in models if row.arm == arm}


def _points(rows: dict[str, ModelRow]) -> tuple[ArmPoint, ...]:
    points = [
        ArmPoint(round_id, row.labels, row.accuracy)
        for round_id, row in rows.items()
        if row.accuracy is not None and row.labels
    ]
    return tuple(sorted(points, key=lambda point: (point.labels, point.round_id)))


def saved(loop: Sequence[ArmPoint], random: Sequence[ArmPoint]) -> Saved | None:
    """Return how many labels fewer the loop took than random choice to be as accurate.

    Both arms are compared at the highest accuracy that both have reached: at that of the random
    arm's last model where the loop has passed it, at that of the loop's last where it has not.
    Counted only where the loop is ahead, chance alone would save labels. A curve is the arm's
    accuracies as a function of labels that never falls (isotonic regression; Barlow et al.,
    Statistical Inference under Order Restrictions, 1972), interpolated in a straight line: the
    first of several crossings of a noisy curve comes too early.

    The 95% interval holds that number for accuracies drawn from what each evaluation leaves open
    (Jeffreys' posterior), of each model by itself: models that are measured on the same pictures
    are right and wrong together, so it is rather too wide. That another training on as many labels
    would give another model is not in it.

    Args:
        loop: Models of the loop, in ascending order of labels.
        random: Models of the random arm, likewise.
    """
    if not random or not loop:
        return None
    found = _gap(loop, random, _values(loop), _values(random))
    rng = np.random.Generator(np.random.PCG64(_SEED))
    drawn = [
        _gap(loop, random, mine, theirs)
        for mine, theirs in zip(_drawn(rng, loop), _drawn(rng, random), strict=True)
    ]
    least = float(np.quantile([gap.least for gap in drawn], 0.025, method="lower"))
    most = float(np.quantile([gap.most for gap in drawn], 0.975, method="higher"))
    level, mine, theirs = found.level, found.loop, found.random
    if found.early and found.random_early:
        reason = "both arms have too few models to compare their labels"
        return Saved(level, reason=reason)
    reason = ""
    if found.early:
        reason = (
            f"already the loop's first model, after {mine:,.0f} labels, is {level:.1%} accurate: "
            "it may have taken fewer"
        )
    elif found.random_early:
        reason = (
            f"already the first model of the random arm, after {theirs:,.0f} labels, is "
            f"{level:.1%} accurate: it may have taken fewer"
        )
    return Saved(
        level,
        theirs,
        mine,
        None if found.random_early or math.isinf(least) else round(least),
        None if found.early or math.isinf(most) else round(most),
        reason,
    )


@dataclass(frozen=True)
class _Gap:
    """After how many labels both arms reached a level; ``early`` where the first model had."""

    level: float
    loop: float
    random: float
    early: bool
    random_early: bool

    @property
    def least(self) -> float:
        return -math.inf if self.random_early else self.random - self.loop

    @property
    def most(self) -> float:
        return math.inf if self.early else self.random - self.loop


def _gap(
    loop: Sequence[ArmPoint], random: Sequence[ArmPoint], mine: Values, theirs: Values
) -> _Gap:
    curve, other = _rising(loop, mine), _rising(random, theirs)
    level = min(curve[-1], other[-1])
    return _Gap(
        float(level),
        _reached([point.labels for point in loop], curve, level),
        _reached([point.labels for point in random], other, level),
        bool(curve[0] >= level),
        bool(other[0] >= level),
    )


def _values(points: Sequence[ArmPoint]) -> Values:
    return np.array([point.accuracy.value for point in points])


def _drawn(rng: np.random.Generator, points: Sequence[ArmPoint]) -> Values:
    """Return accuracies that the evaluations leave open, float64 [draws, models]."""
    n = np.array([point.accuracy.n for point in points], dtype=np.float64)
    right = _values(points) * n
    return np.asarray(rng.beta(right + 0.5, n - right + 0.5, size=(_DRAWS, len(points))))


def _rising(points: Sequence[ArmPoint], values: Values) -> Values:
    """Return the closest accuracies that never fall, weighted by the pictures behind them."""
    from scipy.optimize import isotonic_regression

    weights = [max(1, point.accuracy.n) for point in points]
    return np.asarray(isotonic_regression(values, weights=weights).x)


def _reached(labels: Sequence[int], curve: Values, level: float) -> float:
    """Return after how many labels a rising curve, which ends at the level or above, reaches it."""
    i = int(np.argmax(curve >= level))
    if not i:
        return float(labels[0])
    part = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(labels[i - 1] + (labels[i] - labels[i - 1]) * part)


def shares(reader: Reader) -> tuple[ShareComparison, ...]:
    """Return how often models were wrong about what they chose and about the random share.

    The model is the one that the round chose by; the truth is the label that counts now.
    """
    picks = reader.selections.select(["round_id", "sample_id", "arm", "model_id", "objectives"])
    picks = picks.filter(pc.not_equal(pc.fill_null(picks["model_id"], ""), ""))
    if not picks.num_rows:
        return ()
    wanted = array(pc.unique(picks["sample_id"]))
    said: dict[tuple[str, str], str] = {}
    for batch in reader.batches("predictions", "sample_id", "model_id", "label"):
        mine = batch.filter(pc.is_in(batch["sample_id"].cast(pa.string()), value_set=wanted))
        for row in mine.to_pylist():
            if row["label"] is not None:
                said[row["sample_id"], row["model_id"]] = row["label"]
    known = reader.answers.filter(pc.is_in(reader.answers["sample_id"], value_set=wanted))
    truth = {
        row["sample_id"]: row["label"]
        for row in known.to_pylist()
        if row["label"] is not None and row["origin"] != "model"
    }
    counts: dict[str, dict[str, list[int]]] = {}
    for pick in picks.to_pylist():
        answer = said.get((pick["sample_id"], pick["model_id"]))
        label = truth.get(pick["sample_id"])
        if answer is None or label is None:
            continue
        # A batch that is drawn wholly at random compares random with random.
        arm = "random" if pick["arm"] == "random" else "chosen"
        if arm == "chosen" and not json.loads(pick["objectives"] or "{}"):
            continue
        for name in (pick["round_id"], ""):
            of = counts.setdefault(name, {"random": [0, 0], "chosen": [0, 0]})[arm]
            of[0] += answer != label
            of[1] += 1
    found = []
    for name in sorted(counts, key=lambda name: (name == "", name)):
        chosen, random = counts[name]["chosen"], counts[name]["random"]
        if not chosen[1] or not random[1]:
            continue
        difference = None
        if min(chosen[1], random[1]) >= ENOUGH:
            told = rate_difference(*chosen, *random)
            difference = Difference(told.value, told.low, told.high, told.n, method=APART)
        found.append(ShareComparison(name, wilson(*chosen), wilson(*random), difference))
    return tuple(found)
