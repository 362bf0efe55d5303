"""What people say of the automatic labels that they were asked about, and what follows of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import MODEL, TICK, latest_answers
from visionloop.labeling.auto.binomial import upper_always
from visionloop.labeling.auto.labelling import FLAG, append, standing_automatic, withdrawals
from visionloop.labeling.auto.proof import MISS
from visionloop.labeling.requests import AUDIT

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake.run import Run

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Audited:
    """What audits have shown of one model's automatic labels.

    Attributes:
        n: Labels that people were asked about and have answered.
        right: Those that they gave too; one that they skipped is not right.
        high: Upper end of the 95% interval of the precision, which holds however often it is looked
            at.
    """

    n: int
    right: int
    high: float


@dataclass(frozen=True)
class Audit:
    """What audits have shown, and what was taken back for it.

    Attributes:
        models: What was found, by model.
        withdrawn: Labels that were taken back, by model.
        rows: The rows of `labels` that say so.
    """

    models: dict[str, Audited] = field(default_factory=dict)
    withdrawn: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def judge_audits(run: Run, loop: LoopConfig, labels: Sequence[Row], now: datetime) -> Audit:
    """Take back the automatic labels of models that people find less precise than was stated.

    Such a model is flagged and labels nothing more.

    Args:
        run: The run of a stage, which gets rows of `labels` and `flags`.
        loop: The loop's configuration.
        labels: All rows of `labels`, also those that the run has just written.
        now: UTC.
    """
    if not any(row["origin"] == MODEL for row in labels):
        return Audit()
    requests = run.read("label_requests", where=f"purpose == '{AUDIT}'").to_pylist()
    found = audited(requests, labels, loop.task)
    precision = loop.labeling.auto_labels.precision
    flags = run.read("flags", where=f"kind == '{FLAG}'").to_pylist()
    known = {row["subject"] for row in flags}
    bad = [model for model, one in found.items() if one.high < precision and model not in known]
    held = standing_automatic(labels).values()
    rows: list[dict[str, Any]] = []
    withdrawn = {}
    for model in bad:
        mine = [row for row in held if row["model_id"] == model]
        newest = max((row["created_at"] for row in mine), default=now)
        rows += withdrawals(mine, max(now, newest + TICK))
        withdrawn[model] = len(mine)
    append(run, "labels", rows)
    append(run, "flags", [_flag(model, found[model], precision, withdrawn[model], now) for model in
                          bad])  # fmt: skip
    return Audit(found, withdrawn, rows)


def audited(requests: Sequence[Row], labels: Sequence[Row], task: str) -> dict[str, Audited]:
    """Return what audits have shown, by model.

    Args:
        requests: Rows of `label_requests` of the purpose ``audit``; recalled ones do not count.
        labels: All rows of `labels`.
        task: Task of the labels.
    """
    people = latest_answers((row for row in labels if row["origin"] != MODEL), task)
    given: dict[str, list[Row]] = {}
    mine = [row for row in labels if row["origin"] == MODEL]
    for row in sorted(mine, key=lambda row: (row["round_id"] or "", row["created_at"])):
        given.setdefault(row["sample_id"], []).append(row)
    n: Counter[str] = Counter()
    right: Counter[str] = Counter()
    asked = {row["sample_id"]: row["round_id"] for row in requests if not row["recalled"]}
    for sample, round_id in asked.items():
        answer = people.get(sample)
        # What a model had said when people were asked: later models say it anew.
        said = [row for row in given.get(sample, ()) if (row["round_id"] or "") <= round_id]
        if answer is None or not said:
            continue
        label = said[-1]
        n[label["model_id"]] += 1
        right[label["model_id"]] += answer["label"] == label["label"]
    return {
        model: Audited(count, right[model], upper_always(right[model], count, MISS))
        for model, count in sorted(n.items())
    }


def _flag(
    model: str, found: Audited, precision: float, withdrawn: int, now: datetime
) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "reference": "people's answers to a random share of its automatic labels",
        "unit": "share",
        "images": [],
        "audited": found.n,
        "right": found.right,
        "at_most": round(found.high, 6),
        "withdrawn": withdrawn,
    }
    return {
        "subject": model,
        "subject_type": "model",
        "stage": "collect_labels",
        "kind": FLAG,
        "score": found.right / found.n,
        "threshold": precision,
        "evidence": json.dumps(evidence, sort_keys=True),
        "flagged_at": now,
    }
