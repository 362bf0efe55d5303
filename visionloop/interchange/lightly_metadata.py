"""LightlyOne's metadata: ``schema.json`` says where each value lies, its type and what stands in.

A column is an entry ``{"name", "path", "defaultValue", "valueDataType"}``. Its path is keys joined
by dots, as in ``weather.description`` or ``sensors[0].iso``; that, not the name, is what selections
call it by, so it is what it is called here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from visionloop.errors import InputError
from visionloop.interchange.boxes import finite, plain_number
from visionloop.interchange.places import read_json
from visionloop.interchange.records import Problems
from visionloop.interchange.shapes import as_list, as_object, as_text

# Moments of this many seconds after 1970 or more are counted in milliseconds: it is the year 5138.
_MILLISECONDS = 1e11
_DIGITS = re.compile(r"[+-]?[0-9]{1,300}")
_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")

_WRITTEN: dict[type, str] = {
    bool: "CATEGORICAL_BOOLEAN",
    int: "NUMERIC_INT",
    float: "NUMERIC_FLOAT",
    datetime: "CATEGORICAL_DATETIME",
}
TEXT = "CATEGORICAL_STRING"


def type_of(values: Iterable[type]) -> str:
    """Return the type of a column whose values have some Python types."""
    kinds = set(values)
    if kinds == {int, float}:
        return "NUMERIC_FLOAT"
    return _WRITTEN.get(kinds.pop(), TEXT) if len(kinds) == 1 else TEXT


def entry(path: str, kind: str) -> dict[str, Any]:
    """Return a column's entry; nothing stands in for what is not known."""
    return {"name": path, "path": path, "defaultValue": None, "valueDataType": kind}


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)  # of a long one a float would lose the end
    number = finite(value)
    if number is None or not number.is_integer():
        return None
    return value if isinstance(value, int) else int(number)


def _float(value: Any) -> int | float | None:
    number = finite(value)
    return None if number is None else value if isinstance(value, int) else number


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(plain_number(value)) if finite(value) is not None else None
    return value if isinstance(value, str) else None


def _datetime(value: Any) -> str | None:
    try:
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _timestamp(value: Any) -> str | None:
    number = finite(value)
    if number is None:
        return None
    seconds = number / 1000 if abs(number) >= _MILLISECONDS else number
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


_READ: dict[str, Callable[[Any], Any]] = {
    "NUMERIC_INT": _whole,
    "NUMERIC_FLOAT": _float,
    "CATEGORICAL_INT": _whole,
    "CATEGORICAL_BOOLEAN": _boolean,
    TEXT: _text,
    "CATEGORICAL_DATETIME": _datetime,
    "CATEGORICAL_TIMESTAMP": _timestamp,
}


@dataclass(frozen=True)
class _Column:
    path: str
    type: str
    default: Any


class MetadataSchema:
    """The columns of a set's metadata.

    Args:
        content: What stands in the schema's file.
        file: Its path in the set.
        problems: Receives entries that cannot be understood: their values are taken as they stand.
    """

    def __init__(self, content: Any, file: str, problems: Problems) -> None:
        self._problems = problems
        self._columns: dict[str, _Column] = {}
        if not isinstance(content, list):
            problems.add("metadata_schema", file, "", "no list of entries")
        for number, said in enumerate(as_list(content)):
            one = as_object(said)
            path, kind = as_text(one.get("path")), as_text(one.get("valueDataType"))
            if not path or kind not in _READ:
                told = f"path {path!r}, valueDataType {kind!r}"
                problems.add("metadata_schema", file, f"[{number}]", told)
            elif path in self._columns:
                problems.add("metadata_schema", file, f"[{number}].path", f"{path!r} once more")
            else:
                field = f"[{number}].defaultValue"
                default = self._typed(kind, one.get("defaultValue"), file, field)
                self._columns[path] = _Column(path, kind, default)

    @staticmethod
    def read(uri: str, file: str, problems: Problems) -> MetadataSchema:
        """Read a schema; one that is no JSON has no columns.

        Args:
            uri: Where it lies.
            file: Its path in the set.
            problems: Receives what is wrong with it.

        Raises:
            StorageError: It cannot be read.
        """
        try:
            content = read_json(uri)
        except InputError as error:
            problems.add("bad_json", file, "", error.what)
            content = []
        return MetadataSchema(content, file, problems)

    def values(self, known: Mapping[str, Any], file: str) -> dict[str, Any]:
        """Return an image's metadata: each column in its type, the rest as it stands.

        Args:
            known: What is said of the image; empty for nothing.
            file: Where it is said.

        Returns:
            Values by path. A default stands for a value that is absent or null; one that does not
            fit its type is left out and told.
        """
        if not self._columns:
            return dict(known)
        flat = dict(_flat(known))
        for path, column in self._columns.items():
            value = flat.pop(path) if path in flat else _at(known, path)
            if value is None:
                typed = column.default
            else:
                typed = self._typed(column.type, value, file, f"metadata.{path}")
            if typed is not None:
                flat[path] = typed
        return flat

    def _typed(self, kind: str, value: Any, file: str, field: str) -> Any:
        if value is None:
            return None
        typed = _READ[kind](value)
        if typed is None:
            self._problems.add("metadata_type", file, field, f"{value!r} is no {kind}")
        return typed


def _flat(known: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in known.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _at(known: Any, path: str) -> Any:
    """Return what lies at a path, None for nothing."""
    for step in _STEP.findall(path):
        if step.startswith("["):
            held, place = as_list(known), int(step[1:-1])
            known = held[place] if place < len(held) else None
        else:
            known = as_object(known).get(step)
    return known
