"""What became of examined files, as tables: one row a file, and their thumbnails beside them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, get_type_hints

import pyarrow as pa

from visionloop.lake.schemas import TIME
from visionloop.media.inspect import Inspection
from visionloop.media.metadata import Sidecar, Value
from visionloop.media.reading import OK, UNREADABLE, Examined

# What an image is stands in columns of these names: `image_width` for `Inspection.width`.
IMAGE = "image_"
ID = pa.binary(32)
# Pictures of some ten kilobytes a row lie in a table of their own: who decides reads none.
THUMBNAIL = "thumbnail"

_FILE: list[tuple[str, pa.DataType]] = [
    ("source", pa.int16()),
    ("state", pa.string()),
    ("uri", pa.string()),
    ("generation", pa.string()),
    ("size", pa.int64()),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("offset", pa.int64()),
    ("sample", ID),
    ("kept", pa.string()),
    ("sidecar", pa.string()),
    ("label", pa.string()),
    ("boxes", pa.string()),
    ("raw", pa.string()),
    ("metadata", pa.string()),
]
_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
    bool: pa.bool_(),
    datetime: TIME,
    datetime | None: TIME,
}


def _image_columns() -> dict[str, pa.DataType]:
    hints = get_type_hints(Inspection)
    left_out = ("sample_id", "exif", THUMBNAIL)
    return {name: _TYPES[hint] for name, hint in hints.items() if name not in left_out}


IMAGE_COLUMNS = _image_columns()
SCHEMA = pa.schema([*_FILE, *((IMAGE + name, kind) for name, kind in IMAGE_COLUMNS.items())])
_PICTURE = {"sample": ID, THUMBNAIL: pa.binary()}
PICTURES = pa.schema(list(_PICTURE.items()))


def part_table(source: int, found: Sequence[Examined]) -> pa.Table:
    """Return what became of some files of one source as a table.

    Args:
        source: Number of the source.
        found: The files.
    """
    rows = [_row(source, one) for one in found]
    types: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        for name, value in (one.sidecar.values if one.sidecar else {}).items():
            types[name][value.type] += 1
    told = json.dumps(types, sort_keys=True)
    return pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata({"types": told})


def types_of(table: pa.Table) -> dict[str, dict[str, int]]:
    """Return how many values of which type the metadata of a part has in each column."""
    found: dict[str, dict[str, int]] = json.loads(
        (table.schema.metadata or {}).get(b"types", b"{}")
    )
    return found


def pictures(found: Iterable[Examined]) -> pa.Table:
    """Return the thumbnails of the readable images among some files."""
    seen = [one.inspection for one in found if one.inspection is not None]
    rows = {
        "sample": [bytes.fromhex(one.sample_id) for one in seen],
        THUMBNAIL: [getattr(one, THUMBNAIL, b"") for one in seen],
    }
    return pa.table(rows, schema=PICTURES)


def sidecars_of(table: pa.Table) -> list[Sidecar | None]:
    """Return the metadata of each row of a part."""
    raws, told = table["raw"].to_pylist(), table["metadata"].to_pylist()
    return [
        None if text is None else _sidecar(raw or "", json.loads(text))
        for raw, text in zip(raws, told, strict=True)
    ]


def _row(source: int, one: Examined) -> dict[str, Any]:
    info, sidecar, image = one.entry.info, one.sidecar, one.inspection
    boxes = one.entry.boxes
    row: dict[str, Any] = {
        "source": source,
        "state": one.state,
        "uri": info.uri,
        "generation": info.generation,
        "size": one.size if one.state in (OK, UNREADABLE) else info.size,
        "reason": one.reason,
        "detail": one.detail[:500],
        "offset": one.offset,
        "sample": bytes.fromhex(one.sample_id) if one.inspection is not None else None,
        "kept": one.kept or None,
        "sidecar": one.sidecar_mark,
        "label": one.entry.label or None,
        "boxes": json.dumps([dict(box) for box in boxes]) if boxes is not None else None,
        "raw": sidecar.raw if sidecar is not None else None,
        "metadata": _told(sidecar) if sidecar is not None else None,
    }
    if image is not None:
        row |= {IMAGE + name: getattr(image, name) for name in IMAGE_COLUMNS}
    return row


def _told(sidecar: Sidecar) -> str:
    """Return all of a sidecar but its text, as JSON."""
    rest = {
        field.name: getattr(sidecar, field.name)
        for field in dataclasses.fields(sidecar)
        if field.name not in ("raw", "values")
    }
    values = {
        name: [
            one.type,
            one.value.isoformat() if isinstance(one.value, datetime) else one.value,
            one.text,
        ]
        for name, one in sidecar.values.items()
    }
    return json.dumps({"values": values, **rest}, ensure_ascii=False)


def _sidecar(raw: str, told: dict[str, Any]) -> Sidecar:
    values = {
        name: Value(kind, datetime.fromisoformat(value) if kind == "time" else value, text)
        for name, (kind, value, text) in told.pop("values").items()
    }
    rest: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in told.items()
    }
    return Sidecar(raw=raw, values=values, **rest)
