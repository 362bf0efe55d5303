"""What the table `labels` says of a sample: its latest label, or that somebody skipped it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

# Origin of a row that says: nobody can label this sample. Its label is null.
SKIPPED = "skipped"
# Task of a row that is about objects alone: empty boxes say that there are none.
DETECTION = "detection"
SKIP_ANSWERS = frozenset({"-", "skip"})


def is_skip(answer: str, classes: Collection[str] = ()) -> bool:
    """Return whether an answer means that the sample cannot be labelled: ``-`` or ``skip``.

    Args:
        answer: What stands in the column `label`.
        classes: The loop's classes: a class of that name is a label, and no skip.
    """
    return answer not in classes and answer.strip().lower() in SKIP_ANSWERS


def latest_labels(labels: Iterable[Mapping[str, Any]], task: str = "") -> dict[str, str]:
    """Return each sample's latest label; a sample whose latest answer was to skip it has none.

    Latest is that of the latest round, and in it of the latest time.

    Args:
        labels: Rows of the table `labels`; a sample may have several, a correction being a new row.
        task: Labels of other tasks are left out; empty takes all.
    """
    return {
        sample_id: row["label"]
        for sample_id, row in latest_answers(labels, task).items()
        if row["label"] is not None
    }


def skipped_samples(labels: Iterable[Mapping[str, Any]], task: str = "") -> set[str]:
    """Return the samples whose latest answer was to skip them; see `latest_labels`."""
    answers = latest_answers(labels, task)
    return {sample_id for sample_id, row in answers.items() if row["label"] is None}


def latest_boxes(labels: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the latest row about objects of each sample that somebody looked for objects in."""
    known = [row for row in labels if _is_about_objects(row)]
    known.sort(key=_age)
    return {row["sample_id"]: row for row in known}


def _is_about_objects(row: Mapping[str, Any]) -> bool:
    if row["boxes"] is None or row.get("origin") == SKIPPED:
        return False
    # Earlier versions stored a list that is null as an empty one: an empty list says that nothing
    # was found only where the row says nothing else.
    return bool(row["boxes"]) or row["task"] == DETECTION or row["label"] is None


def latest_answers(
    labels: Iterable[Mapping[str, Any]], task: str = ""
) -> dict[str, Mapping[str, Any]]:
    """Return the row that counts of each labelled or skipped sample; see `latest_labels`.

    A row of boxes alone is no answer to what class an image is of.
    """
    known = [
        row
        for row in labels
        if (row["label"] is not None or row.get("origin") == SKIPPED)
        and (not task or row["task"] in (task, None))
    ]
    known.sort(key=_age)
    return {row["sample_id"]: row for row in known}


def _age(row: Mapping[str, Any]) -> tuple[int, Any, str, str]:
    # Rounds are counted: a later round's label wins even where a clock was set back in between.
    number = row.get("round_id") or ""
    counted = int(number) if number.isdigit() else -1
    return counted, row["created_at"], row["annotator"] or "", row["label"] or ""
