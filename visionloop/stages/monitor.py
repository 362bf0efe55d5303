"""Stage `monitor`: check what came in, what the deployed model says, the labels and the loop."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import NamedTuple

from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    write_dataset,
    write_page,
)
from visionloop.stages.monitor_answers import check_answers
from visionloop.stages.monitor_drift import check_drift
from visionloop.stages.monitor_labels import check_labels
from visionloop.stages.monitor_loop import check_loop
from visionloop.stages.monitor_page import monitor_page
from visionloop.stages.monitor_part import Look
from visionloop.stages.monitor_samples import check_new_samples
from visionloop.stages.monitor_sources import check_sources
from visionloop.stages.opening import open_stage
from visionloop.task import stage


class MonitorOutputs(NamedTuple):
    """What `monitor` returns.

    Attributes:
        lake_version: Lake version with the checks; the one read if there was nothing to write.
        n_checked: Files newly checked.
        n_flagged: Files newly flagged, those that cannot be read not counted.
        n_new_flags: New flags of all kinds: of files, labels, drift and the loop.
    """

    lake_version: str
    n_checked: int
    n_flagged: int
    n_new_flags: int


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
    """Check the files without a check, all labels, the newest deployed confidences, the loop.

    Each file ends as ok, flagged, unreadable, no picture or unchecked, and the five add up to the
    input; each label as ok, flagged (in doubt) or unchecked.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the pipeline is at; the newest is read.
        round_id: The round; empty for the open one.
        flags: Receives the new flags as Parquet.
        metrics: Receives the number of files in each state and of new flags of each kind.
        page: Receives a Markdown page.
    """
    from visionloop.monitoring.findings import rows_table
    from visionloop.monitoring.unjudged import of_comparisons, of_labels
    from visionloop.selection.material import space_of_inference

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    with opened.run(stage="monitor", round_id=round_id) as run:
        space = space_of_inference(opened, run.base)
        look = Look(opened, run, loop, space, datetime.now(UTC))
        checked, samples = check_new_samples(look)
        parts = [
            samples,
            check_drift(look),
            check_labels(look),
            check_answers(look),
            check_sources(look),
            check_loop(look),
        ]
        outputs = {name: value for part in parts for name, value in part.outputs.items()}
        not_judged = [
            *(one for part in parts for one in part.not_judged),
            *of_labels(outputs["labels"]),
            *of_comparisons(outputs["comparisons"]),
        ]
        version = run.commit(
            counts={"in": checked.n_in, **checked.states},
            outputs={**outputs, "not_judged": [one.plain() for one in not_judged]},
        )
    new = [row for part in parts for row in part.new]
    kinds = Counter(row["kind"] for row in new)
    write_dataset(flags, rows_table("flags", new))
    log_metrics(
        metrics,
        {
            **{f"flag_{kind}": n for kind, n in sorted(kinds.items())},
            **{name: value for part in parts for name, value in part.metrics.items()},
            "n_not_judged": float(len(not_judged)),
        },
    )
    if page is not None:
        sections = [part.page for part in parts]
        write_page(page, monitor_page(opened, version, new, sections, not_judged))
    n_checked = checked.n_in - checked.states["unchecked"]
    return MonitorOutputs(version, n_checked, checked.states["flagged"], len(new))
