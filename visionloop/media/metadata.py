"""Metadata that lies beside images: sidecar files to typed columns, and nothing lost on the way.

A sidecar is a JSON object in ``<image>.json`` or ``<image stem>.json``. Nested objects become flat
(``{"sensor": {"iso": 400}}`` gives ``sensor_iso``), lists are kept as JSON text. A column has one
of four types, decided by the first batch that brings it: bool, float64, timestamp (ISO 8601, UTC
where it names no offset) or string; a batch that mixes types makes a string column. A value that
does not fit a column later is left out of it, stays in `raw`, and is reported.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from visionloop.lake.schemas import TIME

MAX_SIDECAR_BYTES = 1 << 20
MAX_COLUMNS = 500

# Columns of the table that are no metadata.
RESERVED = frozenset({"sample_id", "raw", "round_id", "run_id"})
# Where a time of capture is looked for, in this order, when EXIF has none.
CAPTURE_COLUMNS = ("captured_at", "taken_at", "timestamp", "datetime")

_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "number": pa.float64(),
    "time": TIME,
    "text": pa.string(),
}
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
# Beyond this a float64 no longer tells neighbouring integers apart: such a number is an identifier.
_LARGEST_EXACT = 2**53


@dataclass(frozen=True)
class Value:
    """One value: its type, itself, and how it was written.

    Attributes:
        type: ``bool``, ``number``, ``time`` or ``text``.
        value: The Python value of that type.
        text: The value as text, for a string column.
    """

    type: str
    value: bool | float | datetime | str
    text: str


@dataclass(frozen=True)
class Sidecar:
    """What one sidecar holds.

    Attributes:
        raw: The file's text, undecodable bytes replaced.
        values: Value of each column.
        problem: Why nothing could be read from it; empty when it could.
        collisions: Columns that several of its names lead to; the first name in order won.
    """

    raw: str
    values: Mapping[str, Value]
    problem: str = ""
    collisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Something that a person should know of one sample's metadata.

    Attributes:
        sample_id: The sample.
        kind: ``bad_sidecar`` or ``metadata_conflict``.
        detail: One sentence.
    """

    sample_id: str
    kind: str
    detail: str


def column_name(name: str) -> str:
    """Return the column that a sidecar's name leads to.

    Lower case (SQL engines do not tell cases apart), ASCII letters, digits and single underscores.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    column = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if not column:
        # A name without any ASCII letter still gets a column of its own, always the same.
        column = "u_" + "_".join(f"{ord(character):x}" for character in name[:16])
    if column[0].isdigit() or column in RESERVED:
        column = f"meta_{column}"
    return column


def parse_sidecar(data: bytes) -> Sidecar:
    """Read a sidecar; a bad one gives no values and a `problem`."""
    raw = data[:MAX_SIDECAR_BYTES].decode("utf-8-sig", "replace").replace("\x00", "\ufffd")
    if len(data) > MAX_SIDECAR_BYTES:
        return Sidecar(raw, {}, f"larger than {MAX_SIDECAR_BYTES:,} bytes")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Sidecar(raw, {}, f"not JSON: {error}")
    if not isinstance(content, dict):
        return Sidecar(raw, {}, f"a JSON {type(content).__name__} instead of an object")
    values: dict[str, Value] = {}
    collisions = []
    for name, value in sorted(_flat(content), key=lambda pair: pair[0]):
        column = column_name(name)
        if column in values:
            collisions.append(column)
        elif (typed := _typed(value)) is not None:
            values[column] = typed
    return Sidecar(raw, values, "", tuple(collisions))


def capture_time(sidecar: Sidecar) -> datetime | None:
    """Return the time of capture that a sidecar states, in UTC."""
    for column in CAPTURE_COLUMNS:
        value = sidecar.values.get(column)
        if value is not None and isinstance(value.value, datetime):
            return value.value
    return None


def column_type(types: Iterable[str]) -> pa.DataType:
    """Return the type of a column whose values have some types: text where they are of several."""
    return _TYPES[_one_of(types)]


def metadata_table(
    sidecars: Mapping[str, Sidecar], existing: pa.Schema
) -> tuple[pa.Table, list[Problem]]:
    """Return the rows of the table `metadata` for some sidecars.

    Args:
        sidecars: Sidecar of each sample id.
        existing: Schema of the table as it is; new names add columns to it.

    Returns:
        The rows, in the order of their sample ids (sample_id, raw, then the columns in
        alphabetical order), and what did not fit.
    """
    ids = sorted(sidecars)
    problems = [Problem(i, "bad_sidecar", sidecars[i].problem) for i in ids if sidecars[i].problem]
    problems += [
        Problem(i, "metadata_conflict", f"several names lead to column {column!r}")
        for i in ids
        for column in sidecars[i].collisions
    ]
    held = {field.name: _type_of(field.type) for field in existing if field.name not in RESERVED}
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array(ids, pa.string()),
        "raw": pa.array([sidecars[i].raw for i in ids], pa.string()),
    }
    room = MAX_COLUMNS - len(held)
    for column in sorted({name for i in ids for name in sidecars[i].values}):
        given = [sidecars[i].values.get(column) for i in ids]
        if column not in held:
            if room <= 0:
                problems += [
                    Problem(i, "metadata_conflict", f"no room for column {column!r}")
                    for i, value in zip(ids, given, strict=True)
                    if value is not None
                ]
                continue
            room -= 1
        type_ = held.get(column) or _common_type(value for value in given if value is not None)
        cells = []
        for sample_id, value in zip(ids, given, strict=True):
            cells.append(_cell(value, type_))
            if value is not None and cells[-1] is None:
                problems.append(
                    Problem(
                        sample_id,
                        "metadata_conflict",
                        f"column {column!r} holds {type_}s, not {value.text[:80]!r}",
                    )
                )
        columns[column] = pa.array(cells, _TYPES[type_])
    return pa.table(columns), sorted(problems, key=lambda p: (p.sample_id, p.kind, p.detail))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _typed(value: Any) -> Value | None:
    match value:
        case None:
            return None
        case bool():
            return Value("bool", value, "true" if value else "false")
        case int() if abs(value) > _LARGEST_EXACT:
            return Value("text", str(value), str(value))
        case int() | float():
            return None if not math.isfinite(value) else Value("number", float(value), repr(value))
        case str():
            moment = _moment(value)
            return Value("text", value, value) if moment is None else Value("time", moment, value)
        case _:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True)
            return Value("text", text, text)


def _moment(text: str) -> datetime | None:
    if not _TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _common_type(values: Iterable[Value]) -> str:
    return _one_of(value.type for value in values)


def _one_of(types: Iterable[str]) -> str:
    told = set(types)
    return told.pop() if len(told) == 1 else "text"


def _type_of(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return "number"
    return "time" if pa.types.is_timestamp(kind) else "text"


def _cell(value: Value | None, type_: str) -> bool | float | datetime | str | None:
    if value is None:
        return None
    if type_ == "text":
        return value.text
    return value.value if value.type == type_ else None
