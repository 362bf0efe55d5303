"""Logged events: what KServe's payload logger, or a broker behind it, posted to a sink.

An event comes as an HTTP request in any mode of CloudEvents (`visionloop.serving.event_modes`).
Leniency: only ``ce-id`` and ``ce-type`` are needed to use an event. A missing ``ce-specversion``,
``ce-source``, ``ce-time``, service or namespace loses what that header says, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from visionloop.serving.bodies import Undecodable, clean, parse_json
from visionloop.serving.event_modes import content_type, is_structured, restored, taken_apart
from visionloop.serving.requests import Request

TYPES = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}
# Annotation of the predictor's pods that names the model which they serve.
MODEL_ANNOTATION = "visionloop.dev/model-id"

# What a delivery in structured mode is, of which there is no event to tell.
STRUCTURED_INVALID, STRUCTURED_UNREAD = "structured_invalid", "structured_decoder_failed"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODEL_KEYS = ("modelid", "modelversion")
_PAST, _FUTURE = timedelta(days=366), timedelta(days=1)


@dataclass(frozen=True)
class Kept:
    """What a collector kept of a body that it did not keep.

    Attributes:
        sha256: SHA-256 of the body.
        request: What the body asked; None where it was no request.
        rate: Share of the requests whose pixels are kept, 0 where none are.
        images: The redacted image of each row, None where it is not kept; empty where none are.
    """

    sha256: str
    request: Request | None
    rate: float = 0.0
    images: tuple[bytes | None, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        event_id: ``ce-id``: the client's own, or the logger's; joins request and response.
        kind: ``request``, ``response`` or ``unknown``.
        problem: Why the event cannot be used; empty when it can.
        digest: SHA-256 of what the event says, however often and wherever it was delivered.
        occurred_at: When the request arrived or the reply ended; None where no plausible time is
            known.
        received_at: When the sink recorded it.
        namespace: ``ce-namespace``.
        service: ``ce-inferenceservicename``.
        component: ``ce-component``: predictor, transformer, explainer.
        route: ``ce-endpoint``.
        source: ``ce-source``.
        content_type: Content type of the request, on both of its events.
        metadata: ``ce-metadata`` as text: the request's captured headers, on both of its events.
        model_id: The model that annotations or metadata name.
        body: The payload.
        kept: What the collector noted of the payload, which it kept not at all or of a share of
            the requests.
        uri: The file that it was read from.
        line: Its line in that file, from 1.
    """

    event_id: str
    kind: str
    problem: str = ""
    digest: str = ""
    occurred_at: datetime | None = None
    received_at: datetime | None = None
    namespace: str = ""
    service: str = ""
    component: str = ""
    route: str = ""
    source: str = ""
    content_type: str = ""
    metadata: str = ""
    model_id: str = ""
    body: bytes = field(default=b"", repr=False)
    kept: Kept | None = None
    uri: str = ""
    line: int = 0


def parse_line(line: bytes, *, uri: str = "", number: int = 0) -> Iterator[Event]:
    """Yield the events of one line ``{"received_at", "headers", "body_b64"}`` of a segment.

    A line that cannot be read is one event with a problem: it is counted, never dropped. A line of
    a collector that keeps less (`visionloop.serving.reducing`) also has ``body_sha256``, where it
    is about a body that is not kept whole; ``member``, where it is about one event that was taken
    out of a structured delivery; ``problem``, where none could be.

    Args:
        line: The line, with or without its end.
        uri: Where it was read, for the events.
        number: Its number there.
    """
    try:
        record, rest = parse_json(line)
        headers = record["headers"] if isinstance(record, dict) else None
        if rest.strip() or not isinstance(headers, dict):
            raise Undecodable("line_invalid")
        text = record.get("body_b64")
        body = b"" if text in ("", None) else _strict_base64(text)
        sha256 = record.get("body_sha256")
        kept = None if sha256 is None else _kept(record, sha256)
        named = restored(headers)
        problem = record.get("problem", "")
        if problem and (not kept or problem not in (STRUCTURED_INVALID, STRUCTURED_UNREAD)):
            raise Undecodable("line_invalid")
    except (Undecodable, KeyError):
        yield broken_event(line, "line_invalid", uri, number)
        return
    received = parse_time(record.get("received_at"))
    if problem and kept:
        yield broken_event(kept.sha256, problem, uri, number)
    elif kept or "member" in record:
        yield _event(named, body, received, uri, number, kept)
    else:
        yield from events_of(named, body, received_at=received, uri=uri, line=number)


