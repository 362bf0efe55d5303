"""Stage `monitor`: check what came in, and what the deployed model says."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_dataset,
    write_page,
)
from visionloop.stages.monitor_labels import check_labels, label_metrics, label_page
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run
    from visionloop.monitoring.deployed import Comparison
    from visionloop.monitoring.estimating import Estimated
    from visionloop.monitoring.samples import Checked


class MonitorOutputs(NamedTuple):
    """What `monitor` returns.

    Attributes:
        lake_version: Lake version with the checks; the one read if there was nothing to write.
        n_checked: Files newly checked.
        n_flagged: Files newly flagged, those that cannot be read not counted.
    """

    lake_version: str
    n_checked: int
    n_flagged: int


@stage
def monitor(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    flags: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> MonitorOutputs:
    """Check the files that have no check yet, all labels, and the newest deployed confidences.

    Each file ends as ok, flagged, unreadable or unchecked, and the four add up to the input; each
    label as ok, flagged (likely wrong) or unchecked.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the pipeline is at, the key of its cache; the newest is read.
        round_id: The round; empty for the open one.
        flags: Receives the new flags as Parquet.
        metrics: Receives the number of files in each state and of flags of each kind.
        page: Receives a Markdown page.
    """
    import pyarrow as pa

    from visionloop.monitoring.estimating import estimate_rows, same_estimates
    from visionloop.monitoring.pixels import read_greys, read_pixels
    from visionloop.monitoring.samples import check_samples
    from visionloop.progress import progress
    from visionloop.selection.material import space_of_inference

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    thresholds = loop.monitoring
    with opened.run(stage="monitor", round_id=round_id) as run:
        now = datetime.now(UTC)
        space = space_of_inference(opened, run.base)
        with progress("monitor", unit="files") as bar:
            checked = check_samples(
                run.read("files"),
                run.read("samples"),
                run.read("metadata"),
                run.read("checks", columns=["subject", "generation"]),
                thresholds,
                now=now,
                read_greys=lambda places: read_greys(opened, places, run.base),
                read_pixels=lambda uris: read_pixels(opened, uris),
                read_vectors=lambda: opened.embedding_blocks(space, version=run.base),
            )
            bar.advance(checked.n_in)
            bar.note(f"{checked.states['flagged']} flagged")
        comparisons, estimated = _deployed(opened, run, loop)
        drifted = drift_flags(comparisons, now)
        run.append("checks", checked.checks)
        run.append("flags", checked.flags)
        labels, suspects = check_labels(opened, run, loop, space, now)
        if drifted.num_rows or _has_drift_flags(run):
            # Endpoints are judged once a round, however often its monitor runs.
            run.replace(
                "flags",
                drifted,
                f"round_id == '{run.round_id}' and subject_type == 'endpoint'",
            )
        estimates = estimate_rows(estimated, now)
        mine = f"round_id == '{run.round_id}'"
        held = run.read("estimates", where=mine)
        if not same_estimates(held, estimates):
            run.replace("estimates", estimates, mine)
        version = run.commit(
            counts={"in": checked.n_in, **checked.states},
            outputs={"kinds": checked.kinds, "drift": drifted.num_rows, "labels": labels},
        )
    new_flags = pa.concat_tables([checked.flags, drifted, suspects])
    write_dataset(flags, new_flags)
    log_metrics(
        metrics,
        {
            "n_in": checked.n_in,
            **{f"n_{state}": n for state, n in checked.states.items()},
            **{f"flag_{kind}": n for kind, n in sorted(checked.kinds.items())},
            "flag_drift": drifted.num_rows,
            **label_metrics(labels),
            **_estimate_metrics(estimated),
        },
    )
    write_page(page, _page(checked, comparisons, estimated) + label_page(labels))
    return MonitorOutputs(
        version, checked.n_in - checked.states["unchecked"], checked.states["flagged"]
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


def _deployed(lake: Lake, run: Run, loop: LoopConfig) -> tuple[list[Comparison], list[Estimated]]:
    """Compare the newest windows of deployed confidences, and estimate their accuracy."""
    from visionloop.monitoring.deployed import (
        WINDOW_COLUMNS,
        compare_window,
        deployed_windows,
        holdout_references,
        newest_windows,
    )
    from visionloop.monitoring.estimating import Evidence

    windows = deployed_windows(run.read("confidences", columns=[*WINDOW_COLUMNS]))
    if not windows:
        return [], []
    samples = run.read("samples", columns=["sample_id"], where="split == 'holdout'")
    references = holdout_references(
        run.read("predictions", columns=["sample_id", "model_id", "label", "confidence"]),
        set(samples["sample_id"].to_pylist()),
    )
    evidence = Evidence(lake, run, loop.task, loop.monitoring)
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


def _has_drift_flags(run: Run) -> bool:
    mine = f"round_id == '{run.round_id}' and subject_type == 'endpoint'"
    return bool(run.read("flags", columns=["subject"], where=mine).num_rows)


def _page(checked: Checked, comparisons: list[Comparison], estimated: list[Estimated]) -> str:
    states: list[tuple[Any, ...]] = [(state, n) for state, n in checked.states.items()]
    parts = [
        "# Checks\n",
        markdown_table(["state", "files"], [*states, ("in", checked.n_in)]),
        "\n## Flags\n",
    ]
    if checked.kinds:
        kinds = sorted(checked.kinds.items(), key=lambda item: (-item[1], item[0]))
        parts.append(markdown_table(["kind", "flags"], kinds))
        parts.append("\n" + markdown_table(["kind", "subject", "evidence"], _examples(checked)))
    else:
        parts.append("Nothing was flagged.")
    parts.append("\n## Deployed confidences\n")
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


def _examples(checked: Checked, most: int = 5) -> list[tuple[str, str, str]]:
    shown: Counter[str] = Counter()
    rows = []
    for flag in checked.flags.to_pylist():
        shown[flag["kind"]] += 1
        if shown[flag["kind"]] <= most:
            rows.append((flag["kind"], flag["subject"], flag["evidence"]))
    return rows
