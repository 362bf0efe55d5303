"""The metrics of a loop, as Prometheus names and types them.

All are gauges: they tell how the lake is, not what this process did, so nothing starts again from
zero with it. What happened once (a block, a rollback, a failure) is told by the time at which it
did: a rule looks at ``time() - …`` and fires the first time too, where ``increase()`` over a
counter that begins at 1 would not. No label holds a sample's id, a round or a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import GaugeMetricFamily

from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.notifying.events import severity_of
from visionloop.monitoring.report.data_drift import DRIFT
from visionloop.monitoring.subjects import STATES

if TYPE_CHECKING:
    from visionloop.monitoring.intervals import Rate
    from visionloop.monitoring.metrics.health import Health
    from visionloop.monitoring.report.data import ReportData, Window

# States of the verdict, in the words of a label.
VERDICTS = ("healthy", "look", "act", "cannot_tell", "nothing_yet")
# What is watched by name: of each at most so many, the gravest first.
NAMED = 200
_NAMED_TYPES = ("camera", "class", "endpoint", "model", "pool", "source", "stage")
_ROUNDS = ("running", "waiting", "done")
_SEVERITIES = ("error", "warning", "info")
_EVENTS = ("harvested", "duplicate", "rejected", "orphan", "pending", "ignored")

Sample = tuple[Mapping[str, str], float | int | bool | None]


def families(healths: Mapping[str, Health]) -> Iterator[GaugeMetricFamily]:
    """Yield the metrics of the loops of a lake, each name once.

    Args:
        healths: What was read, by the loop's name, the label of each.
    """
    helps: dict[str, str] = {}
    held: dict[str, list[Sample]] = {}
    for loop, health in healths.items():
        for name, about, samples in _told(health):
            helps[name] = about
            named = [({"loop": loop, **labels}, value) for labels, value in samples]
            held.setdefault(name, []).extend(named)
    for name, about in helps.items():
        yield gauge(name, about, held[name])


def gauge(name: str, about: str, samples: Iterable[Sample]) -> GaugeMetricFamily:
    """Return a gauge with its samples.

    Args:
        name: Without the prefix ``visionloop_``.
        about: Its help text.
        samples: Labels and value; a value of None or NaN is left out: it is not known.
    """
    kept = [
        (labels, float(value))
        for labels, value in samples
        if value is not None and not math.isnan(value)
    ]
    names = list(kept[0][0]) if kept else []
    family = GaugeMetricFamily(f"visionloop_{name}", about, labels=names)
    for labels, value in kept:
        family.add_metric([labels[key] for key in names], value)
    return family


_Told = Iterator[tuple[str, str, list[Sample]]]


def _told(health: Health) -> _Told:
    yield from _verdict(health.data)
    yield from _flags(health.data)
    yield from _rounds(health)
    yield from _models(health.data)
    yield from _counts(health.data)
    yield from _stages(health)
    yield from _drift(health.data)
    yield from _acts(health)
    yield from _outbox(health)


def _verdict(data: ReportData) -> _Told:
    state = data.verdict.state.replace(" ", "_")
    yield (
        "verdict",
        "1 for the report's verdict on the loop, 0 for the others",
        [({"state": one}, one == state) for one in VERDICTS],
    )
    found = [finding.severity for finding in data.verdict.findings]
    yield (
        "findings",
        "What the report finds odd",
        [({"severity": one}, found.count(one)) for one in _SEVERITIES],
    )


def _flags(data: ReportData) -> _Told:
    kinds = sorted({*KINDS, *data.flag_counts})
    about = {kind: {"kind": kind, "severity": severity_of(kind)} for kind in kinds}
    now, new = data.flag_counts, data.new_flags
    yield (
        "flags",
        "Flags that count now",
        [(about[kind], now.get(kind, 0)) for kind in kinds],
    )
    yield (
        "flags_new",
        "Flags that the newest round brought",
        [({"kind": kind}, new.get(kind, 0)) for kind in kinds],
    )
    named = [one for one in data.standing if one.subject_type in _NAMED_TYPES][:NAMED]
    labels = {
        (one.kind, one.subject_type, one.subject): {
            "kind": one.kind,
            "severity": one.severity,
            "subject_type": one.subject_type,
            "subject": one.subject,
        }
        for one in named
    }
    yield (
        "flagged",
        "1 for each camera, source, endpoint, stage, model or class with a flag that counts now",
        [(held, 1) for held in labels.values()],
    )


def _rounds(health: Health) -> _Told:
    states = [one.state for one in health.data.rounds]
    yield "rounds", "Rounds", [({"state": one}, states.count(one)) for one in _ROUNDS]
    yield (
        "last_round_timestamp_seconds",
        "When the newest finished round ended",
        [({}, _time(health.ended))],
    )
    yield (
        "round_waiting_timestamp_seconds",
        "Since when the open round waits for labels",
        [({}, _time(health.waiting))],
    )
    newest = health.data.rounds[-1] if health.data.rounds else None
    yield (
        "labels_missing",
        "Labels that the open round waits for",
        [({}, newest.missing_labels if newest and newest.state == "waiting" else 0)],
    )


def _models(data: ReportData) -> _Told:
    yield from _rate(
        "accuracy",
        "Accuracy on the holdout of the model in service",
        [({}, data.in_service_accuracy)],
    )
    served = next((one for one in data.models if one.model_id == data.in_service), None)
    yield from _rate(
        "calibration_error",
        "Expected calibration error of the model in service",
        [({}, served.ece if served else None)],
    )
    newest = _by_endpoint(
        data.windows, lambda one: (one.round_id, one.model_id == data.in_service, one.n)
    )
    yield from _rate(
        "expected_accuracy",
        "Accuracy that calibrated confidences promise in the newest window of an endpoint",
        [({"endpoint": name}, window.expected) for name, window in newest.items()],
    )
    # It is held against the holdout's accuracy of the model in service, so it is of that model or
    # of none: an earlier one's would accuse the model that was trained to do better.
    serving = [one for one in data.windows if one.model_id == data.in_service]
    own = _by_endpoint(serving, lambda one: (one.round_id, one.n))
    yield from _rate(
        "production_accuracy",
        "Accuracy in production of the model in service, by labels of random picks",
        [({"endpoint": name}, window.by_labels) for name, window in own.items()],
    )


def _by_endpoint(
    windows: Iterable[Window], rank: Callable[[Window], tuple[Any, ...]]
) -> dict[str, Window]:
    """Return the window that ranks highest of each endpoint, of many those that rank highest.

    Names of endpoints come with events: whoever may send these could name any number.
    """
    found: dict[str, Window] = {}
    for one in reversed(sorted(windows, key=rank)):
        if len(found) < NAMED:
            found.setdefault(one.endpoint, one)
    return found


def _counts(data: ReportData) -> _Told:
    yield "samples", "Samples in the lake", [({}, data.n_samples)]
    yield "holdout_samples", "Samples of the frozen holdout", [({}, data.n_holdout)]
    yield (
        "labels",
        "Labels bought, by what for",
        [
            ({"purpose": "training"}, data.cost.labels),
            ({"purpose": "holdout"}, data.cost.holdout_labels),
        ],
    )
    yield (
        "pool_samples",
        "Samples that are left to choose from, as the newest monitor counted them",
        [({}, data.left_to_select)],
    )
    funnels = [one.funnel for one in data.rounds]
    yield (
        "files",
        "Files found, by what their check said",
        [({"state": state}, sum(getattr(one, state) for one in funnels)) for state in STATES],
    )
    yield (
        "round_files",
        "Files that the newest round found, by what their check said",
        [({"state": state}, getattr(funnels[-1], state) if funnels else 0) for state in STATES],
    )
    events = dict.fromkeys(_EVENTS, 0)
    for one in data.harvest:
        events[one.state] = events.get(one.state, 0) + one.count
    yield (
        "events",
        "Logged events, by what became of them",
        [({"state": state}, n) for state, n in events.items()],
    )


def _stages(health: Health) -> _Told:
    named = sorted(health.stages.items())
    yield (
        "stage_last_success_timestamp_seconds",
        "When a stage last succeeded",
        [({"stage": name}, _time(held.succeeded)) for name, held in named],
    )
    yield (
        "stage_last_duration_seconds",
        "How long a stage's newest success took",
        [({"stage": name}, held.seconds) for name, held in named],
    )
    failed = {one.stage: one for one in health.data.failed}
    yield (
        "stage_failed",
        "1 for a stage that failed and has not succeeded since",
        [({"stage": name}, name in failed) for name in sorted({*health.stages, *failed})],
    )
    yield (
        "stage_failed_timestamp_seconds",
        "When such a stage last failed",
        [({"stage": name}, _time(held.at)) for name, held in sorted(failed.items())],
    )
    yield "work_seconds", "Seconds of work of all stages", [({}, health.data.cost.seconds)]
    hours = health.data.cost.gpu_hours
    yield (
        "gpu_seconds",
        "Seconds of work on record with a GPU",
        [({}, None if hours is None else hours * 3600)],
    )


def _drift(data: ReportData) -> _Told:
    series = [one for one in data.drift if one.points][:NAMED]
    about = [
        {"kind": one.kind, "subject_type": one.subject_type, "subject": one.subject}
        for one in series
    ]
    last = [one.points[-1] for one in series]
    yield (
        "drift_score",
        "The newest comparison of a window with its reference",
        [(labels, point.score) for labels, point in zip(about, last, strict=True)],
    )
    yield (
        "drift_threshold",
        "What the score of drift is held against",
        [(labels, point.threshold) for labels, point in zip(about, last, strict=True)],
    )
    yield (
        "drifted",
        "1 where the newest comparison is drift, 0 where it is none",
        [
            (labels, point.state == DRIFT if point.score is not None else None)
            for labels, point in zip(about, last, strict=True)
        ],
    )


def _acts(health: Health) -> _Told:
    acts = health.acts
    yield "publication_blocked", "1 while no model is published", [({}, acts.block is not None)]
    yield (
        "publication_blocked_timestamp_seconds",
        "Since when no model is published",
        [({}, _time(acts.block.since) if acts.block else None)],
    )
    yield (
        "rolled_back_models",
        "Models that an earlier one took the place of",
        [({}, len(acts.rolled_back))],
    )
    yield (
        "rollback_timestamp_seconds",
        "When an earlier model was last brought back",
        [({}, _time(acts.last_swap))],
    )
    waits = acts.called_for
    yield (
        "rollback_waiting_timestamp_seconds",
        "Since when a rollback that was decided waits to be done",
        [({}, _time(waits.at) if waits else None)],
    )
    yield (
        "random_share_raised",
        "1 while more is chosen at random than configured",
        [({}, acts.share is not None)],
    )
    yield "random_share_ratio", "To what the random share is raised", [({}, acts.random_share)]
    yield (
        "decision_timestamp_seconds",
        "When a decision was last taken",
        [
            ({"decision": decision, "outcome": outcome}, _time(when))
            for (decision, outcome), when in sorted(health.decided.items())
        ],
    )


def _outbox(health: Health) -> _Told:
    yield "notifications_waiting", "Notifications that could not be sent yet", [({}, health.outbox)]
    yield (
        "notifications_waiting_timestamp_seconds",
        "Since when the oldest of them waits",
        [({}, health.outbox_since)],
    )


def _rate(name: str, about: str, samples: list[tuple[dict[str, str], Rate | None]]) -> _Told:
    held = [(labels, rate) for labels, rate in samples if rate is not None and rate.n]
    yield f"{name}_ratio", about, [(labels, rate.value) for labels, rate in held]
    yield (
        f"{name}_low_ratio",
        f"{about}: low end of the 95% interval",
        [(labels, rate.low) for labels, rate in held],
    )
    yield (
        f"{name}_high_ratio",
        f"{about}: high end of the 95% interval",
        [(labels, rate.high) for labels, rate in held],
    )
    yield (
        f"{name}_answers",
        f"{about}: answers behind it",
        [(labels, rate.n) for labels, rate in held],
    )


def _time(when: datetime | None) -> float | None:
    return when.timestamp() if when else None
