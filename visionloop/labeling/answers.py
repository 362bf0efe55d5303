"""What the table `labels` says of a sample: its latest label, or that somebody skipped it.

A row is never changed. What was said before is taken back by a later row: of the origin
``withdrawn`` where the answer does not stand any more, so that an earlier round's counts again, or
of the origin ``conflict`` where people disagree, so that no label counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

# Origin of a row that says: nobody can label this sample. Its label is null.
SKIPPED = "skipped"
# Origin of a row that says: people disagree about the sample. Its label is null.
CONFLICT = "conflict"
# Origin of a label that a model gave: one that a person gave wins, however old it is.
MODEL = "model"
# Origin of a row that takes back what its round had written of the sample until then: the model's
# label where `annotator` is ``model``, else what was made of people's answers. Its label is null.
WITHDRAWN = "withdrawn"
# Task of a row that is about objects alone: empty boxes say that there are none.
DETECTION = "detection"
# So much later a row is that counts in the place of another one.
TICK = timedelta(microseconds=1)
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
    return _without_conflicts(standing_boxes(labels))


def standing_boxes(labels: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the same as `latest_boxes`, conflicts among them; see `standing_answers`."""
    return standing(row for row in labels if takes_back(row) or _is_about_objects(row))


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

    A row of boxes alone is no answer to what class an image is of. People's answers come before a
    model's.
    """
    return _without_conflicts(standing_answers(labels, task))


def standing_answers(
    labels: Iterable[Mapping[str, Any]], task: str = ""
) -> dict[str, Mapping[str, Any]]:
    """Return the same as `latest_answers`, and the rows of the origin ``conflict``.

    For whoever writes labels that nobody was asked for: what people disagree about is not settled
    by one more of these.
    """
    return standing(
        row
        for row in labels
        if (row["label"] is not None or row.get("origin") == SKIPPED or takes_back(row))
        and (not task or row["task"] in (task, None))
    )


def takes_back(row: Mapping[str, Any]) -> bool:
    """Return whether a row of ``labels`` says that what stood before counts no more."""
    return row.get("origin") in (CONFLICT, WITHDRAWN)


def _without_conflicts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {sample: row for sample, row in rows.items() if row.get("origin") != CONFLICT}


def standing(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return each sample's latest row that was not taken back, conflicts among them.

    Args:
        rows: Rows of `labels`, withdrawals among them.
    """
    held: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=_age):
        own = held.setdefault(row["sample_id"], [])
        if row.get("origin") == WITHDRAWN:
            own[:] = [one for one in own if not _withdraws(row, one)]
        else:
            own.append(row)
    return {sample: own[-1] for sample, own in held.items() if own}


def _withdraws(withdrawal: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    mine = is_models(row) if is_models(withdrawal) else not is_models(row) and is_collected(row)
    same_round = row.get("round_id") == withdrawal.get("round_id")
    return mine and same_round and bool(row["created_at"] <= withdrawal["created_at"])


def is_models(row: Mapping[str, Any]) -> bool:
    """Return whether a row of `labels` is a model's label, or takes one back."""
    origin = row.get("origin")
    return origin == MODEL or (origin == WITHDRAWN and row["annotator"] == MODEL)


def is_collected(row: Mapping[str, Any]) -> bool:
    """Return whether a row of `labels` is made of answers to a request, and was not imported."""
    return row.get("n_annotations") is not None


def _age(row: Mapping[str, Any]) -> tuple[bool, int, Any, str, str]:
    # Rounds are counted: a later round's label wins even where a clock was set back in between.
    number = row.get("round_id") or ""
    counted = int(number) if number.isdigit() else -1
    return (
        not is_models(row),
        counted,
        row["created_at"],
        row["annotator"] or "",
        row["label"] or "",
    )
