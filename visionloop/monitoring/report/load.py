"""From the lake's tables to the report's data. Reads only; every table may be empty."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.labeling.answers import MODEL, latest_labels
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.deployed import (
    WINDOW_COLUMNS,
    Deployed,
    compare_window,
    deployed_windows,
    holdout_references,
)
from visionloop.monitoring.intervals import Rate, wilson
from visionloop.monitoring.report.counts import file_states, funnels
from visionloop.monitoring.report.data import (
    Confusion,
    Funnel,
    HarvestCount,
    ReportData,
    Round,
    Slice,
    Window,
)
from visionloop.monitoring.report.galleries import flag_kinds, selection_galleries

if TYPE_CHECKING:
    from visionloop.lake import Lake

BINS = 20
# Opening and letting go of a round is bookkeeping, not a stage of the loop.
_BOOKKEEPING = frozenset({"open_round", "release_round", "watch"})

Planted = Mapping[str, Mapping[str, int]]


def load_report(
    lake: Lake,
    *,
    version: str | None = None,
    planted: Planted | None = None,
    thresholds: MonitoringConfig | None = None,
) -> ReportData:
    """Read all that the report shows.

    Args:
        lake: The lake.
        version: Lake version to describe, the newest by default.
        planted: Defects that were put in on purpose, ``{round id: {kind: n}}``.
        thresholds: When drift counts, and which slices are small.
    """
    version = version or lake.version()
    thresholds = thresholds or MonitoringConfig()

    def read(table: str, *columns: str) -> pa.Table:
        return lake.read(table, columns=list(columns) or None, version=version or None)

    runs = _stage_runs(lake, version)
    samples = read("samples", "sample_id", "uri", "split")
    selections = read("selections")
    experiments = sorted(
        read("experiments").to_pylist(), key=lambda row: (row["round_id"], str(row["trained_at"]))
    )
    decisions = sorted(
        read("decisions").to_pylist(), key=lambda row: (row["round_id"], str(row["decided_at"]))
    )
    splits = dict(zip(samples["sample_id"].to_pylist(), samples["split"].to_pylist(), strict=True))
    holdout = {sample for sample, split in splits.items() if split == "holdout"}
    # Labels that people gave: a model's cost nothing.
    answers = read("labels").to_pylist()
    known_labels = latest_labels(row for row in answers if row["origin"] != MODEL)
    loop_models = [row for row in experiments if row["arm"] != "random"]
    n_holdout = len(holdout & set(known_labels))

    states = file_states(
        read("files", "uri", "generation", "state", "sample_id", "round_id", "found_at"),
        samples,
        read("checks", "subject", "generation", "state"),
    )
    found = funnels(
        states,
        selections,
        set(known_labels),
        {row["round_id"]: row["n_labels"] for row in loop_models if row["n_labels"]},
        runs,
    )
    rounds = _rounds(
        read("rounds").to_pylist(), found, experiments, decisions, runs, n_holdout or len(holdout)
    )
    in_service = _in_service(decisions, loop_models)
    evaluated = next((row for row in reversed(loop_models) if row["confusion"]), None)
    flags = read("flags")
    return ReportData(
        loop=lake.loop,
        lake=lake.uri,
        version=version,
        as_of=max((row["finished_at"] for row in runs if row["finished_at"]), default=None),
        rounds=rounds,
        in_service=in_service,
        in_service_accuracy=next(
            (r.accuracy for r in rounds if in_service and r.model_id == in_service), None
        ),
        n_samples=samples.num_rows,
        n_holdout=len(holdout),
        n_labels=len(set(known_labels) - holdout),
        selections=selection_galleries(lake, selections, samples, known_labels),
        flags=flag_kinds(lake, flags, samples, planted),
        confusion=_confusion(evaluated),
        slices=_slices(evaluated, thresholds),
        evaluated=evaluated["model_id"] if evaluated else "",
        windows=_windows(
            read("confidences", *WINDOW_COLUMNS),
            read("predictions", "sample_id", "model_id", "label", "confidence"),
            holdout,
            thresholds,
            _Estimates(read("estimates"), flags),
        ),
        harvest=_harvest(read("harvest_events", "state", "reason")),
    )


def _stage_runs(lake: Lake, version: str) -> list[dict[str, Any]]:
    rows = sorted(lake.stage_runs().to_pylist(), key=lambda row: row["sequence"])
    # A report of an older version does not know what came after it.
    last = max((row["sequence"] for row in rows if row["version"] == version), default=None)
    return rows if last is None else [row for row in rows if row["sequence"] <= last]


def _json(text: str | None) -> Any:
    return json.loads(text) if text else {}


def _rate(metrics: Mapping[str, Any], n_holdout: int) -> Rate | None:
    value = metrics.get("accuracy")
    if value is None:
        return None
    n = int(metrics.get("n", n_holdout))
    return wilson(min(n, max(0, round(value * n))), n) if n else None


def _rounds(
    held: list[dict[str, Any]],
    found: Mapping[str, Funnel],
    experiments: list[dict[str, Any]],
    decisions: list[dict[str, Any]],
    runs: list[dict[str, Any]],
    n_holdout: int,
) -> tuple[Round, ...]:
    by_id = {row["round_id"]: row for row in held}
    # What came in between two rounds is told of; a harvest alone does not make a round.
    brought = {round_id for round_id, funnel in found.items() if funnel != Funnel()}
    rounds = []
    for round_id in sorted(set(by_id) | brought):
        row = by_id.get(round_id, {})
        counts = _json(row.get("counts"))
        own = [e for e in experiments if e["round_id"] == round_id]
        loop = next((e for e in reversed(own) if e["arm"] != "random"), None)
        random = next((e for e in reversed(own) if e["arm"] == "random"), None)
        gate = next(
            (
                d
                for d in reversed(decisions)
                if d["decision"] == "gate" and loop and d["subject"] == loop["model_id"]
            ),
            None,
        )
        waiting = row.get("state") == "waiting"
        rounds.append(
            Round(
                round_id,
                state=row.get("state") or "",
                outcome=row.get("outcome") or "",
                funnel=found.get(round_id, Funnel()),
                labels=loop["n_labels"] if loop else None,
                accuracy=_rate(_json(loop["metrics"]), n_holdout) if loop else None,
                random_accuracy=_rate(_json(random["metrics"]), n_holdout) if random else None,
                model_id=loop["model_id"] if loop else "",
                gate=gate["outcome"] if gate else "",
                gate_reason=(gate["reason"] or "") if gate else "",
                missing_labels=int(counts.get("labels_missing", 0)) if waiting else 0,
                spaces=_spaces(runs, round_id),
                seconds=_seconds(runs, round_id),
                opened_at=row.get("opened_at"),
            )
        )
    return tuple(rounds)


def _seconds(runs: list[dict[str, Any]], round_id: str) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in runs:
        if row["round_id"] != round_id or row["stage"] in _BOOKKEEPING:
            continue
        began: datetime | None = row["started_at"]
        ended: datetime | None = row["finished_at"]
        if began and ended:
            # A clock that was set back must not give negative work.
            spent = max(0.0, (ended - began).total_seconds())
            seconds[row["stage"]] = seconds.get(row["stage"], 0.0) + spent
    return seconds


def _spaces(runs: list[dict[str, Any]], round_id: str) -> tuple[tuple[str, str], ...]:
    for row in reversed(runs):
        outputs = _json(row["outputs"])
        if row["round_id"] == round_id and row["stage"] == "infer" and outputs.get("space"):
            found = [(str(outputs["space"]), str(outputs.get("source") or ""))]
            if outputs.get("model_space"):
                found.append((str(outputs["model_space"]), f"model {outputs.get('model_id')}"))
            return tuple(found)
    return ()


def _in_service(decisions: list[dict[str, Any]], models: list[dict[str, Any]]) -> str:
    for row in reversed(decisions):
        if row["decision"] in ("publish", "rollback") and row["outcome"] == "published":
            return str(row["subject"])
    return next((str(m["model_id"]) for m in reversed(models) if m["state"] == "in_service"), "")


def _confusion(model: Mapping[str, Any] | None) -> Confusion | None:
    content = _json(model["confusion"]) if model else {}
    if not content.get("classes"):
        return None
    return Confusion(
        tuple(str(name) for name in content["classes"]),
        tuple(tuple(int(n) for n in row) for row in content["counts"]),
    )


def _slices(model: Mapping[str, Any] | None, thresholds: MonitoringConfig) -> tuple[Slice, ...]:
    rows = _json(model["slices"]) if model and model["slices"] else []
    found = []
    for row in rows:
        n = int(row["n"])
        rate = wilson(min(n, max(0, round(row["accuracy"] * n))), n)
        small = n < thresholds.small_slice_below
        found.append(Slice(str(row["column"]), str(row["value"]), rate, small))
    return tuple(found)


class _Estimates:
    """What monitors estimated of each window, the newest counting, and which moved elsewhere."""

    def __init__(self, estimates: pa.Table, flags: pa.Table) -> None:
        rows = [row for row in estimates.to_pylist() if row["label"] is None]
        rows.sort(key=lambda row: (row["round_id"], str(row["estimated_at"])))
        self._rows = {
            (row["endpoint"], row["model_id"], row["harvested_in_round"]): row for row in rows
        }
        self._moved: dict[tuple[str, str, str], dict[str, str]] = {}
        for row in flags.filter(pc.equal(flags["kind"], "embedding_drift")).to_pylist():
            for told in _json(row["evidence"]).get("comparisons", []):
                key = (row["subject"], told["model_id"], told["round_id"])
                self._moved.setdefault(key, {})[told["against"]] = (
                    f"Embedding drift against {told['against']}: {told['score']:.2f}, "
                    f"threshold {told['threshold']:.2f}"
                )

    def moved(self, window: Deployed) -> list[str]:
        key = (window.endpoint, window.model_id, window.round_id)
        return list(self._moved.get(key, {}).values())

    def rate(self, window: Deployed, harvested_in_round: str) -> Rate | None:
        row = self._rows.get((window.endpoint, window.model_id, harvested_in_round))
        if row is None or row["value"] is None:
            return None
        return Rate(row["value"], row["low"], row["high"], row["n"])

    def refused(self, window: Deployed) -> str:
        row = self._rows.get((window.endpoint, window.model_id, window.round_id))
        return str(row["reason"] or "") if row else ""


def _windows(
    confidences: pa.Table,
    predictions: pa.Table,
    holdout: set[str],
    thresholds: MonitoringConfig,
    estimates: _Estimates,
) -> tuple[Window, ...]:
    deployed = deployed_windows(confidences)
    references = holdout_references(predictions, holdout)
    windows = []
    for window in deployed:
        drifted = [
            f"{c.drift.kind.replace('_', ' ').capitalize()} against {c.reference}: "
            f"{c.drift.score:.2f}, threshold {c.drift.threshold:.2f}"
            for c in compare_window(window, deployed, references, thresholds)
            if c.drift.state == "drift"
        ]
        reference = references.get(window.model_id)
        windows.append(
            Window(
                window.round_id,
                window.endpoint,
                window.model_id,
                len(window.confidences),
                estimates.rate(window, window.round_id),
                _shares(window.confidences),
                _shares(reference[0]) if reference else (),
                (*drifted, *estimates.moved(window)),
                estimates.refused(window),
                estimates.rate(window, ""),
            )
        )
    return tuple(windows)


def _shares(values: Any) -> tuple[float, ...]:
    counts, _ = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    return tuple(float(share) for share in counts / max(1, counts.sum()))


def _harvest(events: pa.Table) -> tuple[HarvestCount, ...]:
    counted = Counter(zip(events["state"].to_pylist(), events["reason"].to_pylist(), strict=True))
    rows = [HarvestCount(state or "", reason or "", n) for (state, reason), n in counted.items()]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.state, row.reason)))
