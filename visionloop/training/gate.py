"""Whether a candidate may replace the model in service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Accuracies are ratios of counts: differences below this are rounding.
_ROUNDING = 1e-9


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
    in_service: str,
    in_service_accuracy: float | None,
    min_accuracy: float,
    max_drop: float,
    allow_unevaluated: bool,
) -> Verdict:
    """Apply the gates.

    A model that nothing is known about does not pass: an unattended loop would publish it, and
    nobody would notice. A first model passes with `min_accuracy` alone.

    Args:
        accuracy: The candidate's on the holdout; None where the holdout has no labels.
        n: Labelled holdout samples.
        in_service: Id of the model in service; empty before the first.
        in_service_accuracy: Its accuracy on the same samples; None where there is none.
        min_accuracy: Least accuracy.
        max_drop: Accuracy that may be lost against the model in service.
        allow_unevaluated: Whether a model passes without labelled holdout samples.
    """
    inputs: dict[str, Any] = {
        "accuracy": accuracy,
        "n": n,
        "in_service": in_service,
        "in_service_accuracy": in_service_accuracy,
        "min_accuracy": min_accuracy,
        "max_drop": max_drop,
        "allow_unevaluated": allow_unevaluated,
    }
    if accuracy is None:
        why = "the holdout has no labelled samples that can be read, so the model was not evaluated"
        if allow_unevaluated:
            return Verdict(True, f"{why}; gates.allow_unevaluated lets it pass", inputs)
        remedy = "label the holdout's samples, or set gates.allow_unevaluated: true"
        return Verdict(False, f"{why}; {remedy}", inputs)
    said = f"accuracy {accuracy:.3f} on {n} holdout samples"
    if accuracy < min_accuracy - _ROUNDING:
        reason = f"{said} is below gates.min_accuracy {min_accuracy:g}"
        return Verdict(False, reason, inputs)
    if in_service_accuracy is None:
        return Verdict(True, f"{said}; there is no model in service to compare with", inputs)
    change = accuracy - in_service_accuracy
    against = f"{said}, {change:+.3f} against {in_service_accuracy:.3f} of {in_service}"
    if change < -max_drop - _ROUNDING:
        reason = f"{against}: more than gates.max_drop {max_drop:g} is lost"
        return Verdict(False, reason, inputs)
    return Verdict(True, against, inputs)
