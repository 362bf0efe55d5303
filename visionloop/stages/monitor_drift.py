"""The monitor's look at what the deployed model says: drift, and the accuracy in production."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table
from visionloop.stages.monitor_part import Look, Part

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.monitoring.deployed import Comparison
    from visionloop.monitoring.estimating import Estimated


def check_drift(look: Look) -> Part:
    """Compare the newest windows of deployed confidences, and estimate their accuracy.

    Args:
        look: What the monitor looks at.
    """
    from visionloop.monitoring.estimating import estimate_rows, same_estimates

    run = look.run
    comparisons, estimated = _deployed(look)
    drifted = drift_flags(comparisons, look.now)
    mine = f"round_id == '{run.round_id}'"
    of_endpoints = f"{mine} and subject_type == 'endpoint'"
    if drifted.num_rows or run.read("flags", columns=["subject"], where=of_endpoints).num_rows:
        # Endpoints are judged once a round, however often its monitor runs.
        run.replace("flags", drifted, of_endpoints)
    estimates = estimate_rows(estimated, look.now)
    if not same_estimates(run.read("estimates", where=mine), estimates):
        run.replace("estimates", estimates, mine)
    return Part(
        drifted.to_pylist(),
        {"flag_drift": float(drifted.num_rows), **_estimate_metrics(estimated)},
        _page(comparisons, estimated),
        {"drift": drifted.num_rows},
    )


def drift_flags(comparisons: list[Comparison], now: datetime) -> pa.Table:
    """Return the rows of ``flags`` for the comparisons that found drift.

    Args:
        comparisons: What was compared.
        now: Written as ``flagged_at``.
    """
    from visionloop.monitoring.findings import rows_table

    rows = [
        {
            "subject": c.window.endpoint,
            "subject_type": "endpoint",
            "stage": "monitor",
            "kind": c.drift.kind,
            "score": c.drift.score,
            "threshold": c.drift.threshold,
            "evidence": json.dumps(
                {
                    "model_id": c.window.model_id,
                    "harvested_in_round": c.window.round_id,
                    "reference": c.reference,
                    "n_reference": c.drift.n_reference,
                    "n_current": c.drift.n_current,
                    "p_value": c.drift.p_value,
                },
                sort_keys=True,
            ),
            "flagged_at": now,
        }
        for c in comparisons
        if c.drift.state == "drift"
    ]
    return rows_table("flags", rows)


def _deployed(look: Look) -> tuple[list[Comparison], list[Estimated]]:
    from visionloop.monitoring.deployed import (
        WINDOW_COLUMNS,
        compare_window,
        deployed_windows,
        holdout_references,
        newest_windows,
    )
    from visionloop.monitoring.estimating import Evidence

    run, loop = look.run, look.loop
    windows = deployed_windows(run.read("confidences", columns=[*WINDOW_COLUMNS]))
    if not windows:
        return [], []
    samples = run.read("samples", columns=["sample_id"], where="split == 'holdout'")
    references = holdout_references(
        run.read("predictions", columns=["sample_id", "model_id", "label", "confidence"]),
        set(samples["sample_id"].to_pylist()),
    )
    evidence = Evidence(look.lake, run, loop.task, loop.monitoring)
    comparisons: list[Comparison] = []
    estimated: list[Estimated] = []
    for window in newest_windows(windows):
        comparisons += compare_window(window, windows, references, loop.monitoring)
        comparisons += evidence.embedding_comparisons(window, windows)
        estimated += [*evidence.from_confidences(window), evidence.from_random_picks(window)]
    return comparisons, estimated


def _estimate_metrics(estimated: list[Estimated]) -> dict[str, float]:
    """Return what KFP keeps as numbers: each estimate over all, unless it is refused."""
    values: dict[str, float] = {"n_estimates_refused": 0.0}
    for one in estimated:
        if one.label:
            continue
        if one.estimate.state == "refused":
            values["n_estimates_refused"] += 1
            continue
        name = f"accuracy_by_{one.method} {one.endpoint} {one.model_id}"
        values |= {
            name: one.estimate.value,
            f"{name} low": one.estimate.low,
            f"{name} high": one.estimate.high,
        }
    return values


def _page(comparisons: list[Comparison], estimated: list[Estimated]) -> str:
    parts = ["## Deployed confidences\n"]
    if comparisons:
        rows = [
            (
                c.window.endpoint,
                c.window.model_id,
                c.drift.kind,
                c.reference,
                f"{c.drift.score:.3f}",
                f"{c.drift.threshold:.3f}",
                f"{c.drift.n_reference} / {c.drift.n_current}",
                c.drift.state,
            )
            for c in comparisons
        ]
        header = ["endpoint", "model", "kind", "against", "score", "threshold", "n", "result"]
        parts.append(markdown_table(header, rows))
    else:
        parts.append("No confidence has been harvested that could be compared.")
    if estimated:
        parts.append("\n## Accuracy in production\n")
        header = ["endpoint", "model", "by", "answers", "right", "95% interval", "n", "note"]
        parts.append(markdown_table(header, [_estimate_row(one) for one in estimated]))
    return "\n".join(parts) + "\n"


def _estimate_row(one: Estimated) -> tuple[Any, ...]:
    of, e = one.label or "all", one.estimate
    named = (one.endpoint, one.model_id, one.method.replace("_", " "), of)
    if e.state == "refused":
        return (*named, "refused", "", e.n, e.reason)
    covered = e.evidence.get("covered")
    note = "" if covered is None else f"of {covered:.0%} of {e.evidence['n_inferences']} inferences"
    return (*named, f"{e.value:.1%}", f"{e.low:.1%} to {e.high:.1%}", e.n, note)
