"""Whether a candidate may replace the model in service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Accuracies are ratios of counts: differences below this are rounding.
_ROUNDING = 1e-9
# Below so many samples the 95% interval of an accuracy of .9 is wider than .16: it is told.
SMALL_HOLDOUT = 50


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Attributes:
        passed: Whether the candidate may be published.
        reason: One sentence for a person.
        inputs: What was compared.
    """

    passed: bool
    reason: str
    inputs: dict[str, Any]


def judge(
    accuracy: float | None,
    *,
    n: int,
    n_holdout: int,
    interval: tuple[float, float] | None,
    in_service: str,
    in_service_accuracy: float | None,
    best: str,
    best_accuracy: float | None,
    min_accuracy: float,
    max_drop: float,
    allow_unevaluated: bool,
) -> Verdict:
    """Apply the gates.

    A model that nothing is known about does not pass: an unattended loop would publish it, and
    nobody would notice. A first model passes with `min_accuracy` alone.

    What may be lost is measured against the best model that was ever in service, on the same
    samples under the same labels. Measured against the current one alone, a loop could lose
    `max_drop` in every round, and pass each time.

    Args:
        accuracy: The candidate's on the holdout; None where the holdout has no labels.
        n: Labelled holdout samples that could be read.
        n_holdout: Holdout samples, labelled or not.
        interval: The 95% interval of the candidate's accuracy.
        in_service: Id of the model in service; empty before the first.
        in_service_accuracy: Its accuracy on the same samples; None where there is none.
        min_accuracy: Least accuracy.
        best: Id of the most accurate model that was ever in service; empty before the first.
        best_accuracy: Its accuracy on the same samples; None where there is none.
        max_drop: Accuracy that may be lost against the best model that was ever in service.
        allow_unevaluated: Whether a model passes without labelled holdout samples.
    """
    inputs: dict[str, Any] = {
        "accuracy": accuracy,
        "n": n,
        "n_holdout": n_holdout,
        "in_service": in_service,
        "in_service_accuracy": in_service_accuracy,
        "best": best,
        "best_accuracy": best_accuracy,
        "min_accuracy": min_accuracy,
        "max_drop": max_drop,
        "allow_unevaluated": allow_unevaluated,
    }
    if accuracy is None:
        why, remedy = _not_evaluated(n_holdout)
        if allow_unevaluated:
            return Verdict(True, f"{why}; gates.allow_unevaluated lets it pass", inputs)
        remedy += ", or set gates.allow_unevaluated: true"
        return Verdict(False, f"{why}; {remedy}", inputs)
    said = f"accuracy {accuracy:.3f} on {n} holdout samples"
    if n < SMALL_HOLDOUT and interval is not None:
        low, high = interval
        said += f" (few: the 95% interval is {low:.3f} to {high:.3f})"
    if accuracy < min_accuracy - _ROUNDING:
        reason = f"{said} is below gates.min_accuracy {min_accuracy:g}"
        return Verdict(False, reason, inputs)
    if in_service_accuracy is None or best_accuracy is None:
        first = f"{said}; there is no model in service to compare with"
        if not min_accuracy:
            first += ", and gates.min_accuracy is 0: any accuracy passes"
        return Verdict(True, first, inputs)
    change = accuracy - in_service_accuracy
    against = f"{said}, {change:+.3f} against {in_service_accuracy:.3f} of {in_service} in service"
    lost = accuracy - best_accuracy
    if best == in_service:
        against += ", the best that ever was"
    else:
        against += f" and {lost:+.3f} against {best_accuracy:.3f} of {best}, the best that ever was"
    if lost < -max_drop - _ROUNDING:
        reason = f"{against}: more than gates.max_drop {max_drop:g} is lost"
        return Verdict(False, reason, inputs)
    return Verdict(True, against, inputs)


def _not_evaluated(n_holdout: int) -> tuple[str, str]:
    """Return why a model was not evaluated, and what to do about it."""
    if not n_holdout:
        return (
            "there is no holdout, so the model was not evaluated",
            "ingest more images: each intake adds holdout.fraction of them (above 0) to the "
            "holdout until it has holdout.min_samples",
        )
    return (
        f"none of the {n_holdout} holdout samples has a label and can be read, so the model was "
        "not evaluated",
        "label the holdout's samples",
    )
