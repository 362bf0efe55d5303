"""Labels that time has overtaken: old ones, and ones from before a class existed.

Age alone makes no label wrong. It is told where the model in service, which learned what holds now,
answers another class than the label, and is rather right than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from visionloop.monitoring.disagreement import LEAST_CONFIDENCE, Contradicted, Said, told
from visionloop.monitoring.findings import SINCE, flag_row

KIND = "stale_label"
_DAY = timedelta(days=1)


def added_classes(models: Sequence[Mapping[str, Any]]) -> dict[str, datetime]:
    """Return the classes that were added to the list later, and when at the earliest.

    That is when the last model was trained that did not know the class: labels from before were
    given under a list without it.

    Args:
        models: Rows of ``experiments`` (classes, trained_at) of the loop's own arm.
    """
    known: set[str] = set()
    added: dict[str, datetime] = {}
    before: datetime | None = None
    dated = [row for row in models if row["trained_at"] is not None]
    for row in sorted(dated, key=lambda row: row["trained_at"]):
        new = set(row["classes"] or ()) - known
        if before is not None:
            added |= dict.fromkeys(new, before)
        known |= new
        before = row["trained_at"]
    return added


def stale_rows(
    said: Said,
    found: Contradicted,
    added: Mapping[str, datetime],
    stale_after_days: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """Return the rows of ``flags`` for labels that are stale, the oldest first.

    A label that a person gave again is as old as that. Where the model's confidences cannot be
    judged, none is stale.

    Args:
        said: What the model in service answered.
        found: How surely, from `visionloop.monitoring.disagreement.contradicted`.
        added: From `added_classes`.
        stale_after_days: Age from which on a label is old; 0: age alone makes none old.
        now: Written as ``flagged_at``.
    """
    if found.why:
        return []
    rows = []
    for i in np.flatnonzero(found.contradicts & (found.confidences >= LEAST_CONFIDENCE)):
        labelled = said.labelled_at[i]
        if labelled is None:
            continue
        answered = said.classes[int(said.probabilities[i].argmax())]
        since = added.get(answered)
        if since is not None and labelled < since:
            score, limit = (since - labelled) / _DAY, 0.0
            told_of = {
                "measure": "older than the class by",
                "why": f"labelled before the class {answered} was added",
            }
        elif stale_after_days and (now - labelled) / _DAY > stale_after_days:
            score, limit = (now - labelled) / _DAY, float(stale_after_days)
            told_of = {"measure": "age", "why": "labelled long ago", SINCE: labelled.isoformat()}
        else:
            continue
        evidence = {
            "reference": f"what {said.model} answers",
            "unit": "days",
            "images": [said.sample_ids[i]],
            **told_of,
            **told(said, found, int(i)),
        }
        row = flag_row(said.sample_ids[i], "sample", KIND, score, limit, evidence, now)
        rows.append((labelled, said.sample_ids[i], row))
    return [row for *_, row in sorted(rows, key=lambda one: one[:2])]
