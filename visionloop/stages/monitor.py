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
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.lake.run import Run
    from visionloop.monitoring.config import MonitoringConfig
    from visionloop.monitoring.deployed import Comparison
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
    """Check the files that have no check yet, and the newest deployed confidences.

    Each file ends as ok, flagged, unreadable or unchecked, and the four add up to the input.

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

    from visionloop.monitoring.pixels import read_greys, read_pixels
    from visionloop.monitoring.samples import check_samples
    from visionloop.progress import progress

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    thresholds = loop.monitoring
    with opened.run(stage="monitor", round_id=round_id) as run:
        now = datetime.now(UTC)
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
            )
            bar.advance(checked.n_in)
            bar.note(f"{checked.states['flagged']} flagged")
        comparisons = _comparisons(run, thresholds)
        drifted = drift_flags(comparisons, now)
        run.append("checks", checked.checks)
        run.append("flags", checked.flags)
        if drifted.num_rows or _has_drift_flags(run):
            # Endpoints are judged once a round, however often its monitor runs.
            run.replace(
                "flags",
                drifted,
                f"round_id == '{run.round_id}' and subject_type == 'endpoint'",
            )
        version = run.commit(
            counts={"in": checked.n_in, **checked.states},
            outputs={"kinds": checked.kinds, "drift": drifted.num_rows},
        )
    new_flags = pa.concat_tables([checked.flags, drifted])
    write_dataset(flags, new_flags)
    log_metrics(
        metrics,
        {
            "n_in": checked.n_in,
            **{f"n_{state}": n for state, n in checked.states.items()},
            **{f"flag_{kind}": n for kind, n in sorted(checked.kinds.items())},
            "flag_drift": drifted.num_rows,
        },
    )
    write_page(page, _page(checked, comparisons))
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


def _comparisons(run: Run, thresholds: MonitoringConfig) -> list[Comparison]:
    from visionloop.monitoring.deployed import (
        compare_window,
        deployed_windows,
        holdout_references,
        newest_windows,
    )

    windows = deployed_windows(
        run.read("confidences", columns=["round_id", "endpoint", "model_id", "label", "confidence"])
    )
    if not windows:
        return []
    samples = run.read("samples", columns=["sample_id", "split"]).to_pylist()
    references = holdout_references(
        run.read("predictions", columns=["sample_id", "model_id", "label", "confidence"]),
        {row["sample_id"] for row in samples if row["split"] == "holdout"},
    )
    return [
        comparison
        for window in newest_windows(windows)
        for comparison in compare_window(window, windows, references, thresholds)
    ]


def _has_drift_flags(run: Run) -> bool:
    mine = f"round_id == '{run.round_id}' and subject_type == 'endpoint'"
    return bool(run.read("flags", columns=["subject"], where=mine).num_rows)


def _page(checked: Checked, comparisons: list[Comparison]) -> str:
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
    return "\n".join(parts) + "\n"


def _examples(checked: Checked, most: int = 5) -> list[tuple[str, str, str]]:
    shown: Counter[str] = Counter()
    rows = []
    for flag in checked.flags.to_pylist():
        shown[flag["kind"]] += 1
        if shown[flag["kind"]] <= most:
            rows.append((flag["kind"], flag["subject"], flag["evidence"]))
    return rows
