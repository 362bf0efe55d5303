"""From which confidence on a model's answers are right often enough, as far as a holdout tells.

Thresholds are looked at from the highest down, each with an exact binomial test of "less precise
than stated". That many are looked at is paid for: the allowed probability of error is spread over a
few of them, and what a passed test was given goes on to the next (Wiens and Dmitrienko 2005, the
fallback procedure; a fixed sequence of tests, as in Learn then Test by Angelopoulos et al. 2021, is
its case with one start). The same holdout is asked about each of a loop's models, which is paid for
too (`miss_of`). So the probability that any model passes any threshold wrongly is at most `MISS`,
whatever the confidences mean. The thresholds come from the samples that are to be labelled, and not
from the holdout: that would be looking at the answers before asking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from visionloop.labeling.auto.binomial import at_least, least_trials, lower_bound, upper_bound

# Of all proofs of a loop together, one-sided.
MISS = 0.05
_THRESHOLDS, _STARTS = 24, 3


@dataclass(frozen=True)
class Judged:
    """A sample of the holdout that people labelled, and what the model takes it for.

    Attributes:
        label: What the model says.
        confidence: How sure it is, in [0, 1].
        right: Whether people say so too.
    """

    label: str
    confidence: float
    right: bool


@dataclass(frozen=True)
class OfClass:
    """The holdout's samples that a model takes for one class, from the threshold on.

    Attributes:
        n: Number of them.
        right: Number of those that are of it.
        low: Lower end of the interval of its precision, one-sided, of this class alone.
        admitted: Whether the class is labelled: there are some, and they are not shown to be less
            precise than stated.
    """

    n: int
    right: int
    low: float
    admitted: bool


@dataclass(frozen=True)
class Proof:
    """What a holdout shows of a model's answers.

    Attributes:
        precision: What was to be shown.
        threshold: Confidence from which on it is shown; None where it is not.
        n: Samples of the holdout from there on, or that were looked at in vain.
        right: Those of them that the model has right.
        low: Lower end of the interval of its precision, at the level that the test was given.
        miss: Probability of error that the test was given.
        coverage: Share of the samples to be labelled whose confidence reaches the threshold.
        n_holdout: Samples of the holdout with people's label and the model's answer.
        reason: What was found, for people.
        classes: What was found of each class, where a threshold was.
    """

    precision: float
    threshold: float | None
    n: int
    right: int
    low: float
    miss: float
    coverage: float
    n_holdout: int
    reason: str
    classes: dict[str, OfClass] = field(default_factory=dict)

    def admits(self, label: str, confidence: float) -> bool:
        """Return whether an answer of the model becomes a label."""
        found = self.classes.get(label)
        return (
            self.threshold is not None
            and confidence >= self.threshold
            and found is not None
            and found.admitted
        )

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def miss_of(nth: int) -> float:
    """Return the probability of error that a loop's n-th model may be proved with.

    The shares of all models add up to `MISS`, however many there will be.

    Args:
        nth: From 1.
    """
    return MISS / (nth * (nth + 1))


def prove(
    holdout: Sequence[Judged], pool: Sequence[float], precision: float, allowed: float = MISS
) -> Proof:
    """Find the smallest confidence from which on a model is shown to be as precise as stated.

    Args:
        holdout: The holdout, drawn at random from what the pool is drawn from too.
        pool: Confidences of the samples that are to be labelled.
        precision: The stated precision, in (0, 1).
        allowed: Probability of error.
    """
    n = len(holdout)

    def none(reason: str, count: int = 0, right: int = 0, miss: float = allowed) -> Proof:
        low = lower_bound(right, count, miss)
        return Proof(precision, None, count, right, low, miss, 0.0, n, reason)

    if not pool:
        return none("there is nothing to label")
    needed = least_trials(precision, allowed)
    if n < needed:
        return none(
            f"too few to say: {n:,} samples of the holdout have a person's answer and a "
            f"prediction, and {needed:,} are needed to show a precision of {precision:g}, all of "
            "them right"
        )
    tests = _tests(n, np.sort(np.asarray(pool, dtype=np.float64)), precision, allowed)
    confidences = np.array([one.confidence for one in holdout])
    rights = np.array([one.right for one in holdout], dtype=bool)
    passed: tuple[float, int, int, float] | None = None
    nearest = (2.0, 0, 0, allowed)
    carried = 0.0
    for threshold, given in tests:
        above = confidences >= threshold
        count, right, miss = int(above.sum()), int(rights[above].sum()), given + carried
        carried = 0.0
        if miss <= 0:
            continue
        doubt = at_least(right, count, precision)
        nearest = min(nearest, (doubt, count, right, miss))
        if doubt <= miss:
            carried = miss
            passed = (threshold, count, right, miss)
    if passed is None:
        _, count, right, miss = nearest
        shown = lower_bound(right, count, miss)
        return none(
            f"a precision of {precision:g} is not shown: at best {right:,} of {count:,} are right, "
            f"which shows {shown:.3f}",
            count,
            right,
            miss,
        )
    threshold, count, right, miss = passed
    low = lower_bound(right, count, miss)
    coverage = float(np.mean(np.asarray(pool) >= threshold))
    reason = (
        f"from a confidence of {threshold:.4f} on {right:,} of {count:,} holdout samples are "
        f"right: a precision of at least {low:.3f}"
    )
    classes = _of_classes(holdout, threshold, precision, allowed)
    return Proof(precision, threshold, count, right, low, miss, coverage, n, reason, classes)


def _tests(n: int, pool: np.ndarray, precision: float, allowed: float) -> list[tuple[float, float]]:
    """Return thresholds from the highest down, and the probability of error that each is given."""
    starts = _STARTS if 2 * _expected(precision, allowed / _STARTS) <= n else 1
    first = min(1.0, _expected(precision, allowed / starts) / n)
    shares = np.linspace(first, 1.0, _THRESHOLDS)
    # As many of the pool reach a threshold as are expected to of the holdout.
    places = np.clip(np.ceil(shares * len(pool)).astype(int), 1, len(pool))
    thresholds = list(dict.fromkeys(pool[len(pool) - places].tolist()))
    given = np.zeros(len(thresholds))
    for start in range(starts):
        given[start * len(thresholds) // starts] += allowed / starts
    return list(zip(thresholds, given.tolist(), strict=True))


def _expected(precision: float, miss: float) -> float:
    """Return how many samples to expect above a threshold, so that enough of them are there."""
    least = least_trials(precision, miss)
    return least + 2 * math.sqrt(least)


def _of_classes(
    holdout: Sequence[Judged], threshold: float, precision: float, allowed: float
) -> dict[str, OfClass]:
    found: dict[str, list[bool]] = {}
    for one in holdout:
        if one.confidence >= threshold:
            found.setdefault(one.label, []).append(one.right)
    return {
        label: OfClass(
            len(rights),
            sum(rights),
            lower_bound(sum(rights), len(rights), allowed),
            upper_bound(sum(rights), len(rights), MISS) >= precision,
        )
        for label, rights in sorted(found.items())
    }
