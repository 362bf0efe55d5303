"""Whether more labels are worth their price: budget, coverage, and the gain to expect.

Three questions, each answered from what the lake holds, none of them ending a selection:

- **Budget**: labels asked for, with this batch, against `label_budget`.
- **Coverage**: the k-center radius, the largest distance of an image of the pool to the nearest one
  that is labelled or selected (Sener & Savarese, "Core-set", 2018, bound the loss by it).
- **Gain**: what twice as many labels would bring by the learning curve so far, see
  `visionloop.selection.learning_curve`. Doubling, because the same step is a large one early and a
  small one late. It is flat where even the upper end of its interval is below `min_gain`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from visionloop.selection.config import SelectionConfig
from visionloop.selection.learning_curve import LEAST_POINTS, LEVEL, Gain, Point, expected_gain

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.selection.engine import Selection


@dataclass(frozen=True)
class Past:
    """What is known before a selection.

    Attributes:
        asked: Training labels asked for so far.
        points: Measured models of the loop.
        radii: Coverage radius after each earlier round that measured it, oldest first.
    """

    asked: int = 0
    points: tuple[Point, ...] = ()
    radii: tuple[float, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Advice on asking for more labels.

    Attributes:
        verdict: `stop` (the budget is spent, the pool is covered, or the gain is flat), `go_on`
            (even the lower end of the gain is worth it), `unclear` (the interval holds both), or
            `too_few` (too few models were measured to say).
        reasons: One sentence for each question, for a person.
        budget: Labels that may be asked for in all; 0 where none is set.
        asked: Labels asked for, with this batch.
        radius_before: Coverage radius before this batch; None where nothing was labelled, or
            without embeddings.
        radius: Coverage radius with this batch; None without embeddings.
        radius_at_most: Whether the radius is only known not to be larger, as in shards.
        gain: What twice as many labels would bring; None where that cannot be said.
    """

    verdict: str
    reasons: tuple[str, ...]
    budget: int
    asked: int
    radius_before: float | None
    radius: float | None
    radius_at_most: bool
    gain: Gain | None

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self) | {"reasons": list(self.reasons)}


def read_past(lake: Lake, *, version: str = "", before: str = "") -> Past:
    """Read what the advice needs of a lake.

    Args:
        lake: The lake.
        version: Lake version; empty for the newest.
        before: A round: only radii of earlier ones count; empty for all.
    """
    at = version or None
    wanted = "purpose == 'training'"
    asked = lake.read("label_requests", columns=["sample_id"], where=wanted, version=at)
    models = lake.read(
        "experiments", columns=["n_labels", "metrics"], where="arm == 'loop'", version=at
    )
    points = []
    for row in models.to_pylist():
        metrics = json.loads(row["metrics"] or "{}")
        if metrics.get("n") and metrics.get("accuracy") is not None and row["n_labels"]:
            points.append(Point(int(row["n_labels"]), float(metrics["accuracy"]), metrics["n"]))
    radii = []
    for row in sorted(
        lake.read("rounds", columns=["round_id", "counts"], version=at).to_pylist(),
        key=lambda row: str(row["round_id"]),
    ):
        if not before or row["round_id"] < before:
            told = json.loads(row["counts"] or "{}").get("selection") or {}
            advice = told.get("advice") or {}
            radius = advice.get("radius")
            if radius is not None and not advice.get("radius_at_most"):
                radii.append(float(radius))
    return Past(len(set(asked["sample_id"].to_pylist())), tuple(points), tuple(radii))


def advise(config: SelectionConfig, selection: Selection, past: Past) -> Advice:
    """Return the advice on a selection.

    Args:
        config: Its `label_budget`, `min_gain` and `duplicate_distance`.
        selection: The batch.
        past: What was before it.
    """
    asked = past.asked + len(selection.picks)
    budget, spent = _budget(config.label_budget, past.asked, asked)
    radius_before, radius = (_finite(r) for r in (selection.radius_before, selection.radius))
    coverage, covered = _coverage(config, selection, radius_before, radius, past.radii)
    most = max((point.labels for point in past.points), default=0)
    gain = expected_gain(past.points, 2 * most)
    flat = gain is not None and gain.high < config.min_gain
    if spent or covered or flat:
        verdict = "stop"
    elif gain is None:
        verdict = "too_few"
    else:
        verdict = "go_on" if gain.low >= config.min_gain else "unclear"
    reasons = (budget, coverage, _gain(gain, past.points, config.min_gain))
    return Advice(
        verdict,
        tuple(reason for reason in reasons if reason),
        config.label_budget,
        asked,
        radius_before,
        radius,
        selection.radius_at_most,
        gain,
    )


_HEADLINES = {
    "stop": "More labels are hardly worth it",
    "go_on": "More labels are worth it",
    "unclear": "Whether more labels are worth it is not clear",
    "too_few": "Too few to say whether more labels are worth it",
}


def headline(advice: Advice) -> str:
    """Return the verdict in words."""
    if advice.verdict == "stop" and 0 < advice.budget <= advice.asked:
        return "The label budget is spent"
    return _HEADLINES[advice.verdict]


def _budget(budget: int, before: int, asked: int) -> tuple[str, bool]:
    if not budget:
        return f"{asked:,} labels are asked for with this batch; no `label_budget` is set.", False
    text = f"{asked:,} of {budget:,} labels of the budget are asked for with this batch"
    if asked > budget:
        return f"{text}: {asked - max(before, budget):,} more than there are.", True
    if asked == budget:
        return f"{text}: it is spent.", True
    return f"{text}, {budget - asked:,} are left.", False


def _coverage(
    config: SelectionConfig,
    selection: Selection,
    before: float | None,
    radius: float | None,
    radii: tuple[float, ...],
) -> tuple[str, bool]:
    if radius is None:
        return "", False
    text = (
        f"Coverage radius in {selection.space}: "
        + ("at most " if selection.radius_at_most else "")
        + f"{radius:.3f} with this batch"
        + (f", {before:.3f} before it" if before is not None else "")
        + (f" (after earlier rounds {', '.join(f'{r:.3f}' for r in radii[-5:])})" if radii else "")
        + ": no image of the pool is farther from one that is labelled or selected."
    )
    # Every image that is left nearly equals one that is labelled.
    covered = before is not None and before <= config.duplicate_distance
    return text + (" The pool is covered: nothing in it is new." if covered else ""), covered


def _gain(gain: Gain | None, points: tuple[Point, ...], least: float) -> str:
    if gain is None:
        measured = len({point.labels for point in points})
        return (
            f"Expected gain: too few to say, models were measured at {measured} numbers of labels "
            f"and a learning curve needs {LEAST_POINTS}."
        )
    verdict = "between the two lies `min_gain`"
    if gain.high < least:
        verdict = "flat: all of it is below `min_gain`"
    elif gain.low >= least:
        verdict = "all of it is above `min_gain`"
    return (
        f"Expected gain: from {gain.labels:,} to {gain.to:,} labels {100 * gain.expected:.1f} "
        f"points of accuracy ({LEVEL:.0%} interval {100 * gain.low:.1f} to "
        f"{100 * gain.high:.1f}); {verdict}, {100 * least:.1f} points."
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
