"""The monitor's look at labels: which are likely wrong."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from visionloop.errors import StaleRead
from visionloop.stages.artifacts import markdown_table
from visionloop.stages.monitor_part import Look, Part
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.labeling.trust.suspect_flags import LabelChecks
    from visionloop.lake import Lake

# The run that judges them before a model is published.
JUDGING = "judge_labels"


def check_labels(look: Look) -> Part:
    """Flag labels in doubt in the place of those that were flagged before.

    What was judged once is not judged again as long as all is the same that it was judged by: the
    labels, the answers, the embeddings, which samples are held out, the models and the classes.

    Args:
        look: What the monitor, or `publish`, looks at.

    Returns:
        What was found. The run's outputs hold under ``labels``: in = ok + flagged + unchecked, why
        what is unchecked, what judged and how far it can be believed, of which state of the
        tables it is, and how often the labels were looked at with another result.

    Raises:
        StaleRead: Another run has judged a later state of them meanwhile: what this one finds
            would take the place of what is newer.
    """
    from visionloop.labeling.trust.suspect_flags import KIND, judge_labels
    from visionloop.monitoring.standing import write_standing

    lake, run, loop = look.lake, look.run, look.loop
    tables = ("labels", "annotations", f"embeddings_{look.space}", "samples", "predictions")
    of = [*(lake.snapshot(name, version=run.base) for name in tables), _models(look)]
    told, new = _told_before(look, of), []
    if told.get("of") != of:
        checks = judge_labels(lake, loop, look.space, run.base, look.now)
        run.refuse_stale()  # from here on nobody else judges
        told = _told_before(look, of)
    if told.get("of") != of:
        new = write_standing(run, [KIND], checks.flags.to_pylist())
        told = {
            **checks.counts(),
            "why_unchecked": checks.unchecked,
            "told_by": checks.told_by,
            "doubt": checks.doubt,
            "look": _look(told, checks),
            "of": of,
        }
    return Part(new, label_metrics(told), label_page(told), {"labels": told})


def _models(look: Look) -> str:
    """Return a digest of the classes and of what is judged by of the models.

    Not the table's snapshot: that a model goes into service makes no label another one.
    """
    known = list(look.loop.classes)
    columns = ["model_id", "training_set", "trained_at", "classes"]
    columns += [] if known else ["state"]  # whose classes count
    rows = look.run.read("experiments", columns=columns, where="arm == 'loop'").to_pylist()
    told = sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)
    return sha256(json.dumps([known, told]).encode()).hexdigest()


def _told_before(look: Look, of: list[Any]) -> dict[str, Any]:
    """Return what was told of the labels last, and refuse what is of a later state than this run's.

    Raises:
        StaleRead: It is.
    """
    from visionloop.lake import versions

    told, sequence = _newest(look.lake)
    if told.get("of") != of:
        read = versions.find(look.lake.table("stage_runs"), look.run.base)
        if sequence > read.sequence:
            raise StaleRead(
                "another run judged the labels while this one worked",
                where=f"loop {look.lake.loop} of {look.lake.place}",
                remedy="Start the pipeline again: it goes on from what the other found",
            )
    return told


def _look(before: dict[str, Any], checks: LabelChecks) -> int:
    """Return how often the doubted share of the labels was looked at, with this time.

    The same numbers are the same test, which raises nothing that it did not raise before: they are
    no further look. A run that was killed left none, so that its repetition is the same look.
    """
    held = int(before.get("look") or 0)
    if not checks.ok + checks.flagged:
        return held
    now = (checks.ok, checks.flagged)
    return held if held and (before["ok"], before["flagged"]) == now else held + 1


def labels_told(lake: Lake) -> dict[str, Any]:
    """Return what was told of the labels last, by the monitor or before a publication.

    Args:
        lake: The lake.

    Returns:
        As the outputs of `check_labels` hold it; empty where none were judged.
    """
    return _newest(lake)[0]


def _newest(lake: Lake) -> tuple[dict[str, Any], int]:
    """Return what was told last, and the sequence of the run that did; -1 for none."""
    from pyiceberg.expressions import In

    judging = In(term="stage", literals=["monitor", JUDGING])
    runs = lake.stage_runs(where=judging).sort_by([("sequence", "descending")])
    columns = (runs[name] for name in ("outputs", "sequence", "round_id"))
    for outputs, sequence, round_id in zip(*columns, strict=True):
        told: dict[str, Any] = json.loads(outputs.as_py() or "{}").get("labels") or {}
        if told:
            # A program that counted no looks took each round for one.
            told.setdefault("look", int(round_id.as_py() or 0) + 1)
            return told, int(sequence.as_py())
    return {}, -1


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