def _kept(record: Mapping[str, Any], sha256: object) -> Kept:
    """Read what a collector kept of a request in the place of its body."""
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise Undecodable("line_invalid")
    said = record.get("request")
    if not isinstance(said, dict):
        return Kept(sha256, None)
    samples, tensors = _hashes(said.get("samples")), _hashes(said.get("tensors"))
    if len(samples) != len(tensors):
        raise Undecodable("line_invalid")
    request = Request(
        clean(said.get("protocol", "")),
        samples,
        tensors,
        v2_id=clean(said.get("v2_id", "")),
        model_name=clean(said.get("model_name", "")),
        problem=clean(said.get("problem", "")),
    )
    rate = record.get("keep_rate")
    images = record.get("images_b64")
    return Kept(
        sha256,
        request,
        rate=rate if isinstance(rate, float) and 0 < rate <= 1 else 0.0,
        images=tuple(
            _strict_base64(image) if image else None
            for image in (images if isinstance(images, list) else ())
        ),
    )


def _hashes(values: object) -> tuple[str | None, ...]:
    return tuple(
        text if isinstance(text, str) and _SHA256.fullmatch(text) else None
        for text in (values if isinstance(values, list) else ())
    )


def events_of(
    headers: Mapping[str, str],
    body: bytes,
    *,
    received_at: datetime | None,
    uri: str = "",
    line: int = 0,
) -> Iterator[Event]:
    """Yield the events of one delivery, in whichever mode it was sent.

    Args:
        headers: HTTP headers, names in lower case, values as text.
        body: The body of the HTTP request.
        received_at: When it was received.
        uri: The file that it was read from.
        line: Its line in that file.
    """
    if not is_structured(headers):
        yield _event(headers, body, received_at, uri, line)
        return
    for found in taken_apart(headers, body):
        if found is None:
            yield broken_event(body, STRUCTURED_INVALID, uri, line)
        else:
            yield _event(*found, received_at, uri, line)


def _event(
    headers: Mapping[str, str],
    body: bytes,
    received_at: datetime | None,
    uri: str,
    line: int,
    kept: Kept | None = None,
) -> Event:
    event_id = headers.get("ce-id", "")
    kind = TYPES.get(headers.get("ce-type", ""), "unknown")
    problem = ""
    if not event_id:
        problem = "id_missing"
    elif "ce-type" not in headers:
        problem = "type_missing"
    elif kind == "unknown":
        problem = "type_unknown"
    elif kept and (kept.request is None or kind != "request"):
        problem = "body_not_kept"
    return Event(
        event_id=event_id,
        kind=kind,
        problem=problem,
        digest=_digest(headers, bytes.fromhex(kept.sha256) if kept else _sha256(body)),
        occurred_at=_occurred(headers, received_at),
        received_at=received_at,
        namespace=headers.get("ce-namespace", ""),
        service=headers.get("ce-inferenceservicename", ""),
        component=headers.get("ce-component", ""),
        route=headers.get("ce-endpoint", ""),
        source=headers.get("ce-source", ""),
        content_type=content_type(headers),
        metadata=headers.get("ce-metadata", ""),
        model_id=_model_id(headers),
        body=body,
        kept=kept,
        uri=uri,
        line=line,
    )


def broken_event(line: bytes | str, reason: str, uri: str, number: int) -> Event:
    """Return the event that stands for what cannot be read.

    Args:
        line: The bytes, or their SHA-256 where they were too many to keep.
        reason: Why they cannot be read.
        uri: The file that they lie in.
        number: Their line in it.
    """
    digest = line if isinstance(line, str) else hashlib.sha256(line).hexdigest()
    return Event("", "unknown", problem=reason, digest=digest, uri=uri, line=number)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _digest(headers: Mapping[str, str], body_sha256: bytes) -> str:
    said = hashlib.sha256()
    for name in sorted(headers):
        if name.startswith("ce-") or name == "content-type":
            said.update(f"{name}\0{headers[name]}\0".encode("utf-8", "replace"))
    said.update(body_sha256)
    return said.hexdigest()


def _strict_base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise Undecodable("line_invalid")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Undecodable("line_invalid") from None


def _model_id(headers: Mapping[str, str]) -> str:
    """Return the model that the pod's annotations, else the captured headers, name."""
    for name in ("ce-annotations", "ce-metadata"):
        if not headers.get(name):
            continue
        try:
            held = json.loads(headers[name])
        except (ValueError, RecursionError):
            continue
        if not isinstance(held, dict):
            continue
        keys = {
            str(key).rsplit("/", 1)[-1].lower().replace("-", "").replace("_", ""): value
            for key, value in held.items()
        }
        keys.update({key.removeprefix("x"): value for key, value in keys.items() if key[:1] == "x"})
        for wanted in _MODEL_KEYS:
            value = keys.get(wanted)
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, str) and value:
                return clean(value)
    return ""


def _occurred(headers: Mapping[str, str], received_at: datetime | None) -> datetime | None:
    """Return the first plausible time; a clock that is years off tells nothing."""
    for name in ("ce-time", "ce-recordedtime"):
        time = parse_time(headers.get(name))
        if time is None:
            continue
        if received_at is None or received_at - _PAST <= time <= received_at + _FUTURE:
            return time
    return received_at


def parse_time(text: object) -> datetime | None:
    """Parse RFC 3339; nanoseconds are cut to microseconds."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
