"""Labels that the model in service contradicts, surer than it is with labels that are right.

How sure is sure enough is learned from the holdout, which the model did not train on: of n labels
there, the k-th surest contradiction is the limit, k the whole part of ``share * (n + 1)``. A right
label that is drawn as the holdout was is contradicted beyond it with at most that share (split
conformal prediction; Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005;
Bates et al., Testing for outliers with conformal p-values, Annals of Statistics 51, 2023). Labels
that the model trained on are contradicted less, so that for these it is a bound all the more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.calibrating import fit_calibration
from visionloop.monitoring.findings import flag_row
from visionloop.words import counted

KIND = "confident_disagreement"
# An answer that is as likely wrong as right contradicts nobody.
LEAST_CONFIDENCE = 0.5
# Isotonic calibration makes confidences equal; the raw one tells them apart below its precision.
_TIE = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """What the model in service answered to samples that people labelled.

    Attributes:
        model: The model in words, ``the model of round 3``.
        classes: Its C classes.
        sample_ids: n samples.
        labels: int64 [n], each sample's label as place in the classes.
        probabilities: float64 [n, C].
        endpoints: Where it answered in production; empty for an answer of the stage ``infer``.
        answered_at: When it answered; null where that is not known.
        labelled_at: When a person last gave the label; null where that is not known.
        confirmed: bool [n], whether people gave this label more than once: such a one is settled.
        trained: bool [n], whether the model trained on it.
        holdout: bool [n].
    """

    model: str
    classes: list[str]
    sample_ids: list[str]
    labels: NDArray[np.int64]
    probabilities: Floats
    endpoints: list[str]
    answered_at: list[datetime | None]
    labelled_at: list[datetime | None]
    confirmed: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    holdout: NDArray[np.bool_]


@dataclass(frozen=True)
class Contradicted:
    """Which labels the model contradicts, and how surely.

    Attributes:
        as_answered: float64 [n], confidences as the model gave them.
        confidences: float64 [n], calibrated on the holdout; of what is too few, as they are.
        contradicts: bool [n], whether the answer is another class than the label.
        limit: Calibrated confidence from which on a contradiction is flagged; NaN where it cannot
            be told.
        limit_as_answered: Confidence as answered of the contradiction that taught the limit: of
            answers that are calibrated to the limit, those above it are flagged. NaN for none.
        n_holdout: Labels of the holdout that it was learned from.
        flagged: bool [n].
        why: Why it cannot be told; empty where it can.
    """

    as_answered: Floats
    confidences: Floats
    contradicts: NDArray[np.bool_]
    limit: float
    limit_as_answered: float
    n_holdout: int
    flagged: NDArray[np.bool_]
    why: str = ""


def least_holdout(share: float) -> int:
    """Return how many labels of the holdout a share can be learned from."""
    return math.ceil(1 / share - 1e-9) - 1


def contradicted(said: Said, share: float) -> Contradicted:
    """Return which labels the model contradicts more surely than nearly all right ones.

    Those of the holdout teach what that is, and are not judged.

    Args:
        said: What it answered.
        share: Share of the right labels that may be contradicted as surely.
    """
    answers = said.probabilities.argmax(axis=1) if len(said.labels) else said.labels
    contradicts = answers != said.labels
    none = np.zeros(len(said.labels), dtype=np.bool_)
    own = np.flatnonzero(said.holdout)
    needed = least_holdout(share)
    raw = said.probabilities.max(axis=1) if len(said.labels) else np.zeros(0)
    if len(own) < needed:
        have = counted(len(own), "label of the holdout was", "labels of the holdout were")
        why = f"{have} answered by this model, {needed} are needed"
        return Contradicted(raw, raw, contradicts, math.nan, math.nan, len(own), none, why)
    fitted = fit_calibration(said.probabilities[own], said.labels[own])
    confidences = np.clip(fitted.confidences(said.probabilities), 0.0, 1.0)
    sure = np.where(contradicts, confidences + _TIE * raw, 0.0)
    place = math.floor(share * (len(own) + 1) + 1e-9)
    teacher = own[np.argsort(sure[own], kind="stable")[-place]]
    # What taught nothing, or less than the least, leaves the least.
    teaches = float(sure[teacher]) > LEAST_CONFIDENCE
    limit = float(confidences[teacher]) if teaches else LEAST_CONFIDENCE
    taught = float(raw[teacher]) if teaches else math.nan
    # The holdout taught the limit: its surest contradictions lie above it whatever they are.
    judged = ~(said.confirmed | said.holdout)
    flagged = (sure > max(float(sure[teacher]), LEAST_CONFIDENCE)) & judged
    return Contradicted(raw, confidences, contradicts, limit, taught, len(own), flagged)


def disagreement_rows(
    said: Said, found: Contradicted, share: float, now: datetime
) -> list[dict[str, Any]]:
    """Return the rows of ``flags``, the surest first.

    Args:
        said: What the model answered.
        found: From `contradicted`.
        share: As there.
        now: Written as ``flagged_at``.
    """
    surest = [int(i) for i in np.argsort(-found.confidences, kind="stable") if found.flagged[i]]
    reference = (
        f"{found.n_holdout} labels of the holdout: at most {share:.1%} of right labels are "
        "contradicted so surely"
    )
    return [
        flag_row(
            said.sample_ids[i],
            "sample",
            KIND,
            float(found.confidences[i]),
            found.limit,
            {
                "reference": reference,
                "unit": "probability",
                "measure": "calibrated confidence",
                "images": [said.sample_ids[i]],
                **told(said, found, i),
                **_tie(found, i),
                "trained_on_this_label": bool(said.trained[i]),
            },
            now,
        )
        for i in surest
    ]


def _tie(found: Contradicted, i: int) -> dict[str, float]:
    """Return what decided where an answer is calibrated to what the limit is calibrated to."""
    tied = found.confidences[i] <= found.limit and not math.isnan(found.limit_as_answered)
    return {"as_answered_threshold": found.limit_as_answered} if tied else {}


def told(said: Said, found: Contradicted, i: int) -> dict[str, Any]:
    """Return what a person needs to judge one answer: both classes, how sure, who, where, when.

    Args:
        said: Answers and labels.
        found: What was found of them.
        i: Which of them is told.
    """
    answered, labelled = said.answered_at[i], said.labelled_at[i]
    return {
        "label": said.classes[int(said.labels[i])],
        "answered": said.classes[int(said.probabilities[i].argmax())],
        "as_answered": float(found.as_answered[i]),
        "calibrated": float(found.confidences[i]),
        "model": said.model,
        "endpoint": said.endpoints[i],
        "answered_at": f"{answered:%Y-%m-%d %H:%M} UTC" if answered else "",
        "labelled_at": f"{labelled:%Y-%m-%d %H:%M} UTC" if labelled else "",
    }
