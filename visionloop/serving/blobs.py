"""Objects of KServe's blob logger: one record, an array of records, or CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from visionloop.serving.bodies import Undecodable, base64_bytes, clean, parse_json
from visionloop.serving.event_modes import compact_json
from visionloop.serving.events import Event, broken_event, events_of, parse_time

# The logger's field: the event's header.
_FIELDS = {
    "reqType": "ce-type",
    "id": "ce-id",
    "inferenceService": "ce-inferenceservicename",
    "namespace": "ce-namespace",
    "component": "ce-component",
    "endpoint": "ce-endpoint",
    "metadata": "ce-metadata",
    "annotations": "ce-annotations",
    "occurrenceTime": "ce-time",
    "contentType": "content-type",
}


def blob_events(data: bytes, uri: str) -> Iterator[Event]:
    """Yield the events of one object; a record that cannot be read is one event with a problem."""
    try:
        records = _csv_records(data) if uri.endswith(".csv") else _json_records(data)
    except Undecodable as error:
        yield broken_event(data, error.reason, uri, 1)
        return
    digest = hashlib.sha256(data).hexdigest()
    for number, record in enumerate(records, start=1):
        try:
            body, headers = _body(record.get("bytes")), _headers(record)
        except Undecodable:
            yield broken_event(digest, "blob_invalid", uri, number)
            continue
        yield from events_of(
            headers,
            body,
            received_at=parse_time(record.get("occurrenceTime")),
            uri=uri,
            line=number,
        )


def _body(said: object) -> bytes:
    if said in (None, ""):
        return b""
    body = base64_bytes(said) if isinstance(said, str) else None
    if body is None:
        raise Undecodable("blob_invalid")
    return body


def _headers(record: Mapping[str, Any]) -> dict[str, str]:
    headers = {}
    for name, header in _FIELDS.items():
        value = record.get(name)
        if value not in (None, ""):
            headers[header] = clean(value) if isinstance(value, str) else compact_json(value)
    source = record.get("sourceUri")
    if isinstance(source, dict):  # a Go url.URL
        source = f"{source.get('Scheme', '')}://{source.get('Host', '')}{source.get('Path', '')}"
    if isinstance(source, str) and source:
        headers["ce-source"] = clean(source)
    return headers


def _json_records(data: bytes) -> list[dict[str, Any]]:
    value, rest = parse_json(data)
    records = value if isinstance(value, list) else [value]
    if rest.strip() or not all(isinstance(record, dict) for record in records):
        raise Undecodable("blob_invalid")
    return records


def _csv_records(data: bytes) -> list[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    except (csv.Error, UnicodeDecodeError):
        raise Undecodable("blob_invalid") from None
    for row in rows:
        for name in ("metadata", "annotations"):
            try:
                json.loads(row.get(name) or "null")
            except ValueError:
                row[name] = ""
    return rows
