"""Whether a model that was tried on part of the traffic may take all of it. Pure: counts in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from visionloop.monitoring.intervals import wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from visionloop.serving.config import CanaryConfig
    from visionloop.serving.inference_service.metrics import Count

# A share of requests that chance explains less often than this is not the one that was asked for.
IMPLAUSIBLE = 1e-3
# Differences count from here on: a rollback by chance is as costly as a bad model is not.
LEVEL = 0.95


@dataclass(frozen=True)
class Judgement:
    """What became of a candidate.

    Attributes:
        promote: Whether it may take all traffic.
        reason: One sentence with the figures that decided.
        figures: All figures, for the decision's row.
    """

    promote: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


def errors_are_worse(candidate: Count, current: Count, config: CanaryConfig) -> str:
    """Return why a candidate's server errors are too many; empty while they are not.

    The rate must exceed the current model's by more than `max_error_increase`, and the interval of
    the difference must exclude 0 (Newcombe, Interval estimation for the difference between
    independent proportions, Statistics in Medicine 17, 1998, method 10). Where the current model
    answered too few, the candidate's own rate is held against what is allowed.

    Args:
        candidate: Its requests and errors.
        current: The current model's.
        config: Thresholds.
    """
    if candidate.requests < config.min_requests or not candidate.errors:
        return ""
    level = 2 * LEVEL - 1  # one-sided
    new = wilson(candidate.errors, candidate.requests, level=level)
    said = f"{candidate.errors} of {candidate.requests} requests ended in a server error"
    if current.requests < config.min_requests:
        if new.low > config.max_error_increase:
            return f"{said}, more than {config.max_error_increase:.1%}"
        return ""
    old = wilson(current.errors, current.requests, level=level)
    difference = new.value - old.value
    least = difference - math.hypot(new.value - new.low, old.high - old.value)
    if difference > config.max_error_increase and least > 0:
        return f"{said}, of the current model's {current.errors} of {current.requests}"
    return ""


def not_split(candidate: Count, current: Count, config: CanaryConfig) -> str:
    """Return that the traffic is not split, where chance does not explain how few asked.

    Args:
        candidate: Its requests and errors.
        current: The current model's.
        config: The candidate's share, and how many requests can be judged in any case.
    """
    total, share = candidate.requests + current.requests, config.percent / 100
    if candidate.requests >= config.min_requests or not total:
        return ""
    # P(X <= requests) of a binomial distribution; its terms are below the range of float by far.
    logs = [
        math.lgamma(total + 1)
        - math.lgamma(n + 1)
        - math.lgamma(total - n + 1)
        + n * math.log(share)
        + (total - n) * math.log1p(-share)
        for n in range(candidate.requests + 1)
    ]
    if math.fsum(map(math.exp, logs)) >= IMPLAUSIBLE:
        return ""
    return f"{candidate.requests} of {total} requests reached it, of which {share:.0%} should"


def judge_canary(
    candidate: Count,
    current: Count,
    candidate_confidences: NDArray[np.float64],
    current_confidences: NDArray[np.float64],
    config: CanaryConfig,
    *,
    unsplit: str = "",
) -> Judgement:
    """Judge a candidate at the end of its time.

    Errors decide first, then confidence, then whether it got its share of the traffic. Too
    few requests cannot be judged by rates: then a single server error rolls the candidate back, and
    without one `too_few` says what happens.

    Args:
        candidate: Its requests and errors by its pods' metrics.
        current: The current model's.
        candidate_confidences: Largest probability of each of its harvested answers, float64 [n].
        current_confidences: The current model's in the same time, float64 [m].
        config: Thresholds.
        unsplit: Why the traffic was not split as asked for; empty where it was.
    """
    words, fell = _confidence(candidate_confidences, current_confidences, config)
    figures: dict[str, Any] = {
        "candidate": {"requests": candidate.requests, "errors": candidate.errors},
        "current": {"requests": current.requests, "errors": current.errors},
        "confidence": {
            "candidate": _mean(candidate_confidences),
            "n_candidate": len(candidate_confidences),
            "current": _mean(current_confidences),
            "n_current": len(current_confidences),
            "judged": words,
        },
    }
    if worse := errors_are_worse(candidate, current, config):
        return Judgement(False, f"rolled back: {worse}", figures)
    if fell:
        return Judgement(False, f"rolled back: {words}", figures)
    if unsplit:
        said = f"this cluster does not split traffic: {unsplit}"
        if config.no_split == "roll_back" or candidate.errors:
            return Judgement(False, f"rolled back: {said}", figures)
        return Judgement(True, f"promoted untried: {said}, and no_split is promote", figures)
    if candidate.requests >= config.min_requests:
        told = f"{candidate.errors} of {candidate.requests} requests ended in a server error"
        return Judgement(True, f"promoted: {told}; {words}", figures)
    few = (
        f"{candidate.requests} requests are too few to judge a rate by, {config.min_requests} are "
        "asked for"
    )
    if candidate.errors:
        return Judgement(False, f"rolled back: {candidate.errors} server errors; {few}", figures)
    if config.too_few == "roll_back":
        return Judgement(False, f"rolled back: {few}, and too_few is roll_back", figures)
    return Judgement(True, f"promoted: no server error; {few}", figures)


def _confidence(
    candidate: NDArray[np.float64], current: NDArray[np.float64], config: CanaryConfig
) -> tuple[str, bool]:
    """Compare two means (Welch, The generalization of Student's problem, Biometrika 34, 1947)."""
    if min(len(candidate), len(current)) < config.min_requests:
        few = f"{len(candidate)} and {len(current)} confidences are too few to compare"
        return few, False
    drop = float(current.mean() - candidate.mean())
    error = math.sqrt(candidate.var(ddof=1) / len(candidate) + current.var(ddof=1) / len(current))
    half = NormalDist().inv_cdf(LEVEL) * error
    words = (
        f"mean confidence {candidate.mean():.3f} of {len(candidate)} answers, the current model's "
        f"{current.mean():.3f} of {len(current)} (difference {-drop:+.3f} ± {half:.3f})"
    )
    return words, drop > config.max_confidence_drop and drop > half


def _mean(values: NDArray[np.float64]) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None
