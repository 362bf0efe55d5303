"""What a page of images asks for, from its address, and which images answer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlencode

import numpy as np

from visionloop.errors import InputError
from visionloop.monitoring.live.filters import Filter, column_named, filters_of, mask_of
from visionloop.monitoring.live.index import Index, Rows
from visionloop.validation import nearest

SIZES = (24, 60, 120, 240)
_LARGEST = 500
_PARAMETERS = ["column", "op", "value", "sort", "order", "page", "size"]
# Results that are kept, so that turning pages filters nothing again: four bytes an image each.
_KEPT = 16


class Query(Protocol):
    """Parameters of an address, as Starlette has them."""

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the parameters."""

    def getlist(self, key: str) -> list[str]:
        """Return all values of a parameter."""

    def get(self, key: str, default: str) -> str:
        """Return the last value of a parameter."""


@dataclass(frozen=True)
class Asked:
    """A page of images as it is asked for.

    Attributes:
        filters: All of which an image has to meet.
        sort: Column that images are ordered by; empty: as they came in.
        descending: Largest first; without a column, newest first.
        page: Number of the page, from 1.
        size: Images on a page.
    """

    filters: tuple[Filter, ...] = ()
    sort: str = ""
    descending: bool = False
    page: int = 1
    size: int = SIZES[1]

    def address(self, **changes: object) -> str:
        """Return the query of an address, with some of it changed; empty where all is usual."""
        asked = replace(self, **changes)  # type: ignore[arg-type]
        pairs = [
            pair
            for one in asked.filters
            for pair in (("column", one.column), ("op", one.op), ("value", one.value))
        ]
        if asked.sort:
            pairs.append(("sort", asked.sort))
        if asked.descending:
            pairs.append(("order", "desc"))
        if asked.size != SIZES[1]:
            pairs.append(("size", str(asked.size)))
        if asked.page != 1:
            pairs.append(("page", str(asked.page)))
        return urlencode(pairs)

    def without(self, one: Filter) -> str:
        """Return the query of an address without a filter, from the first page."""
        return self.address(filters=tuple(f for f in self.filters if f != one), page=1)

    def also(self, column: str, op: str, value: str) -> str:
        """Return the query of an address with a filter more, from the first page.

        Args:
            column: Name of the column.
            op: One of `OPERATORS`.
            value: What it is held against.
        """
        made = Filter(column, op, value)
        filters = self.filters if made in self.filters else (*self.filters, made)
        return self.address(filters=filters, page=1)


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        total: Images in the lake.
        matching: Those that meet all filters.
        page: The page's number: the last one where there are fewer than were asked for.
        pages: How many there are, at least 1.
        rows: Numbers of the page's rows.
        every: Numbers of all matching rows, None for all of the lake in the order they came in.
    """

    total: int
    matching: int
    page: int
    pages: int
    rows: Rows
    every: Rows | None


def asked_of(query: Query, index: Index) -> Asked:
    """Return what an address asks for.

    Raises:
        InputError: It cannot be read; the message says what is wrong.
    """
    for name in query:
        if name not in _PARAMETERS:
            raise InputError(
                f"{name[:40]!r} is no parameter{nearest(name[:40], _PARAMETERS)}",
                where="the address",
                remedy=f"Use one of {', '.join(_PARAMETERS)}",
            )
    filters = filters_of(
        query.getlist("column"), query.getlist("op"), query.getlist("value"), index
    )
    sort, order = query.get("sort", ""), query.get("order", "asc") or "asc"
    if sort:
        column_named(sort, index)
    if order not in ("asc", "desc"):
        raise InputError(f"{order[:40]!r} is no order", where="order", remedy="Use asc or desc")
    return Asked(
        filters,
        sort,
        order == "desc",
        _whole(query.get("page", "1") or "1", "page", 1, 1 << 40),
        _whole(query.get("size", "") or str(SIZES[1]), "size", 1, _LARGEST),
    )


def _whole(text: str, where: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 14 and least <= int(text) <= most):
        raise InputError(
            f"{text[:40]!r} is no {where}",
            where=where,
            remedy=f"Write a whole number from {least:,} up"
            + (f" to {most}" if most < 1000 else ""),
        )
    return int(text)


class Finder:
    """Answers what is asked of one index; asked by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], Rows | None] = OrderedDict()

    def find(self, index: Index, asked: Asked) -> Found:
        """Return the page that is asked for.

        Args:
            index: The images.
            asked: From `asked_of`.
        """
        every = self._every(index, asked)
        matching = len(index) if every is None else len(every)
        pages = max(1, -(-matching // asked.size))
        page = min(asked.page, pages)
        start, end = (page - 1) * asked.size, min(page * asked.size, matching)
        rows = np.arange(start, end) if every is None else every[start:end]
        return Found(len(index), matching, page, pages, rows, every)

    def _every(self, index: Index, asked: Asked) -> Rows | None:
        key = (index.version, asked.filters, asked.sort, asked.descending)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _matching(index, asked)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def _matching(index: Index, asked: Asked) -> Rows | None:
    mask = mask_of(index, asked.filters)
    if not asked.sort:
        if mask is None and not asked.descending:
            return None
        rows = np.arange(len(index)) if mask is None else np.flatnonzero(mask)
        rows = rows.astype(np.int32)
        return rows[::-1] if asked.descending else rows
    order = index.order(asked.sort, asked.descending)
    return order if mask is None else order[mask[order]]


def facets(
    index: Index, rows: Rows | None, columns: Sequence[str], most: int
) -> dict[str, list[tuple[str, int]]]:
    """Return the most frequent texts of some columns among rows; columns of one text are left out.

    Args:
        index: The images.
        rows: Numbers of the rows; None for all.
        columns: Names of columns; those that the index lacks are passed over.
        most: Texts of each.
    """
    found = {name: index.counts(name, rows, most) for name in columns if name in index.columns}
    return {name: counted for name, counted in found.items() if counted}
