"""What is kept of an event: names, times, hashes and probabilities; no pixels.

It is a row of `harvest_events`, complete enough to pair the event in any later harvest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.schemas import arrow_schema
from visionloop.serving.events import Event
from visionloop.serving.pairing import Half
from visionloop.serving.reply_batches import decode_responses
from visionloop.serving.requests import Request, decode_request
from visionloop.serving.responses import Response


@dataclass(frozen=True)
class Seen:
    """One event as it is kept: what `harvest_events` holds of it.

    Attributes:
        half: What pairing needs; None where the event cannot be used.
        event_id: ``ce-id``, empty where there is none.
        kind: ``request``, ``response`` or ``unknown``.
        digest: What tells this event from every other.
        problem: Why the event cannot be used.
        uri: The file that it was read from.
        line: Its line in that file.
        occurred_at: When it happened.
        received_at: When the sink recorded it.
        state: What became of it; ``""`` for one that was just read.
        reason: Why.
    """

    half: Half | None
    event_id: str
    kind: str
    digest: str
    problem: str
    uri: str
    line: int
    occurred_at: datetime | None
    received_at: datetime | None
    state: str = ""
    reason: str = ""
    packed: str | None = field(default=None, repr=False, compare=False)  # the half as JSON


def see(event: Event) -> Seen:
    """Decode one event; its body can be forgotten afterwards."""
    return see_all([event])[0]


def see_all(events: Sequence[Event]) -> list[Seen]:
    """Decode events, those of one kind together; their bodies can be forgotten afterwards."""
    contents: list[Request | Response | None] = [None] * len(events)
    replies: list[int] = []
    for place, event in enumerate(events):
        if not event.problem:
            kept = event.kept.request if event.kept else None
            if kept or event.kind == "request":
                contents[place] = kept or _decode(event)
            else:
                replies.append(place)
    answers = decode_responses(
        [events[place].body for place in replies], [events[place].content_type for place in replies]
    )
    for place, answer in zip(replies, answers, strict=True):
        contents[place] = answer
    return [_seen(event, content) for event, content in zip(events, contents, strict=True)]


def _seen(event: Event, content: Request | Response | None) -> Seen:
    half = None
    if content is not None:
        half = Half(
            event_id=event.event_id,
            digest=event.digest,
            occurred_at=event.occurred_at,
            received_at=event.received_at,
            names=(event.namespace, event.service, event.component, event.route, event.source),
            content_type=event.content_type,
            metadata=event.metadata,
            model_id=event.model_id,
            body_sha256=(
                event.kept.sha256 if event.kept else hashlib.sha256(event.body).hexdigest()
            ),
            content=content,
        )
    return Seen(
        half=half,
        event_id=event.event_id,
        kind=event.kind,
        digest=event.digest,
        problem=event.problem,
        uri=event.uri,
        line=event.line,
        occurred_at=event.occurred_at,
        received_at=event.received_at,
    )


def unless_erased(seen: Seen, erased: Container[object]) -> Seen:
    """Return an event, or that it is rejected where a sample was erased that it carries."""
    content = seen.half.content if seen.half else None
    if isinstance(content, Request) and any(one and one in erased for one in content.samples):
        return replace(seen, half=None, packed=None, problem="erased")
    return seen


def _decode(event: Event) -> Request:
    try:
        return decode_request(event.body, event.content_type)
    except MemoryError:
        raise
    except Exception:  # a body that a library trips over must not stop the other events
        return Request(problem="request_decoder_failed")


def event_table(rows: Sequence[Seen]) -> pa.Table:
    """Write rows of `harvest_events`; an event in no state yet has its problem as the reason."""
    schema = arrow_schema("harvest_events")
    names = [name for name in schema.names if name not in ("round_id", "run_id")]
    values: dict[str, list[Any]] = {
        "event_id": [seen.event_id or None for seen in rows],
        "kind": [seen.kind for seen in rows],
        "state": [seen.state for seen in rows],
        "reason": [seen.reason if seen.state else seen.problem for seen in rows],
        "uri": [seen.uri for seen in rows],
        "line": [seen.line for seen in rows],
        "line_sha256": [seen.digest for seen in rows],
        "occurred_at": [seen.occurred_at for seen in rows],
        "received_at": [seen.received_at for seen in rows],
        "decoded": [_pack(seen) for seen in rows],
    }
    return pa.table(
        [pa.array(values[name], schema.field(name).type) for name in names],
        schema=pa.schema([schema.field(name) for name in names]),
    )


def seen_rows(rows: pa.Table) -> list[Seen]:
    """Read rows of `harvest_events` back."""
    return [_unpack(row) for row in rows.to_pylist()]


def _pack(seen: Seen) -> str | None:
    """Return what a half says as JSON; None for what is never paired."""
    half = seen.half
    if half is None or seen.state == "duplicate":
        return None
    if seen.packed is not None:
        return seen.packed
    content = half.content
    held: dict[str, Any] = {
        "names": half.names,
        "content_type": half.content_type,
        "metadata": half.metadata,
        "model_id": half.model_id,
        "body_sha256": half.body_sha256,
    }
    said = {key: value for key, value in content.__dict__.items() if value not in ("", (), None)} \
        if isinstance(content, Request) else {
            key: value
            for key, value in content.__dict__.items()
            if key not in ("probabilities", "embeddings") and value not in ("", (), None)
        }  # fmt: skip
    if isinstance(content, Response):
        for name, array in (("values", content.probabilities), ("vectors", content.embeddings)):
            if array is not None:
                said[name] = _text_of(array)
                said[f"{name}_shape" if name == "vectors" else "shape"] = list(array.shape)
    held["request" if half.is_request else "response"] = said
    return orjson.dumps(held).decode()


def _unpack(row: Mapping[str, Any]) -> Seen:
    half = None
    if row["decoded"]:
        held = orjson.loads(row["decoded"])
        half = Half(
            event_id=row["event_id"],
            digest=row["line_sha256"],
            occurred_at=row["occurred_at"],
            received_at=row["received_at"],
            names=tuple(held["names"]),
            content_type=held["content_type"],
            metadata=held["metadata"],
            model_id=held["model_id"],
            body_sha256=held["body_sha256"],
            content=_request(held["request"]) if "request" in held else _response(held["response"]),
        )
    return Seen(
        half=half,
        event_id=row["event_id"] or "",
        kind=row["kind"],
        digest=row["line_sha256"],
        problem="" if half else row["reason"],
        uri=row["uri"],
        line=row["line"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        state=row["state"],
        reason=row["reason"] if row["state"] else "",
        packed=row["decoded"],
    )


def _request(said: dict[str, Any]) -> Request:
    for name in ("samples", "tensors"):
        said[name] = tuple(said.get(name, ()))
    return Request(**said)


def _response(said: dict[str, Any]) -> Response:
    probabilities = _array_of(said.pop("values", None), said.pop("shape", None))
    embeddings = _array_of(said.pop("vectors", None), said.pop("vectors_shape", None))
    for name in ("labels", "classes"):
        said[name] = tuple(said.get(name, ()))
    if said.get("boxes") is not None:
        said["boxes"] = tuple(said["boxes"])
    return Response(probabilities=probabilities, embeddings=embeddings, **said)


def _text_of(array: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _array_of(text: str | None, shape: list[int] | None) -> NDArray[np.float32] | None:
    if text is None or shape is None:
        return None
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)
