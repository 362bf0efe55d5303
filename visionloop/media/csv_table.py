"""CSV as people write it: every cell is text, and a column has one type.

Types are not guessed cell by cell: ``007`` is a name, ``NA`` may be a country and ``1e5`` a serial
number. A column is of numbers, or of bools, only where every one of its cells is one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import IO

# A number as a person writes it; what begins with a zero is an identifier.
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,14})(\.\d+)?([eE][+-]?\d{1,3})?|[+-]?\.\d+")
_WORDS = {"true": True, "false": False}


class CsvTable:
    """The rows of a CSV file in UTF-8, separated by commas, semicolons or tabs.

    Args:
        file: Its bytes; closed after the last row.

    Attributes:
        header: Names of the columns, in order; empty where a column has none.

    Raises:
        ValueError: Its text is not UTF-8, it is empty, or a column stands twice.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
        first = self._lines.readline()
        self._lines.seek(0)
        delimiter = max(",;\t", key=first.count)
        self._rows = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self.header = [name.strip() for name in next(self._rows, [])]
        named = [name for name in self.header if name]
        if not named:
            raise ValueError("it is empty")
        if twice := {name for name in named if named.count(name) > 1}:
            raise ValueError(f"the column {min(twice)!r} stands twice")
        self._numbers, self._bools = set(named), set(named)

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield the cells of each row that hold anything, by the name of their column.

        Raises:
            ValueError: The text is not UTF-8, or a row is longer than the header.
            csv.Error: A quoted cell does not end.
        """
        for number, row in enumerate(filter(None, self._rows), 1):
            if len(row) > len(self.header):
                raise ValueError(f"row {number} has more cells than there are columns")
            cells = {
                name: text
                for name, cell in zip(self.header, row, strict=False)
                if name and (text := cell.strip())
            }
            if self._numbers:
                self._numbers -= {k for k, v in cells.items() if not _NUMBER.fullmatch(v)}
            if self._bools:
                self._bools -= {k for k, v in cells.items() if v.lower() not in _WORDS}
            yield cells
        self._lines.close()

    def typed(self, cells: Mapping[str, str]) -> dict[str, str | int | float | bool]:
        """Return cells in the types of their columns, told once all rows have been read."""
        told: dict[str, str | int | float | bool] = dict(cells)
        for name in cells.keys() & self._numbers:
            told[name] = _number(cells[name])
        for name in cells.keys() & self._bools:
            told[name] = _WORDS[cells[name].lower()]
        return told


def _number(text: str) -> int | float:
    return float(text) if set(text) & set(".eE") else int(text)
