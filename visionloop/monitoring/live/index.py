"""All images of a version with what is known of them, as Arrow columns in memory.

A filter is a pass over one column and a page is a few rows of all, so that both stay within a tenth
of a second at a million images. Texts that repeat are kept once. Memory: some 250 bytes an image
and what its place and its metadata take, and twice that while the next version is read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.live.columns import ROUNDS, SET, Column, column_of, told
from visionloop.words import round_name

Rows = NDArray[np.int64]

# Between the names of a set. No kind of flag and no class has a comma in it that is followed so.
BETWEEN = ", "


@dataclass(frozen=True)
class Index:
    """The images of a version, in the order in which they came into the lake.

    Attributes:
        version: Version of the lake.
        as_of: When the last stage of it ended.
        table: A row for each image, and ``sample_id`` among its columns.
        model: Whose predictions are shown, in words; empty for nobody's.
        model_id: Its id.
        space: The embedding space in which neighbours are looked for, empty for none.
        upcoming: Id of the round that comes next, see `visionloop.words.round_name`.
    """

    version: str
    as_of: datetime | None
    table: pa.Table
    model: str = ""
    model_id: str = ""
    space: str = ""
    upcoming: str = ""
    _orders: dict[tuple[str, bool], Rows] = field(default_factory=dict, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def __len__(self) -> int:
        """Return how many images there are."""
        return int(self.table.num_rows)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns by name, in the order in which they are told."""
        found = (column_of(one.name, one.type) for one in self.table.schema)
        return {column.name: column for column in found if column is not None}

    def words(self, column: str, value: Any) -> str:
        """Return a value of a column as people read it.

        Args:
            column: The column's name.
            value: A value of it; of a set the list of its names.
        """
        if isinstance(value, list):
            return ", ".join(self.words(column, one) for one in value)
        if column in ROUNDS:
            return round_name(told(value), self.upcoming)
        if self.columns[column].kind == SET and value in KINDS:
            return KINDS[value].title
        return told(value)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.table.nbytes) + sum(order.nbytes for order in [*self._orders.values()])

    def row_of(self, sample_id: str) -> int:
        """Return an image's row, -1 where there is none of that id."""
        return int(pc.index(self.table["sample_id"], pa.scalar(sample_id)).as_py())

    def order(self, column: str, descending: bool) -> Rows:
        """Return the rows in the order of a column; those without a value come last.

        Rows of the same value stay in the order in which they came in. The newest few orders are
        kept.

        Args:
            column: Name of a column.
            descending: Largest first.
        """
        key = (column, descending)
        with self._lock:
            if key in self._orders:
                return self._orders[key]
            values = self.table[column]
            if pa.types.is_dictionary(values.type):
                values = _ranks(values)
            way = "descending" if descending else "ascending"
            # Stable, and what has no value comes last either way.
            found = pc.sort_indices(pa.table({"value": values}), sort_keys=[("value", way)])
            while len(self._orders) >= _ORDERS:
                self._orders.pop(next(iter(self._orders)), None)
            self._orders[key] = found.to_numpy().astype(np.int32)
            return self._orders[key]

    def rows(self, rows: Sequence[int] | Rows) -> list[dict[str, Any]]:
        """Return some rows, each as values by column.

        Args:
            rows: Their numbers.
        """
        taken = self.table.take(pa.array(rows, pa.int64()))
        columns = {name: self._values(taken[name], name) for name in self.columns}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(taken))]

    def _values(self, values: pa.ChunkedArray, name: str) -> list[Any]:
        if self.columns[name].kind == SET:
            return [one.split(BETWEEN) if one else [] for one in values.to_pylist()]
        if pa.types.is_float32(values.type):
            held = values.to_pylist()
            return [None if one is None else np.float32(one) for one in held]
        return list(values.to_pylist())

    def counts(self, column: str, rows: Rows | None, most: int) -> list[tuple[str, int]]:
        """Return how often each text of a column stands in some rows, the most frequent first.

        Args:
            column: Name of a column of texts, or of sets.
            rows: Which rows; None for all.
            most: How many texts at most.

        Returns:
            Nothing for a column of texts that do not repeat.
        """
        values = self.table[column]
        if not pa.types.is_dictionary(values.type):
            return []
        names = values.chunk(0).dictionary.to_pylist() if values.num_chunks else []
        codes = _codes(values)
        codes = codes if rows is None else codes[rows]
        found = np.bincount(codes[codes >= 0], minlength=len(names))
        counted: dict[str, int] = {}
        for name, number in zip(names, found.tolist(), strict=True):
            for one in name.split(BETWEEN) if self.columns[column].kind == SET else [name]:
                if number and one:
                    counted[one] = counted.get(one, 0) + number
        return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


# Orders that are kept: four bytes an image each.
_ORDERS = 12


def codes_and_names(values: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    """Return a column of repeating texts as the number of each row's text, and the texts.

    Args:
        values: A column of a dictionary type, of at most one chunk.

    Returns:
        int32 [n], -1 where there is none, and the texts.
    """
    names = values.chunk(0).dictionary.to_pylist() if values.num_chunks else []
    return _codes(values), names


def _codes(values: pa.ChunkedArray) -> NDArray[np.int32]:
    if not values.num_chunks:
        return np.zeros(0, np.int32)
    found: NDArray[np.int32] = pc.fill_null(values.chunk(0).indices, -1).to_numpy()
    return found


def _ranks(values: pa.ChunkedArray) -> pa.Array:
    codes, names = codes_and_names(values)
    ranks = np.empty(len(names) + 1, np.int32)
    ranks[np.argsort(np.array(names, dtype=object), kind="stable")] = np.arange(len(names))
    ranks[-1] = -1
    found = ranks[codes]
    return pa.array(found, mask=found < 0)
