"""The monitor's look at labels: which are likely wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table
from visionloop.stages.monitor_part import Look, Part
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.lake import Lake


def check_labels(look: Look) -> Part:
    """Flag labels in doubt in the place of those that were flagged before.

    What was judged once is not judged again as long as all is the same that it was judged by: the
    labels, the answers, the embeddings, which samples are held out, the models and the classes.

    Args:
        look: What the monitor looks at.

    Returns:
        What was found. The run's outputs hold under ``labels``: in = ok + flagged + unchecked, why
        what is unchecked, what judged and how far it can be believed, and of which state of the
        tables it is.
    """
    from visionloop.labeling.trust.suspect_flags import KIND, judge_labels
    from visionloop.monitoring.standing import write_standing

    lake, run, loop = look.lake, look.run, look.loop
    tables = (
        "labels", "annotations", f"embeddings_{look.space}", "samples", "predictions", "experiments"
    )  # fmt: skip
    of = [*(lake.snapshot(name, version=run.base) for name in tables), loop.classes]
    told, new = _judged_before(lake), []
    if told.get("of") != of or "doubt" not in told:
        checks = judge_labels(lake, loop, look.space, run.base, look.now)
        new = write_standing(run, [KIND], checks.flags.to_pylist())
        told = {
            **checks.counts(),
            "why_unchecked": checks.unchecked,
            "told_by": checks.told_by,
            "doubt": checks.doubt,
            "of": of,
        }
    return Part(new, label_metrics(told), label_page(told), {"labels": told})


def _judged_before(lake: Lake) -> dict[str, Any]:
    runs = lake.stage_runs(where="stage == 'monitor'").sort_by("sequence").to_pylist()
    outputs = json.loads(runs[-1]["outputs"] or "{}") if runs else {}
    found: dict[str, Any] = outputs.get("labels") or {}
    return found


def label_metrics(told: dict[str, Any]) -> dict[str, float]:
    """Return the counts as metrics."""
    return {f"n_labels_{name}": float(told[name]) for name in ("ok", "flagged", "unchecked")}


def label_page(told: dict[str, Any]) -> str:
    """Return the section of the monitor's page about labels, empty where there are none."""
    if not told["in"]:
        return ""
    rows = [(name, told[name]) for name in ("ok", "flagged", "unchecked", "in")]
    parts = ["## Labels\n", markdown_table(["state", "labels"], rows)]
    if told["why_unchecked"]:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(told["why_unchecked"].items()))
        parts.append(f"\nUnchecked: {why}.")
    parts += _doubt(told)
    return "\n".join(parts) + "\n"


def _doubt(told: dict[str, Any]) -> list[str]:
    """Return what the models are worth against the labels, and how many of these are wrong."""
    held = told["doubt"]
    if held is None:
        return []
    agree = (
        f"Models that did not train on them agree with {held['agreement']:.0%} of "
        f"{counted(held['n'], 'label')} (95% interval {held['agreement_low']:.0%} to "
        f"{held['agreement_high']:.0%}; {held['chance']:.0%} by always naming the commonest class)"
    )
    if held["skill"] < held["least_skill"]:
        return [
            f"\n{agree}. That is too little to doubt a label: how many are wrong cannot be told."
        ]
    if not told["ok"] + told["flagged"]:
        return [f"\n{agree}. Too few labels teach any class to doubt one in its favour."]
    doubted = counted(told["flagged"], "label is", "labels are")
    return [
        f"\n{agree}. {doubted} doubted (`label_suspect`, the likeliest first); between "
        f"{held['wrong_low']:.1%} and {held['wrong_high']:.1%} of all are wrong, as these models "
        "tell."
    ]
