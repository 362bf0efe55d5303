"""The report's numbers as plain JSON: the same for the command, the components and metrics."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime
from typing import Any

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.report.data import ReportData
from visionloop.monitoring.report.data_drift import DriftSeries
from visionloop.monitoring.report.data_funnel import Account, Step
from visionloop.monitoring.report.data_models import Difference, ModelRow
from visionloop.monitoring.report.health import severity_of

SCHEMA = "visionloop.report/1"


def summary(data: ReportData) -> dict[str, Any]:
    """Return the numbers of a report, fit for JSON: no NaN, times in ISO 8601, shares in [0, 1].

    A rate is ``{value, low, high, n}`` with its 95% interval, a difference the same with
    ``says`` (``ahead``, ``behind``, ``cannot tell``); what is not known is null.

    Args:
        data: What the report shows; pictures are not needed.

    Returns:
        - ``schema``: ``visionloop.report/1``
        - ``loop``, ``lake``, ``version``, ``as_of``
        - ``verdict``: ``healthy``, ``look``, ``act``, ``cannot tell`` or ``nothing yet``;
          ``because``, a sentence
        - ``findings``: ``[{severity, key, text, remedy, section, unknown}]``, worst first
        - ``samples``, ``holdout``, ``labels``: counts
        - ``in_service``: null, or ``{model_id, name, round_id, labels, accuracy, ece, gate,
          training_set, before}``
        - ``models``: ``[{model_id, name, round_id, arm, state, labels, accuracy, macro_f1, ece,
          brier, gate, gained}]``, oldest first
        - ``rounds``: ``[{round_id, state, outcome, labels, accuracy, random_accuracy, gate,
          missing_labels, seconds, funnel, adds_up}]``, oldest first
        - ``funnel``: ``{adds_up, steps: [{key, title, unit, n, of, source, entered, rest, kept,
          adds_up}]}`` over all rounds; ``entered``, ``rest`` and ``kept`` are ``[{name, n}]``
        - ``events``: the same of logged events; ``steps`` is empty without a harvest
        - ``efficiency``: ``{against_random, by_round, labels_saved, labels_saved_low,
          labels_saved_high, reason, shares}``; null where nothing bounds it
        - ``flags``: ``{kind: {standing, new, severity, title}}``; ``standing`` counts flags that
          count now, ``new`` those of them that the newest round brought
        - ``not_judged``: ``[{kinds, text, n, needed, have, earlier, again}]``, what there was too
          little of to be judged: ``n`` subjects; ``have`` is how many there are of what is counted,
          by subject ("" for all together), ``needed`` how many it takes, null where no number
          would do; ``earlier`` is true of pictures that came in before the newest ones; ``again``
          of ``n`` got no check, for they have no measures, and are new to the next look, too
        - ``drift``: ``[{subject, subject_type, kind, state, standing, score, threshold, unit,
          round_id, n, n_reference, p, reason}]``, the newest comparison of each
        - ``drift_note``: what was not compared
        - ``production``: ``[{round_id, endpoint, model_id, n, expected, refused, by_labels}]``
        - ``annotators``: ``[{name, answers, skipped, rejected, agreement, seconds}]``
        - ``cost``: ``{seconds, gpu_hours, images, labels, holdout_labels, imported_labels,
          model_labels, labels_per_point, gained, rounds: [{round_id, seconds, gpu_seconds, images,
          labels, holdout_labels, gained, labels_per_point}]}``
        - ``acts``: ``[{act, text, since, share}]`` that hold now
        - ``failed_stages``: ``[{stage, round_id, at, what, remedy}]``
    """
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "loop": data.loop,
        "lake": data.lake,
        "version": data.version,
        "as_of": _time(data.as_of),
        "verdict": data.verdict.state,
        "because": data.verdict.because,
        "findings": [
            {
                "severity": one.severity,
                "key": one.key,
                "text": one.text,
                "remedy": one.remedy,
                "section": one.section,
                "unknown": one.unknown,
            }
            for one in data.verdict.findings
        ],
        "samples": data.n_samples,
        "holdout": data.n_holdout,
        "labels": data.n_labels,
        "in_service": _in_service(data),
        "models": [_model(row) for row in data.models],
        "rounds": _rounds(data),
        "funnel": {"adds_up": data.total.adds_up, "steps": _steps(data.total.steps)},
        "events": {
            "adds_up": all(step.adds_up for step in data.total.events),
            "steps": _steps(data.total.events),
        },
        "efficiency": _efficiency(data),
        "flags": flags_by_kind(data),
        "not_judged": [one.plain() for one in data.not_judged],
        "drift": [_drift(series) for series in data.drift],
        "drift_note": data.drift_note,
        "production": [
            {
                "round_id": one.round_id,
                "endpoint": one.endpoint,
                "model_id": one.model_id,
                "n": one.n,
                "expected": _rate(one.expected),
                "refused": one.refused,
                "by_labels": _rate(one.by_labels),
            }
            for one in data.windows
        ],
        "annotators": [
            {
                "name": one.name,
                "answers": one.answers,
                "skipped": one.skipped,
                "rejected": one.rejected,
                "agreement": _rate(one.agreement),
                "seconds": one.seconds,
            }
            for one in data.annotators.rows
        ],
        "cost": _cost(data),
        "acts": [
            {"act": one.act, "text": one.text, "since": _time(one.since), "share": one.share}
            for one in data.acts
        ],
        "failed_stages": [
            {
                "stage": one.stage,
                "round_id": one.round_id,
                "at": _time(one.at),
                "what": one.what,
                "remedy": one.remedy,
            }
            for one in data.failed
        ],
    }
    finite: dict[str, Any] = _finite(told)
    return finite


def numbers(told: dict[str, Any]) -> dict[str, float]:
    """Return what KFP and others keep as plain numbers, of `summary`; nulls are left out.

    Args:
        told: What `summary` returned.
    """
    found: dict[str, float | None] = {
        "n_rounds": len(told["rounds"]),
        "n_samples": told["samples"],
        "n_labels": told["labels"],
        "n_findings": len(told["findings"]),
        "n_not_judged": len(told["not_judged"]),
        "gpu_hours": told["cost"]["gpu_hours"],
        "stage_seconds": told["cost"]["seconds"],
        "labels_bought": told["cost"]["labels"],
        "labels_per_point": told["cost"]["labels_per_point"],
        "labels_saved": told["efficiency"]["labels_saved"],
        "labels_saved_low": told["efficiency"]["labels_saved_low"],
        "labels_saved_high": told["efficiency"]["labels_saved_high"],
        "n_drifting": sum(bool(one["standing"]) for one in told["drift"]),
        "funnel_adds_up": float(told["funnel"]["adds_up"]),
    }
    for severity in ("error", "warning", "info"):
        found[f"n_findings_{severity}"] = sum(
            one["severity"] == severity for one in told["findings"]
        )
    served = told["in_service"] or {}
    for name in ("accuracy", "ece"):
        rate = served.get(name)
        if rate:
            end = "" if name == "accuracy" else "_in_service"
            found[f"{name}{end}"] = rate["value"]
            found[f"{name}{end}_low"] = rate["low"]
            found[f"{name}{end}_high"] = rate["high"]
    for kind, counts in told["flags"].items():
        found[f"flags_{kind}"] = counts["standing"]
    for step in (*told["funnel"]["steps"], *told["events"]["steps"]):
        found[f"funnel_{step['key']}"] = step["n"]
    return {name: float(value) for name, value in found.items() if value is not None}


def flags_by_kind(data: ReportData) -> dict[str, dict[str, Any]]:
    """Return how many flags of each kind count now, and how many of them are new."""
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted({*data.flag_counts, *data.new_flags}):
        about = KINDS.get(kind)
        found[kind] = {
            "standing": data.flag_counts.get(kind, 0),
            "new": data.new_flags.get(kind, 0),
            "severity": severity_of(kind),
            "title": about.title if about else kind.replace("_", " ").capitalize(),
        }
    return found


def _in_service(data: ReportData) -> dict[str, Any] | None:
    if not data.in_service:
        return None
    row = next((one for one in data.models if one.model_id == data.in_service), None)
    line = data.lineage
    return {
        "model_id": data.in_service,
        "name": data.in_service_name,
        "round_id": row.round_id if row else "",
        "labels": row.labels if row else None,
        "accuracy": _rate(data.in_service_accuracy),
        "ece": _rate(row.ece) if row else None,
        "gate": row.gate if row else "",
        "training_set": line.training_set if line else "",
        "before": line.before if line else "",
    }


def _model(row: ModelRow) -> dict[str, Any]:
    return {
        "model_id": row.model_id,
        "name": row.name,
        "round_id": row.round_id,
        "arm": row.arm,
        "state": row.state,
        "labels": row.labels,
        "accuracy": _rate(row.accuracy),
        "macro_f1": row.macro_f1,
        "ece": _rate(row.ece),
        "brier": _rate(row.brier),
        "gate": row.gate,
        "gained": _difference(row.gained),
    }


def _rounds(data: ReportData) -> list[dict[str, Any]]:
    accounts = {account.round_id: account for account in data.accounts}
    return [
        {
            "round_id": one.round_id,
            "state": one.state,
            "outcome": one.outcome,
            "labels": one.labels,
            "accuracy": _rate(one.accuracy),
            "random_accuracy": _rate(one.random_accuracy),
            "gate": one.gate,
            "missing_labels": one.missing_labels,
            "seconds": dict(one.seconds),
            "funnel": _steps(accounts.get(one.round_id, Account()).steps),
            "adds_up": accounts.get(one.round_id, Account()).adds_up,
        }
        for one in data.rounds
    ]


def _steps(steps: tuple[Step, ...]) -> list[dict[str, Any]]:
    return [
        {
            "key": step.key,
            "title": step.title,
            "unit": step.unit,
            "n": step.n,
            "of": step.of,
            "source": step.source,
            "entered": [dataclasses.asdict(part) for part in step.entered],
            "rest": [dataclasses.asdict(part) for part in step.rest],
            "kept": [dataclasses.asdict(part) for part in step.kept],
            "adds_up": step.adds_up,
        }
        for step in steps
    ]


def _efficiency(data: ReportData) -> dict[str, Any]:
    found = data.efficiency
    newest = max(found.differences, default="")
    saved = found.saved
    return {
        "against_random": _difference(found.differences.get(newest)),
        "by_round": {name: _difference(one) for name, one in sorted(found.differences.items())},
        "labels_saved": saved.saved if saved else None,
        "labels_saved_low": saved.least if saved else None,
        "labels_saved_high": saved.most if saved else None,
        "reason": saved.reason if saved else "no model was trained on labels drawn at random",
        "shares": [
            {
                "round_id": one.round_id,
                "chosen_wrong": _rate(one.chosen),
                "random_wrong": _rate(one.random),
                "difference": _difference(one.difference),
            }
            for one in found.shares
        ],
    }


def _drift(series: DriftSeries) -> dict[str, Any]:
    last = series.points[-1] if series.points else None
    return {
        "subject": series.subject,
        "subject_type": series.subject_type,
        "kind": series.kind,
        "state": series.state,
        "standing": series.standing,
        "score": last.score if last else None,
        "threshold": last.threshold if last else None,
        "unit": series.unit,
        "round_id": last.round_id if last else "",
        "n": last.n if last else 0,
        "n_reference": last.n_reference if last else 0,
        "p": last.p if last else None,
        "reason": last.reason if last else "",
    }


def _cost(data: ReportData) -> dict[str, Any]:
    found = data.cost
    return {
        "seconds": found.seconds,
        "gpu_hours": found.gpu_hours,
        "images": found.images,
        "labels": found.labels,
        "holdout_labels": found.holdout_labels,
        "imported_labels": found.imported_labels,
        "model_labels": found.model_labels,
        "labels_per_point": found.labels_per_point,
        "gained": _difference(found.gained),
        "rounds": [
            {
                "round_id": one.round_id,
                "seconds": one.total_seconds,
                "gpu_seconds": one.gpu_seconds,
                "images": one.images,
                "labels": one.labels,
                "holdout_labels": one.holdout_labels,
                "gained": _difference(one.gained),
                "labels_per_point": one.labels_per_point,
            }
            for one in found.rounds
        ],
    }


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else dataclasses.asdict(rate)


def _difference(found: Difference | None) -> dict[str, Any] | None:
    return None if found is None else {**dataclasses.asdict(found), "says": found.says}


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _finite(value: Any) -> Any:
    """Return a value with null in the place of numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
