"""Filters of images: read from an address, explained where they are wrong, applied to an index."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.live.columns import NUMBER, ROUNDS, SET, TEXT, TIME, YES_NO, Column
from visionloop.monitoring.live.index import BETWEEN, Index, codes_and_names
from visionloop.words import counted, round_id_of

Mask = NDArray[np.bool_]

# Operators as they stand in an address, and as people read them.
OPERATORS = {
    "eq": "=",
    "ne": "≠",
    "lt": "<",
    "gt": ">",
    "contains": "contains",
    "empty": "is empty",
    "filled": "is not empty",
}
# Those that a kind of column has.
OF_KIND = {
    TEXT: tuple(OPERATORS),
    SET: ("eq", "ne", "contains", "empty", "filled"),
    NUMBER: ("eq", "ne", "lt", "gt", "empty", "filled"),
    TIME: ("eq", "ne", "lt", "gt", "empty", "filled"),
    YES_NO: ("eq", "ne", "empty", "filled"),
}
_NO_VALUE = frozenset({"empty", "filled"})
# So many filters at once, and so many characters of a value, are more than a person writes.
MOST, LONGEST = 20, 1000
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True)
class Filter:
    """One condition.

    Attributes:
        column: Name of a column.
        op: One of `OPERATORS`.
        value: What it is compared with, as it was written; empty for ``empty`` and ``filled``.
    """

    column: str
    op: str
    value: str = ""

    @property
    def sign(self) -> str:
        """The operator as people read it."""
        return OPERATORS[self.op]


def filters_of(
    columns: Sequence[str], ops: Sequence[str], values: Sequence[str], index: Index
) -> tuple[Filter, ...]:
    """Return the filters of an address, whose parts come in threes; one without a column is none.

    Args:
        columns: Names of columns.
        ops: Operators, as many.
        values: Values, as many.
        index: The images, whose columns may be named.

    Raises:
        InputError: A column, operator or value cannot be used, in words that name what can.
    """
    if not len(columns) == len(ops) == len(values):
        raise InputError(
            f"column is given {counted(len(columns), 'time')}, op {counted(len(ops), 'time')} and "
            f"value {counted(len(values), 'time')}",
            where="filters",
            remedy="Give all three of each filter, in one order: column=split&op=eq&value=pool",
        )
    if len(columns) > MOST:
        raise InputError(f"{len(columns)} filters at once", remedy=f"Use at most {MOST}")
    found = []
    for name, op, value in zip(columns, ops, values, strict=True):
        if name:
            column = column_named(name, index)
            made = Filter(name, op, "" if op in _NO_VALUE else _meant(column, op, value.strip()))
            _check(made, column)
            if column.kind == SET and op in ("eq", "ne"):
                _check_kind(made, index)
            found.append(made)
    return tuple(found)


def column_named(name: str, index: Index) -> Column:
    """Return a column by its name.

    Raises:
        InputError: There is no such column; its message names those that there are.
    """
    from visionloop.validation import nearest

    if name not in index.columns:
        raise InputError(
            f"there is no column `{name[:80]}`{nearest(name, list(index.columns))}",
            where="column",
            remedy=f"Use one of {', '.join(index.columns)}",
        )
    return index.columns[name]


def _meant(column: Column, op: str, value: str) -> str:
    """Return a value as the column holds it: of a round its id, of a kind of flag its name."""
    if column.name in ROUNDS and op != "contains":
        return round_id_of(value)
    if column.kind == SET and op in ("eq", "ne"):
        titles = {kind.title.casefold(): kind.name for kind in KINDS.values()}
        return titles.get(value.casefold(), value)
    return value


def _check_kind(made: Filter, index: Index) -> None:
    from visionloop.validation import nearest

    held = {kind for kind, _ in index.counts(made.column, None, len(KINDS) + LONGEST)}
    known = sorted({*KINDS, *held})
    if made.value not in known:
        raise InputError(
            f"there is no kind of flag `{made.value[:80]}`{nearest(made.value, known)}",
            where=f"filter on {made.column}",
            remedy="Use one of " + (", ".join(sorted(held)) or ", ".join(known)),
        )


def _check(made: Filter, column: Column) -> None:
    where = f"filter on {column.name}"
    allowed = OF_KIND[column.kind]
    if made.op not in allowed:
        raise InputError(
            f"`{made.op[:40]}` cannot be asked of a column of the kind {column.kind}",
            where=where,
            remedy="Use one of " + ", ".join(f"{one} ({OPERATORS[one]})" for one in allowed),
        )
    if len(made.value) > LONGEST:
        raise InputError(f"a value of {len(made.value):,} characters", where=where)
    if made.op in _NO_VALUE:
        return
    if not made.value:
        raise InputError(
            "a filter without a value", where=where, remedy="Use empty (is empty) for what has none"
        )
    _READERS[column.kind](made.value, where)


def mask_of(index: Index, filters: Sequence[Filter]) -> Mask | None:
    """Return which rows all filters let through, bool [n]; None where there is no filter.

    Args:
        index: The images.
        filters: From `filters_of`.
    """
    mask: Mask | None = None
    for one in filters:
        found = _mask(index, one, index.columns[one.column])
        mask = found if mask is None else mask & found
    return mask


def _mask(index: Index, one: Filter, column: Column) -> Mask:
    values = index.table[one.column]
    if pa.types.is_dictionary(values.type):
        codes, names = codes_and_names(values)
        # Asked of each text once, and of what is no text at the end: -1 is the last place.
        answers = [_of_text(name, one, column) for name in names]
        return np.array([*answers, _of_nothing(one)], dtype=bool)[codes]
    empty = pc.is_null(values, nan_is_null=True)
    if pa.types.is_string(values.type):
        empty = pc.or_(empty, pc.fill_null(pc.equal(values, ""), False))
    if one.op in _NO_VALUE:
        return _numpy(empty if one.op == "empty" else pc.invert(empty))
    told = _READERS[column.kind](one.value, "")
    answer = pc.fill_null(_compared(values, one.op, told, column), False)
    # What is missing differs from everything, and is neither less nor more than anything.
    answer = pc.or_(answer, empty) if one.op == "ne" else pc.and_not(answer, empty)
    return _numpy(answer)


def _numpy(values: Any) -> Mask:
    found: Mask = values.to_numpy()
    return found


def _of_nothing(one: Filter) -> bool:
    return one.op in ("ne", "empty")


def _of_text(name: str, one: Filter, column: Column) -> bool:
    if not name:
        return _of_nothing(one)
    held = name.split(BETWEEN) if column.kind == SET else [name]
    asked: dict[str, Callable[[], bool]] = {
        "eq": lambda: one.value in held,
        "ne": lambda: one.value not in held,
        "lt": lambda: name < one.value,
        "gt": lambda: name > one.value,
        "contains": lambda: any(one.value.casefold() in item.casefold() for item in held),
        "empty": lambda: False,
        "filled": lambda: True,
    }
    return asked[one.op]()


def _compared(values: pa.ChunkedArray, op: str, told: Any, column: Column) -> Any:
    if op == "contains":
        return pc.match_substring(values, told, ignore_case=True)
    if column.kind == TIME:
        return _in_time(values, op, *told)
    if pa.types.is_floating(values.type):
        # At the column's own precision: 0.9 is found where 32 bits hold what is told as 0.9.
        told = pa.scalar(float(told), values.type)
    compare = {"eq": pc.equal, "ne": pc.not_equal, "lt": pc.less, "gt": pc.greater}
    return compare[op](values, told)


def _in_time(values: pa.ChunkedArray, op: str, first: datetime, last: datetime) -> Any:
    """Compare with a span of time: a day is over before anything is later than it."""
    zoned = values.type.tz is not None
    low, high = (
        pa.scalar(one if zoned else one.replace(tzinfo=None), values.type) for one in (first, last)
    )
    if op == "lt":
        return pc.less(values, low)
    if op == "gt":
        return pc.greater_equal(values, high)
    within = pc.and_(pc.greater_equal(values, low), pc.less(values, high))
    return within if op == "eq" else pc.invert(within)


def _number(text: str, where: str) -> float | int:
    try:
        return int(text) if text.lstrip("+-").isdigit() and len(text) < 19 else _finite(text)
    except ValueError:
        raise InputError(
            f"{text[:80]!r} is no number", where=where, remedy="Write it as 12 or 0.5"
        ) from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _time(text: str, where: str) -> tuple[datetime, datetime]:
    """Return the first moment of what is named, and the first one after it."""
    try:
        if len(text) == len("2026-11-23"):
            day = date.fromisoformat(text)
            first = datetime(day.year, day.month, day.day, tzinfo=UTC)
            return first, first + timedelta(days=1)
        first = datetime.fromisoformat(text.removesuffix(" UTC"))
        first = first.replace(tzinfo=UTC) if first.tzinfo is None else first.astimezone(UTC)
        unit = timedelta(microseconds=1) if first.microsecond else timedelta(seconds=1)
        return first, first + unit
    except (ValueError, OverflowError):
        raise InputError(
            f"{text[:80]!r} is no time",
            where=where,
            remedy="Write a day as 2026-11-23, or a moment as 2026-11-23T13:05:00 (UTC)",
        ) from None


def _yes_no(text: str, where: str) -> bool:
    if text.lower() not in _YES:
        raise InputError(
            f"{text[:80]!r} is neither yes nor no", where=where, remedy="Write yes or no"
        )
    return _YES[text.lower()]


_READERS: dict[str, Callable[[str, str], Any]] = {
    TEXT: lambda text, where: text,
    SET: lambda text, where: text,
    NUMBER: _number,
    TIME: _time,
    YES_NO: _yes_no,
}
