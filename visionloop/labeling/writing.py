"""Writes what a round's answers came to: rows of `annotations`, `labels`, `flags` and requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import CONFLICT as CONFLICT_ROW
from visionloop.labeling.answers import DETECTION, SKIPPED, TICK, WITHDRAWN, standing, takes_back
from visionloop.labeling.collecting import Settled, own_labels
from visionloop.labeling.deciding import CONFLICT, LABELLED, PASSED, Decision
from visionloop.labeling.merging import stored_box
from visionloop.labeling.opening import provider_name

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake.run import Run

STAGE, FLAG = "collect_labels", "label_conflict"
_REFERENCE = "how well people's answers agree; the least that makes a label is configured"
Row = Mapping[str, Any]


def write(
    run: Run, loop: LoopConfig, settled: Settled, labels: Iterable[Row], now: datetime
) -> list[dict[str, Any]]:
    """Write what changed since the last collection of a round.

    Args:
        run: The run of the stage.
        loop: The loop's configuration.
        settled: How the round stands; its requests are written as they are there.
        labels: All rows of `labels`.
        now: UTC.

    Returns:
        The new rows of `labels`.
    """
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    def table(name: str, rows: Sequence[Row]) -> pa.Table:
        return pa.Table.from_pylist(list(rows), schema=arrow_schema(name))

    mine, name = f"round_id == '{settled.round_id}'", provider_name(loop)
    # Two collections at once: the later one is run again, on what the other has stored.
    run.refuse_stale("annotations", "label_requests")
    if settled.annotations != settled.stored:
        rows = table("annotations", settled.annotations)
        run.replace("annotations", rows, f"{mine} and provider == '{name}'")
    new = label_rows(settled, own_labels(labels, settled.round_id), loop, now)
    run.append("labels", table("labels", new))
    held = run.read("label_requests", where=mine).to_pylist()
    requests = [*settled.requests, *settled.recalled]
    if _by_sample(held) != _by_sample(requests):
        run.replace("label_requests", table("label_requests", requests), mine)
    of_stage = f"stage == '{STAGE}' and kind == '{FLAG}' and {mine}"
    flagged = run.read("flags", where=of_stage).to_pylist()
    flags = _flags(settled, flagged, loop, now)
    if _by_sample(flagged, "subject") != _by_sample(flags, "subject"):
        run.replace("flags", table("flags", flags), of_stage)
    return new


def _by_sample(rows: Iterable[Row], key: str = "sample_id") -> dict[str, dict[str, Any]]:
    return {row[key]: {k: row[k] for k in row if k != "run_id"} for row in rows}


def label_rows(
    settled: Settled, own: Sequence[Row], loop: LoopConfig, now: datetime
) -> list[dict[str, Any]]:
    """Return the rows of `labels` that make the table say what was decided.

    Args:
        settled: How the round stands.
        own: The rows that were made of answers to it before.
        loop: The loop's configuration.
        now: UTC.
    """
    # Later than what they correct, also where a clock was set back.
    newest = max((row["created_at"] for row in own), default=now)
    made: dict[str, Any] = {
        **dict.fromkeys(("label", "boxes", "seconds", "quality", "model_id")),
        "task": loop.task,
        "created_at": max(now, newest + TICK) if own else now,
        "round_id": settled.round_id,
    }
    said = standing(row for row in own if row["task"] != DETECTION)
    drawn = standing(row for row in own if row["task"] == DETECTION or takes_back(row))
    rows: list[dict[str, Any]] = []
    for sample, decision in sorted(settled.decisions.items()):
        base = {**made, "sample_id": sample}
        before, boxes = said.get(sample), drawn.get(sample)
        rows += _changes(decision, before, boxes, base, provider_name(loop))
    return rows


def _changes(
    decision: Decision,
    before: Row | None,
    boxes: Row | None,
    base: dict[str, Any],
    provider: str,
) -> list[dict[str, Any]]:
    """Return the rows that lead from what stands of a sample to what was decided."""
    people = ", ".join(decision.annotators)
    row = base | {
        "annotator": people,
        "origin": provider,
        "seconds": decision.seconds,
        "n_annotations": len(decision.annotators),
        "quality": decision.quality,
    }
    back = base | {"annotator": provider, "origin": WITHDRAWN, "n_annotations": 0}
    origin = before["origin"] if before else ""
    match decision.outcome:
        case "labelled":
            rows = []
            drawn = [stored_box(box) for box in decision.boxes or ()]
            lost = before is not None and decision.label is None and origin != CONFLICT_ROW
            if lost or (boxes is not None and origin != CONFLICT_ROW and decision.boxes is None):
                # What one kind of answer does not say any more is taken back with the other.
                rows.append(back)
                before = boxes = None
                row["created_at"] += TICK
            if decision.label is not None and not _says(before, row, label=decision.label):
                rows.append(row | {"label": decision.label})
            if decision.boxes is not None and not _says(boxes, row, boxes=drawn):
                rows.append(row | {"task": DETECTION, "boxes": drawn})
            return rows
        case "skipped":
            row |= {"origin": SKIPPED, "created_at": row["created_at"] + TICK}
            return [] if origin == SKIPPED else [*([back] if boxes else []), row]
        case "conflict":
            return [] if origin == CONFLICT_ROW else [row | {"origin": CONFLICT_ROW}]
    stands = boxes is not None or before is not None
    return [back] if stands and origin != CONFLICT_ROW else []


def _says(held: Row | None, row: Row, **answer: Any) -> bool:
    """Return whether a row that stands says the same, of the same people."""
    if held is None or takes_back(held) or held["origin"] == SKIPPED:
        return False
    same = all(held[name] == value for name, value in answer.items())
    return same and all(held[name] == row[name] for name in ("annotator", "n_annotations"))


def _flags(
    settled: Settled, held: Sequence[Row], loop: LoopConfig, now: datetime
) -> list[dict[str, Any]]:
    """Return the round's flags of conflicts: one that was flagged stays, also when it is solved."""
    flags = {row["subject"]: dict(row) for row in held}
    for sample, decision in settled.decisions.items():
        if decision.outcome == CONFLICT:
            state = "asked again" if sample in settled.ask_again else "left out of training"
            evidence = {**decision.evidence, "state": state}
            score = decision.quality
        elif sample in flags and decision.outcome in (LABELLED, PASSED):
            solved = decision.label or decision.outcome
            evidence = {**decision.evidence, "state": "solved", "solved": solved}
            score = decision.quality
        else:
            continue
        evidence |= {"reference": _REFERENCE, "unit": "quality, 0 to 1", "images": [sample]}
        told = json.dumps(evidence, ensure_ascii=False, sort_keys=True)
        if sample in flags and flags[sample]["evidence"] == told:
            continue
        flags[sample] = {
            "subject": sample,
            "subject_type": "sample",
            "stage": STAGE,
            "kind": FLAG,
            "score": 0.0 if score is None else score,
            "threshold": loop.labeling.trust.min_quality,
            "evidence": told,
            "flagged_at": now,
            "round_id": settled.round_id,
        }
    return [flags[sample] for sample in sorted(flags)]
