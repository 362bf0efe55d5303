"""From events to the tables `confidences` and `harvest_events`.

Every event is a row of `harvest_events` in exactly one state, so that the counts reconcile:

    events = harvested + pending + orphan + rejected + ignored + duplicate

A row keeps what its event said (names, times, hashes and probabilities; no pixels), so that an
event which comes in a later harvest is paired as if it had come with the others, even when its
counterpart was counted as an orphan long ago.

An answer whose request is not known (yet) is a row of `confidences` without a sample: its
probabilities are known all the same. The row is replaced when the request turns up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from visionloop.lake.schemas import arrow_schema
from visionloop.selection.scores import uncertainties
from visionloop.serving.embedding_links import unlinked_rows
from visionloop.serving.pairing import Half, Inference, resolve
from visionloop.serving.requests import Request
from visionloop.serving.responses import Response
from visionloop.serving.sample_links import named_samples
from visionloop.serving.seen import Seen, event_table, see, seen_rows

__all__ = ["STATES", "Harvest", "Seen", "harvest_events", "see", "seen_rows"]

STATES = ("harvested", "pending", "orphan", "rejected", "ignored", "duplicate")


@dataclass(frozen=True)
class Harvest:
    """What one harvest writes.

    Attributes:
        new_events: Rows of `harvest_events` for what was just read, where nothing older changes.
        new_confidences: Rows of `confidences` for those.
        changed_ids: Event ids of which older rows change: their rows of both tables are replaced.
        changed_events: All rows of `harvest_events` with those ids.
        changed_confidences: All rows of `confidences` with those ids.
        counts: Events just read by state, with ``events`` their number and ``inferences`` the
            rows of confidences.
        reasons: ``{(state, reason): events}`` of those just read.
        later: ``{(old state, new state): events}`` of earlier harvests, where something changed.
        unlinked: Rows of confidences without a sample whose replies carry embeddings, see
            `visionloop.serving.embedding_links`.
    """

    new_events: pa.Table
    new_confidences: pa.Table
    changed_ids: list[str]
    changed_events: pa.Table
    changed_confidences: pa.Table
    counts: dict[str, int]
    reasons: dict[tuple[str, str], int]
    later: dict[tuple[str, str], int]
    unlinked: pa.Table


def harvest_events(
    new: Iterable[Seen],
    held: Sequence[Seen],
    *,
    orphaned_before: datetime,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Harvest:
    """Pair what was just read with what earlier harvests hold.

    Args:
        new: Events just read, in any order.
        held: Rows of earlier harvests with the same event ids, and all that are pending.
        orphaned_before: See `visionloop.serving.pairing.resolve`.
        classes: Class names by model id, to name the label where the reply names none.

    Returns:
        The rows to write. Which rows they are depends on the set of all events alone, not on their
        order, files or harvests.
    """
    known = {seen.digest for seen in held if seen.event_id}
    fresh: list[Seen] = []
    duplicates: list[Seen] = []
    for seen in new:
        if seen.event_id and seen.digest in known:
            duplicates.append(_in_state(seen, "duplicate", "delivered_again"))
            continue
        if seen.event_id:
            known.add(seen.digest)
        fresh.append(seen)

    groups: dict[str, list[Seen]] = defaultdict(list)
    rejected: list[Seen] = []
    for seen in fresh:
        if seen.half is None:
            rejected.append(_in_state(seen, "rejected", seen.problem))
        else:
            groups[seen.event_id].append(seen)
    older: dict[str, list[Seen]] = defaultdict(list)
    for seen in held:
        older[seen.event_id].append(seen)

    new_events = [*rejected, *duplicates]
    counted = list(new_events)
    changed_events: list[Seen] = []
    new_rows: list[dict[str, Any]] = []
    changed_rows: list[dict[str, Any]] = []
    changed_ids: list[str] = []
    later: Counter[tuple[str, str]] = Counter()
    for event_id in sorted({*groups, *older}):
        before, rest = _paired(older[event_id])
        members = [*before, *groups[event_id]]
        if not members:
            continue
        outcome = resolve(
            [seen.half for seen in members if seen.half], orphaned_before=orphaned_before
        )
        after = [_in_state(seen, *outcome.states[seen.digest]) for seen in members]
        counted += after[len(before) :]
        rows = [
            row
            for occurrence, inference in enumerate(outcome.inferences)
            for row in _confidences(inference, occurrence, classes or {})
        ]
        moved = [
            (old.state, new.state)
            for old, new in zip(before, after, strict=False)
            if (old.state, old.reason) != (new.state, new.reason)
        ]
        # Where the older events keep their states, their rows may still be numbered anew.
        if moved or (groups[event_id] and before):
            later.update(moved)
            changed_ids.append(event_id)
            changed_events += [*after, *rest]
            changed_rows += rows
        elif groups[event_id]:
            new_events += after
            new_rows += rows
    states = Counter(seen.state for seen in counted)
    return Harvest(
        new_events=event_table(new_events),
        new_confidences=_confidence_table(new_rows),
        changed_ids=changed_ids,
        changed_events=event_table(changed_events),
        changed_confidences=_confidence_table(changed_rows),
        counts={
            "events": len(counted),
            **{state: states[state] for state in STATES},
            "inferences": len(new_rows) + len(changed_rows),
        },
        reasons=dict(Counter((seen.state, seen.reason) for seen in counted)),
        later=dict(later),
        unlinked=unlinked_rows([*new_rows, *changed_rows]),
    )


def _paired(held: Sequence[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Tell the held rows of an id that pairing looks at from the others."""
    before: list[Seen] = []
    rest: list[Seen] = []
    for seen in held:
        (before if seen.half and seen.state != "duplicate" else rest).append(seen)
    return before, rest


