"""The monitor's look at labels: which are likely wrong."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run


def check_labels(
    lake: Lake, run: Run, loop: LoopConfig, space: str, now: datetime
) -> tuple[dict[str, Any], pa.Table]:
    """Flag likely label errors in the place of those that were flagged before.

    What was judged once is not judged again as long as all is the same that it was judged by: the
    labels, the answers, the embeddings, which samples are held out, the models and the classes.

    Args:
        lake: The lake.
        run: The monitor's run.
        loop: The loop's configuration.
        space: The embedding space; empty where there is none.
        now: Written as ``flagged_at``.

    Returns:
        What the run's outputs hold: in = ok + flagged + unchecked, why what is unchecked, what
        judged, the estimated share of wrong labels, and of which state of the tables it is. And
        the flags that are new.
    """
    from visionloop.labeling.trust.suspect_flags import WHERE, judge_labels, same_flags
    from visionloop.lake.schemas import arrow_schema

    tables = (
        "labels", "annotations", f"embeddings_{space}", "samples", "predictions", "experiments"
    )  # fmt: skip
    of = [*(lake.snapshot(name, version=run.base) for name in tables), loop.classes]
    held = _judged_before(lake)
    if held.get("of") == of:
        return held, arrow_schema("flags").empty_table().drop_columns(["round_id", "run_id"])
    checks = judge_labels(lake, loop, space, run.base, now)
    if not same_flags(run.read("flags", where=WHERE), checks.flags):
        run.replace("flags", checks.flags, WHERE)
    told = {
        **checks.counts(),
        "why_unchecked": checks.unchecked,
        "told_by": checks.told_by,
        "wrong": checks.wrong,
        "of": of,
    }
    return told, checks.flags


def _judged_before(lake: Lake) -> dict[str, Any]:
    runs = lake.stage_runs(where="stage == 'monitor'").sort_by("sequence").to_pylist()
    outputs = json.loads(runs[-1]["outputs"] or "{}") if runs else {}
    found: dict[str, Any] = outputs.get("labels") or {}
    return found


def label_metrics(told: dict[str, Any]) -> dict[str, float]:
    """Return the counts as metrics."""
    return {f"n_labels_{name}": told[name] for name in ("ok", "flagged", "unchecked")}


def label_page(told: dict[str, Any]) -> str:
    """Return the section of the monitor's page about labels, empty where there are none."""
    if not told["in"]:
        return ""
    rows = [(name, told[name]) for name in ("ok", "flagged", "unchecked", "in")]
    parts = ["\n## Labels\n", markdown_table(["state", "labels"], rows)]
    if told["why_unchecked"]:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(told["why_unchecked"].items()))
        parts.append(f"\nUnchecked: {why}.")
    if told["wrong"] is not None:
        parts.append(
            f"\nAbout {told['wrong']:.1%} of the labels that were judged are wrong, as models that "
            "did not train on them tell; the flags `label_suspect` name the likeliest."
        )
    return "\n".join(parts) + "\n"
