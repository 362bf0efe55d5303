"""Tables of metadata beside images: one row a file, in CSV, Parquet or JSON lines.

A row names its file in a column ``file_name``, ``file``, ``filename``, ``path``, ``uri`` or
``image``, relative to the table's folder; every other column is metadata, in CSV with one type:
number or bool where every cell is one, else text as it is written. The table streams into a
temporary file, where each image finds its row: memory grows by a byte a row.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from posixpath import normpath
from typing import IO, Any

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.archive_storage import temporary
from visionloop.lake.schemas import TIME
from visionloop.lake.storage import FileInfo, StorageError, join, normalise
from visionloop.media.csv_table import CsvTable
from visionloop.media.metadata import MAX_SIDECAR_BYTES, plain_value
from visionloop.media.metadata_room import MAX_COLUMNS
from visionloop.progress import log

NAMES = ("metadata.csv", "metadata.parquet", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "file", "filename", "path", "uri", "image")
_CHUNK = 8 << 20
_BATCH = 2000


class MetadataTable:
    """The rows of a table by the URI of their file.

    Args:
        info: The table.

    Attributes:
        uri: Where it lies.
        n_rows: Number of its rows.
        n_repeated: Rows that name a file again.
        n_nameless: Rows that name nothing.

    Raises:
        InputError: It is no such table, or has no column of files.
        StorageError: It cannot be read, or there is no room for what it holds.
    """

    def __init__(self, info: FileInfo) -> None:
        self.uri = info.uri
        self._folder = info.uri.rpartition("/")[0]
        # Without a name SQLite makes a temporary file of its own once its cache is full.
        self._rows = sqlite3.connect("", check_same_thread=False)
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, uri TEXT UNIQUE, told TEXT)")
        self.n_rows = self.n_repeated = self.n_nameless = 0
        # Of CSV, whose types are told once it is read.
        self._typed: CsvTable | None = None
        try:
            with _spooled(info) as file:
                self._take(file)
        except (pa.ArrowException, csv.Error, ValueError, OSError) as error:
            raise self._refused(f"it cannot be read: {str(error).splitlines()[0]}") from error
        except sqlite3.Error as error:
            raise StorageError(
                f"its rows cannot be held in a temporary file: {error}",
                where=self.uri,
                remedy="Free some room, or set TMPDIR to a disk that has some",
            ) from error
        self._met = bytearray(self.n_rows + 1)
        if self.n_repeated:
            log(f"{self.uri}: {self.n_repeated:,} rows name a file again; the first one stands")

    def values(self, uri: str) -> dict[str, Any]:
        """Return what the table says of a file, as plain JSON values; nothing where it has no row.

        Args:
            uri: The file, in the lake's form.
        """
        found = self._rows.execute("SELECT n, told FROM rows WHERE uri = ?", (uri,)).fetchone()
        if found is None:
            return {}
        self._met[found[0]] = 1
        told: dict[str, Any] = json.loads(found[1])
        return told if self._typed is None else self._typed.typed(told)

    def unmet(self) -> tuple[int, list[str]]:
        """Return how many rows name no file that was asked for, and what the first three name."""
        n = self.n_rows - self.n_repeated - self._met.count(1)
        examples: list[str] = []
        if n:
            for number, uri in self._rows.execute("SELECT n, uri FROM rows ORDER BY n"):
                if not self._met[number]:
                    examples.append(uri)
                if len(examples) == min(3, n):
                    break
        return n, examples

    def _take(self, file: IO[bytes]) -> None:
        ending = self.uri.rpartition(".")[2].lower()
        waiting: list[tuple[int, str, str]] = []
        if ending in ("parquet", "jsonl"):
            rows = _parquet(file) if ending == "parquet" else _json_lines(file)
        else:
            rows = self._csv(file)
        for number, row in enumerate(rows, 1):
            self.n_rows = number
            if (kept := self._row(number, row)) is not None:
                waiting.append((number, *kept))
            if len(waiting) == _BATCH:
                self._keep(waiting)
                waiting = []
        self._keep(waiting)

    def _keep(self, rows: list[tuple[int, str, str]]) -> None:
        before = self._rows.total_changes
        self._rows.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", rows)
        self._rows.commit()
        self.n_repeated += len(rows) - (self._rows.total_changes - before)

    def _row(self, number: int, row: Any) -> tuple[str, str] | None:
        if not isinstance(row, Mapping):
            raise self._refused(f"row {number} is no object")
        if len(row) > MAX_COLUMNS + 1:
            raise self._refused(f"row {number} has more than {MAX_COLUMNS} columns")
        column = _file_column(row)
        if column is None:
            names = ", ".join(map(str, row))
            raise self._refused(f"row {number} has no column of files, but {names[:200]}")
        text = "" if row[column] is None else str(row[column]).strip()
        if not text:
            self.n_nameless += 1
            return None
        values = {
            str(k): plain
            for k, v in row.items()
            if k != column and (plain := plain_value(v)) is not None
        }
        told = json.dumps(values, sort_keys=True)
        if len(told) > MAX_SIDECAR_BYTES:
            raise self._refused(f"row {number} has more than {MAX_SIDECAR_BYTES:,} bytes")
        try:
            uri = self._uri(text)
        except (InputError, ValueError) as error:
            raise self._refused(f"row {number} names {text[:80]!r}: {error}") from error
        return uri.encode("utf-8", "replace").decode(), told

    def _uri(self, text: str) -> str:
        if "://" in text or text.startswith("/"):
            return normalise(text)
        return join(self._folder, *normpath(text).split("/"))

    def _csv(self, file: IO[bytes]) -> Iterator[dict[str, str]]:
        self._typed = table = CsvTable(file)
        column = _file_column(filter(None, table.header))
        if column is None:
            names = ", ".join(table.header)
            raise self._refused(f"it has no column of files, but {names[:200]}")
        for cells in table.rows():
            yield {column: "", **cells}

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"the table of metadata cannot be used: {what}",
            where=self.uri,
            remedy=f"Write CSV, Parquet or JSON lines with a column `{FILE_COLUMNS[0]}`, paths "
            "relative to the table's folder; or give a table that is none of these another name",
        )


def _spooled(info: FileInfo) -> IO[bytes]:
    """Return a table's bytes as a temporary file."""
    storage = Anywhere()
    copy = temporary()
    for start in range(0, info.size, _CHUNK):
        length = min(_CHUNK, info.size - start)
        copy.write(storage.read_range(info.uri, start, length, info.generation))
    copy.seek(0)
    return copy


def _file_column(names: Iterable[Any]) -> Any:
    by_name = {str(name).strip().lower(): name for name in names}
    return next((by_name[name] for name in FILE_COLUMNS if name in by_name), None)


def _parquet(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(_BATCH):
        yield from pa.RecordBatch.from_arrays(
            [_plain_times(column) for column in batch.columns], batch.schema.names
        ).to_pylist()


def _plain_times(column: pa.Array) -> pa.Array:
    """Return times of nanoseconds in microseconds, UTC: Python's have no more."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(TIME, safe=False)
    return column


def _json_lines(file: IO[bytes]) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error