def _in_state(seen: Seen, state: str, reason: str) -> Seen:
    return Seen(**{**seen.__dict__, "state": state, "reason": reason})


def _confidences(
    inference: Inference, occurrence: int, classes: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    response, request = inference.response, inference.request
    answer = response.content
    assert isinstance(answer, Response)
    asked = request.content if request else Request()
    assert isinstance(asked, Request)
    namespace, service, component, route, _ = _merged_names(request, response)
    model_id = _model_id(
        answer.model_id, response.model_id or (request.model_id if request else "")
    )
    common = {
        "event_id": response.event_id,
        "occurrence": occurrence,
        "occurred_at": (request.occurred_at if request else None) or response.occurred_at,
        "namespace": namespace,
        "endpoint": service,
        "component": component,
        "route": route,
        "model_name": answer.model_name or asked.model_name or None,
        "model_id": model_id or None,
        "protocol": asked.protocol or answer.protocol,
        "request_sha256": request.body_sha256 if request else None,
        "response_sha256": response.body_sha256,
        "note": inference.note,
    }
    identities = list(zip(asked.samples, asked.tensors, strict=True))
    named = named_samples((request or response).metadata, answer.rows or 0)
    rows = []
    for row in range(answer.rows or 0):
        sample_id, tensor = identities[row] if identities else (None, None)
        linked_by = "hash" if sample_id else "header" if named[row] else None
        rows.append(
            {
                **common,
                "row": row,
                "sample_id": sample_id or named[row],
                "tensor_sha256": tensor,
                "linked_by": linked_by,
                "embedding": None if answer.embeddings is None else answer.embeddings[row],
                **_answered(answer, row, classes.get(model_id, ())),
            }
        )
    return rows


def _model_id(replied: str, annotated: str) -> str:
    """Return the model that the reply names, else the one that the event does.

    A bare number is the version of a server's own repository, as Triton counts them.
    """
    return annotated or replied if replied.isdigit() else replied or annotated


def _answered(answer: Response, row: int, names: Sequence[str]) -> dict[str, Any]:
    if answer.probabilities is None:
        boxes = answer.boxes[row] if answer.boxes else []
        # An image without boxes is unknown, not certain: it has no confidence.
        best = max((max(box["scores"], default=0.0) for box in boxes), default=None)
        return {"boxes": boxes, "confidence": best}
    values = answer.probabilities[row]
    names = answer.classes or (names if len(names) == len(values) else ())
    best = int(values.argmax())
    label = answer.labels[row] if answer.labels else names[best] if names else None
    return {
        "probabilities": values,
        "classes": list(answer.classes) or None,
        "label": label,
        "confidence": float(values[best]),
    }


def _merged_names(request: Half | None, response: Half) -> tuple[str, ...]:
    if request is None:
        return response.names
    return tuple(a or b for a, b in zip(request.names, response.names, strict=True))


def _confidence_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = arrow_schema("confidences")
    names = [name for name in schema.names if name not in ("round_id", "run_id")]
    scores = _scores([row.get("probabilities") for row in rows])
    columns = []
    for name in names:
        kind = schema.field(name).type
        values: Any = scores[name] if name in scores else [row.get(name) for row in rows]
        columns.append(pa.array(values, kind, from_pandas=True))
    return pa.table(columns, schema=pa.schema([schema.field(name) for name in names]))


def _scores(probabilities: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return the three uncertainties of each row, NaN (null in the table) where unknown."""
    names = ("least_confidence", "margin", "entropy")
    found = {name: np.full(len(probabilities), np.nan, np.float32) for name in names}
    by_width: dict[int, list[int]] = defaultdict(list)
    for index, values in enumerate(probabilities):
        if values is not None:
            by_width[len(values)].append(index)
    for indexes in by_width.values():
        block = np.stack([probabilities[index] for index in indexes])
        for name, scores in uncertainties(block).items():
            found[name][indexes] = scores.astype(np.float32)
    return found
