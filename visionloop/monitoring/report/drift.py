"""Drift over rounds, as the monitors of those rounds judged it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from visionloop.monitoring.drift_kinds import DRIFT_KINDS
from visionloop.monitoring.report.data_drift import (
    DRIFT,
    NOTHING_TO_COMPARE,
    STABLE,
    TOO_FEW,
    DriftPoint,
    DriftSeries,
)
from visionloop.monitoring.report.reading import Reader, content
from visionloop.words import counted

# What each kind measures, for its drawing: the kind's own title says that it drifts.
_MEASURES = {
    "confidence_drift": "How sure the model is",
    "class_mix_drift": "Which classes the model answers",
    "embedding_drift": "What the endpoint is asked about",
    "pixel_drift": "How a source's newest pictures look",
    "input_embedding_drift": "What a source's newest pictures show",
    "prediction_drift": "Which classes the model names in a source's newest pictures",
    "source_drift": "A new source beside those that the model learned from",
}
_GRAVITY = {DRIFT: 0, STABLE: 1, TOO_FEW: 2, NOTHING_TO_COMPARE: 3}


def comparisons(reader: Reader) -> list[dict[str, Any]]:
    """Return every comparison that monitors made, each window's newest verdict, oldest first."""
    newest: dict[tuple[str, ...], dict[str, Any]] = {}
    for run in reader.runs:
        if run["stage"] != "monitor":
            continue
        for one in content(run["outputs"]).get("comparisons") or ():
            names = ("subject_type", "subject", "kind", "round_id", "against", "model_id")
            newest[tuple(str(one.get(name) or "") for name in names)] = one
    return list(newest.values())


def drift_series(reader: Reader, standing: set[tuple[str, str]]) -> tuple[DriftSeries, ...]:
    """Return each measure of each subject over the rounds, what drifts first.

    A window may be compared with several references; the point of a round is the gravest of them.

    Args:
        reader: The lake.
        standing: Kind and subject of the flags that stand.
    """
    held: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for one in comparisons(reader):
        key = (str(one["subject_type"]), str(one["subject"]), str(one["kind"]))
        of = held.setdefault(key, {})
        before = of.get(one["round_id"])
        if before is None or _gravity(one) < _gravity(before):
            of[one["round_id"]] = one
    series = []
    for (subject_type, subject, kind), rounds in held.items():
        rows = [rounds[round_id] for round_id in sorted(rounds)]
        series.append(
            DriftSeries(
                subject,
                subject_type,
                kind,
                _MEASURES.get(kind) or kind.replace("_", " ").capitalize(),
                next((str(row["unit"]) for row in reversed(rows) if row.get("unit")), ""),
                tuple(_point(row) for row in rows),
                reader.model_names.get(rows[-1].get("model_id") or "", ""),
                (kind, subject) in standing,
            )
        )
    order = {kind.name: i for i, kind in enumerate(DRIFT_KINDS)}
    return tuple(
        sorted(
            series,
            key=lambda s: (
                not s.standing,
                _GRAVITY.get(s.state, 3),
                s.subject_type,
                s.subject,
                order.get(s.kind, len(order)),
            ),
        )
    )


def _gravity(one: dict[str, Any]) -> tuple[int, float]:
    score, threshold = one.get("score"), one.get("threshold")
    size = score / threshold if score is not None and threshold else 0.0
    return _GRAVITY.get(str(one["state"]), 3), -size


def _point(row: dict[str, Any]) -> DriftPoint:
    said = row["state"] in (DRIFT, STABLE)
    return DriftPoint(
        str(row["round_id"]),
        str(row["state"]),
        row.get("score") if said else None,
        row.get("threshold") if said else None,
        str(row.get("reference") or ""),
        int(row.get("n_current") or 0),
        int(row.get("n_reference") or 0),
        row.get("p_value"),
        str(row.get("reason") or ""),
    )


def drift_note(series: tuple[DriftSeries, ...], looked: bool) -> str:
    """Return in words what was not compared, "" where everything was.

    Args:
        series: From `drift_series`.
        looked: Whether a monitor has run.
    """
    if not series:
        if not looked:
            return "No monitor has run yet: whether anything drifts cannot be told."
        return (
            "Nothing was compared yet, neither what sources brought nor what a deployed model "
            "said: whether anything drifts cannot be told."
        )
    states = Counter(one.state for one in series)
    untold = states[TOO_FEW] + states[NOTHING_TO_COMPARE]
    if not untold:
        return ""
    why: dict[str, list[str]] = {}
    for one in series:
        if one.state in (TOO_FEW, NOTHING_TO_COMPARE):
            subjects = why.setdefault(one.points[-1].reason or one.state, [])
            if one.subject not in subjects:
                subjects.append(one.subject)
    reasons = "; ".join(f"{', '.join(who[:3])}: {reason}" for reason, who in why.items())
    return f"Of {counted(len(series), 'measure')} of drift, {untold:,} cannot be told. {reasons}."
