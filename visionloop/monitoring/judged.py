"""What drift was found in, of endpoints and of sources alike, as flags and as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from visionloop.monitoring.deployed import HOLDOUT, Comparison
from visionloop.monitoring.drift import DRIFT, Drift
from visionloop.monitoring.findings import flag_row
from visionloop.monitoring.input_drift import InputComparison
from visionloop.words import counted

ENDPOINT, SOURCE = "endpoint", "source"
UNNAMED_ENDPOINT = "the endpoint without a name"


@dataclass(frozen=True)
class Judged:
    """One comparison of one subject.

    Attributes:
        subject: Name of the endpoint or of the source.
        subject_type: ``endpoint`` or ``source``.
        round_id: The newest round whose harvest or arrivals were compared.
        against: The reference, the same word in each look at it: ``holdout``, ``round 3`` or
            ``earlier images``.
        reference: What it is, in words.
        drift: What was found.
        model_id: The model whose answers were compared; empty where none is concerned.
        source: URI of the source; empty for an endpoint.
        images: Samples that lie farthest out, the farthest first.
    """

    subject: str
    subject_type: str
    round_id: str
    against: str
    reference: str
    drift: Drift
    model_id: str = ""
    source: str = ""
    images: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return what the outputs of the monitor's run and the flag keep of it, fit for JSON."""
        d = self.drift
        return {
            "subject": self.subject,
            "subject_type": self.subject_type,
            "kind": d.kind,
            "round_id": self.round_id,
            "against": self.against,
            "reference": self.reference,
            "model_id": self.model_id,
            "state": d.state,
            "reason": d.reason,
            "score": _number(d.score),
            "threshold": d.threshold,
            "unit": d.unit,
            "p_value": _number(d.p_value),
            "level": _number(d.level),
            "look": d.look,
            "n_reference": d.n_reference,
            "n_current": d.n_current,
            "measure": d.measure,
            "before": d.before,
            "after": d.after,
        }


def judged_endpoint(found: Comparison) -> Judged:
    """Return a comparison of a deployed window."""
    images = counted(found.drift.n_reference, "image")
    reference = (
        f"what the model says of its frozen holdout ({images})"
        if found.reference == HOLDOUT
        else f"what the model said in the harvest of {found.reference} ({images})"
    )
    return Judged(
        found.window.endpoint or UNNAMED_ENDPOINT,
        ENDPOINT,
        found.window.round_id,
        found.reference,
        reference,
        found.drift,
        model_id=found.window.model_id,
        images=found.images,
    )


def judged_source(found: InputComparison, images: Sequence[str], round_id: str) -> Judged:
    """Return a comparison of what a source brought.

    Args:
        found: The comparison.
        images: Ids of the samples of its rows.
        round_id: The monitor's round, told where nothing has come that could be compared.
    """
    one = found.arrivals
    return Judged(
        one.name,
        SOURCE,
        one.rounds[-1] if one.rounds else round_id,
        "earlier images" if not one.new else "other sources",
        one.reference,
        found.drift,
        model_id=found.model_id,
        source=one.source,
        images=tuple(images),
    )


def drift_rows(judged: Sequence[Judged], now: datetime) -> list[dict[str, Any]]:
    """Return the rows of ``flags``: one a kind and subject, of what drifted most of it.

    Args:
        judged: What was compared.
        now: Written as ``flagged_at``.
    """
    found: dict[tuple[str, str, str], list[Judged]] = {}
    for one in judged:
        if one.drift.state == DRIFT:
            key = (one.drift.kind, one.subject_type, one.subject)
            found.setdefault(key, []).append(one)
    return [_row(sorted(found[key], key=_least), now) for key in sorted(found)]


def _least(one: Judged) -> tuple[float, str]:
    return -one.drift.score / one.drift.threshold, one.against


def _row(drifted: list[Judged], now: datetime) -> dict[str, Any]:
    most = drifted[0]
    d = most.drift
    evidence: dict[str, Any] = {
        "reference": most.reference,
        "unit": d.unit,
        "measure": d.measure,
        "images": list(most.images),
        "images_before": d.n_reference,
        "images_now": d.n_current,
        "p_value": d.p_value,
        "level": d.level,
        "look": d.look,
        # All that drifted, so that a rule can ask for one model or one reference.
        "comparisons": [one.plain() for one in drifted],
    }
    if d.before is not None and d.after is not None:
        evidence |= {"before": d.before, "now": d.after}
    if most.model_id:
        evidence["model_id"] = most.model_id
    if most.subject_type == ENDPOINT:
        evidence["harvested_in_round"] = most.round_id
    else:
        evidence |= {"came_in_round": most.round_id, "uri": most.source}
    return flag_row(most.subject, most.subject_type, d.kind, d.score, d.threshold, evidence, now)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
