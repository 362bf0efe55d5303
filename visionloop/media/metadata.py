"""Metadata of images: of sidecars, tables, paths and EXIF to typed columns, and nothing lost.

A sidecar is a JSON object or a YAML mapping in ``<image>.json`` or ``<image stem>.json`` (also
``.yaml`` and ``.yml``). Nested objects become flat (``{"sensor": {"iso": 400}}`` gives
``sensor_iso``), lists are kept as JSON text. A column has one of four types, decided by the first
batch that brings it: bool, float64, timestamp (ISO 8601, UTC where it names no offset) or string; a
batch that mixes types makes a string column. A value that does not fit a column later is left out
of it, stays in `raw`, and is reported.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import pyarrow as pa

from visionloop.documents import parse_document
from visionloop.errors import InputError
from visionloop.lake.schemas import TIME
from visionloop.media.metadata_room import MAX_COLUMNS, MAX_OWN_COLUMNS, with_room

MAX_SIDECAR_BYTES = 1 << 20

# Problems that hold no more where a sample's metadata are read anew and these are not told again.
# (A conflict may be with an imported set, which a later ingest knows nothing of.)
MENDED = frozenset({"bad_sidecar", "path_mismatch"})
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
    """What one sidecar, or another origin of metadata, holds.

    Attributes:
        raw: The file's text, undecodable bytes replaced; of YAML the same as JSON, if it can be
            read.
        values: Value of each column.
        problem: Why nothing could be read from it; empty when it could.
        collisions: Columns that several of its names lead to; the first name in order won.
        conflicts: One sentence for each column in which origins differ; the first origin won.
        mismatch: The path that its source's pattern does not fit; empty when it does.
    """

    raw: str
    values: Mapping[str, Value]
    problem: str = ""
    collisions: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    mismatch: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that a person should know of one sample's metadata.

    Attributes:
        sample_id: The sample.
        kind: ``bad_sidecar``, ``metadata_conflict`` or ``path_mismatch``.
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


def parse_sidecar(data: bytes, *, yaml: bool = False) -> Sidecar:
    """Read a sidecar, JSON or YAML; a bad one gives no values and a `problem`."""
    raw = data[:MAX_SIDECAR_BYTES].decode("utf-8-sig", "replace").replace("\x00", "\ufffd")
    if len(data) > MAX_SIDECAR_BYTES:
        return Sidecar(raw, {}, f"larger than {MAX_SIDECAR_BYTES:,} bytes")
    form = "YAML" if yaml else "JSON"
    try:
        text = data.decode("utf-8-sig")
        content = _of_yaml(text) if yaml else json.loads(text)
    except InputError as error:
        return Sidecar(raw, {}, error.what)
    except (ValueError, RecursionError) as error:
        return Sidecar(raw, {}, f"not {form}: {error}")
    if not isinstance(content, dict):
        return Sidecar(raw, {}, f"a {form} {type(content).__name__} instead of an object")
    found = sidecar_of(content, None if yaml else raw)
    if len(found.values) > MAX_OWN_COLUMNS:
        problem = f"{len(found.values):,} values, more than {MAX_OWN_COLUMNS}"
        return Sidecar(found.raw or raw, {}, problem)
    return replace(found, raw=found.raw or raw)


def sidecar_of(content: Mapping[str, Any], raw: str | None = None) -> Sidecar:
    """Return values as a sidecar that held them.

    Args:
        content: Plain values by name, and times.
        raw: The text that they were read from; None for the same as JSON.
    """
    values: dict[str, Value] = {}
    collisions = []
    try:
        for name, value in sorted(_flat(content), key=lambda pair: pair[0]):
            column = column_name(name)
            if column in values:
                collisions.append(column)
            elif (typed := _typed(value)) is not None:
                values[column] = typed
        raw = _as_json(content) if raw is None else raw
    except RecursionError:
        return Sidecar(raw or "", {}, "nested too deeply")
    except ValueError:  # Python writes no integer of more than 4300 digits
        return Sidecar(raw or "", {}, "a number has too many digits")
    return Sidecar(raw, values, "", tuple(collisions))


def combined(origins: Sequence[tuple[str, Sidecar]]) -> Sidecar | None:
    """Return what several origins say together; where they differ the first one is right.

    Args:
        origins: Name and metadata of each origin, the one that is to be believed first.

    Returns:
        All of it, with the text of the first; None where there is no origin.
    """
    if not origins:
        return None
    values: dict[str, Value] = {}
    by: dict[str, str] = {}
    conflicts = [one for _, told in origins for one in told.conflicts]
    for origin, told in origins:
        for column, value in told.values.items():
            if column not in values:
                values[column], by[column] = value, origin
            elif not _agree(values[column], value):
                kept = f"{by[column]} says {values[column].text[:80]!r}"
                conflicts.append(f"column {column!r}: {kept}, {origin} {value.text[:80]!r}")
    return Sidecar(
        origins[0][1].raw,
        values,
        "; ".join(told.problem for _, told in origins if told.problem),
        tuple(column for _, told in origins for column in told.collisions),
        tuple(conflicts),
        next((told.mismatch for _, told in origins if told.mismatch), ""),
    )


def _agree(a: Value, b: Value) -> bool:
    return a.value == b.value if a.type == b.type else a.text == b.text


def _of_yaml(text: str) -> Any:
    import yaml

    try:
        # A few aliases of aliases are a document of a billion values.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError("its aliases (*name) are not read")
    except yaml.YAMLError:
        pass  # which is told better below
    return parse_document(text, where="sidecar")


def _as_json(content: Any) -> str:
    plain = _plain_keys(content)
    text = json.dumps(plain, ensure_ascii=False, sort_keys=True, default=_written)
    return text.encode("utf-8", "replace").decode()


def _plain_keys(content: Any) -> Any:
    """Return a value whose names are texts: YAML has numbers and dates for names, too."""
    if isinstance(content, Mapping):
        return {str(name): _plain_keys(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain_keys(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None  # which JSON has no word for
    return content


def _written(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def plain_value(value: Any) -> Any:
    """Return a value of a table as JSON has it; None for what says nothing."""
    match value:
        case None | bool() | int() | str():
            return value
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case float() | Decimal() | Real():
            number = float(value)
            return number if math.isfinite(number) else None
        case dict() | list():
            return json.loads(json.dumps(value, default=plain_value))
        case bytes():
            return value.hex()
        case _:
            return str(value)


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
    problems += [
        Problem(i, "metadata_conflict", told) for i in ids for told in sidecars[i].conflicts
    ]
    problems += [
        Problem(i, "path_mismatch", f"the pattern does not fit {sidecars[i].mismatch!r}")
        for i in ids
        if sidecars[i].mismatch
    ]
    held = {field.name: _type_of(field.type) for field in existing if field.name not in RESERVED}
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array(ids, pa.string()),
        "raw": pa.array([sidecars[i].raw for i in ids], pa.string()),
    }
    counts = Counter(name for i in ids for name in sidecars[i].values)
    added = with_room(
        {name: n for name, n in counts.items() if name not in held}, MAX_COLUMNS - len(held)
    )
    for column in sorted(counts):
        given = [sidecars[i].values.get(column) for i in ids]
        if column not in held and column not in added:
            problems += [
                Problem(i, "metadata_conflict", f"no room for column {column!r}")
                for i, value in zip(ids, given, strict=True)
                if value is not None
            ]
            continue
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
        if isinstance(value, Mapping):
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
        case date():  # of which a time is one
            return _typed(value.isoformat())
        case str():
            moment = _moment(value)
            # Half a surrogate pair, which JSON can write and no table holds.
            text = value.encode("utf-8", "replace").decode()
            return Value("text", text, text) if moment is None else Value("time", moment, value)
        case _:
            text = _as_json(value)
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
