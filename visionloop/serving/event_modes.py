"""How events lie in a delivery: in CloudEvents' binary mode, in structured mode, or as a batch.

In binary mode an event's attributes are the headers ``ce-*`` of an HTTP request, and its data is
the body. In structured mode the body is a JSON object with both, in a batch a list of those; what
they hold is told here as if it had come in binary mode, event by event.

Of a structured event only the attributes count that a logger of inferences sends: everything else
in the object is the sender's business, and may be as large and as private as the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from visionloop.serving.bodies import Undecodable, base64_bytes, clean, parse_json

_TYPE, _BATCH_TYPE = "application/cloudevents", "application/cloudevents-batch"
_ATTRIBUTES = frozenset(
    {
        "specversion", "id", "type", "source", "subject", "time", "recordedtime", "dataschema",
        "inferenceservicename", "namespace", "component", "endpoint", "metadata", "annotations",
    }
)  # fmt: skip
# These are JSON in a header, and some senders leave them what they are; no other may be an object.
_OBJECTS = frozenset({"metadata", "annotations"})
# A head of HTTP with more is refused, too.
_MAX_ATTRIBUTE_BYTES = 256 * 1024


def restored(headers: Mapping[str, object]) -> dict[str, str]:
    """Return headers with the text that was meant: each was read as Latin-1, whatever it was.

    Args:
        headers: As a line of a segment holds them.

    Raises:
        Undecodable: One is no text, and nested too deep to be written as one.
    """
    return {str(name).lower(): _restored(value) for name, value in headers.items()}


def _restored(value: object) -> str:
    text = value if isinstance(value, str) else compact_json(value)
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return clean(text)


def as_logged(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as a line of a segment holds them; `restored` undoes it."""
    return {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}


def content_type(headers: Mapping[str, str]) -> str:
    """Return the content type as it is compared: lower case, empty where there is none."""
    return headers.get("content-type", "").strip().lower()


def is_structured(headers: Mapping[str, str]) -> bool:
    """Return whether a delivery's body holds whole events, attributes included."""
    return content_type(headers).startswith(_TYPE)


def taken_apart(
    headers: Mapping[str, str], body: bytes
) -> Iterator[tuple[dict[str, str], bytes] | None]:
    """Yield headers and body of each event of a structured delivery, as binary mode has them.

    Args:
        headers: Of the delivery, `is_structured`, as of `restored`.
        body: Its body.

    Yields:
        The events in their order; None, at most once, for whatever in it is no event.
    """
    try:
        value, rest = parse_json(body)
    except Undecodable:
        value, rest = None, b""
    batch = content_type(headers).startswith(_BATCH_TYPE) and isinstance(value, list)
    broken = False
    for member in value if batch and not rest.strip() else [value]:
        try:
            if not isinstance(member, dict) or rest.strip():
                raise Undecodable("structured_invalid")
            yield _attributes(member), _data(member)
        except Undecodable:
            if not broken:
                yield None
            broken = True


def _attributes(member: Mapping[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = 0
    for name, value in member.items():
        key = str(name).lower()
        if value is None or (isinstance(value, dict | list) and key not in _OBJECTS):
            continue
        if key == "datacontenttype":
            header = "content-type"
        elif key in _ATTRIBUTES:
            header = "ce-" + key
        else:
            continue
        headers[header] = clean(value) if isinstance(value, str) else compact_json(value)
        size += len(headers[header])
        if size > _MAX_ATTRIBUTE_BYTES:
            raise Undecodable("structured_invalid")
    return headers


def _data(member: Mapping[str, Any]) -> bytes:
    if isinstance(member.get("data_base64"), str):
        return base64_bytes(member["data_base64"]) or b""
    data = member.get("data")
    if data is None:
        return b""
    return (data if isinstance(data, str) else compact_json(data)).encode("utf-8", "replace")


def compact_json(value: object) -> str:
    """Return a value as JSON without spaces.

    Raises:
        Undecodable: ``nested_too_deep``: it could be read, and cannot be written.
    """
    try:
        return clean(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    except RecursionError:
        raise Undecodable("nested_too_deep") from None
