"""Label efficiency against random choice, and labels saved."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

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
    """Return the labels that the loop saved to be as accurate as the random arm's last model.

    Accuracy between two rounds is interpolated in a straight line, and the loop is taken to have
    reached a level when it first did. Before its first model nothing is known of it.

    Args:
        loop: Models of the loop, in ascending order of labels.
        random: Models of the random arm, likewise.
    """
    if not random or not loop:
        return None
    last = random[-1]
    target = last.accuracy.value
    found = _reached([(p.labels, p.accuracy.value) for p in loop], target)
    low = _reached([(p.labels, p.accuracy.high) for p in loop], target)
    high = _reached([(p.labels, p.accuracy.low) for p in loop], target)
    reason = ""
    if found is None:
        reason = (
            f"the loop has not reached {target:.1%} yet, the accuracy of the random arm after "
            f"{last.labels:,} labels"
        )
    elif loop[0].accuracy.value >= target:
        reason = (
            f"already the loop's first model, after {loop[0].labels:,} labels, is as accurate as "
            f"the random arm after {last.labels:,}: it may have taken fewer"
        )
        if loop[0].labels >= last.labels:
            found, reason = None, "both arms have too few models to compare their labels"
    return Saved(last.accuracy, last.labels, found, low, high, reason)


def _reached(points: Sequence[tuple[int, float]], target: float) -> float | None:
    """Return after how many labels a curve first reaches a level; None where it never does."""
    for i, (labels, value) in enumerate(points):
        if value >= target:
            if not i:
                return float(labels)
            x, y = points[i - 1]
            return x + (labels - x) * (target - y) / (value - y)
    return None


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
