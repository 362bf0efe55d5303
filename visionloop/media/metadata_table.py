"""Tables of metadata beside images: one row a file, in CSV, Parquet or JSON lines.

A row names its file in a column ``file_name``, ``file``, ``filename``, ``path``, ``uri`` or
``image``, relative to the table's folder; every other column is metadata. The table streams into a
temporary file, where each image finds its row: memory does not grow with the rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import date
from typing import IO, Any

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.archive_storage import temporary
from visionloop.lake.storage import FileInfo, join, normalise
from visionloop.media.metadata import MAX_COLUMNS, MAX_SIDECAR_BYTES
from visionloop.progress import log

NAMES = ("metadata.csv", "metadata.parquet", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "file", "filename", "path", "uri", "image")
_CHUNK = 8 << 20
_BATCH = 2000
# A number as a person writes it; what begins with a zero is an identifier.
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,14})(\.\d+)?([eE][+-]?\d{1,3})?|[+-]?\.\d+")
_WORDS = {"true": True, "false": False}


class MetadataTable:
    """The rows of a table by the URI of their file.

    Args:
        info: The table.

    Raises:
        InputError: It is no such table, or has no column of files.
        StorageError: It cannot be read.
    """

    def __init__(self, info: FileInfo) -> None:
        self.uri = info.uri
        self._folder = info.uri.rpartition("/")[0]
        # Without a name SQLite makes a temporary file of its own once its cache is full.
        self._rows = sqlite3.connect("", check_same_thread=False)
        self._rows.execute("CREATE TABLE rows (uri TEXT PRIMARY KEY, told TEXT) WITHOUT ROWID")
        self.n_rows = self.n_repeated = 0
        try:
            with _spooled(info) as file:
                self._take(file)
        except (pa.ArrowException, csv.Error, ValueError, OSError) as error:
            raise self._refused(f"it cannot be read: {str(error).splitlines()[0]}") from error
        if self.n_repeated:
            log(f"{self.uri}: {self.n_repeated:,} rows name a file again; the first one stands")

    def values(self, uri: str) -> dict[str, Any]:
        """Return what the table says of a file, as plain JSON values; nothing where it has no row.

        Args:
            uri: The file, in the lake's form.
        """
        found = self._rows.execute("SELECT told FROM rows WHERE uri = ?", (uri,)).fetchone()
        return json.loads(found[0]) if found else {}

    def _take(self, file: IO[bytes]) -> None:
        ending = self.uri.rpartition(".")[2].lower()
        rows = {"parquet": _parquet, "jsonl": _json_lines}.get(ending, _csv)(file)
        waiting: list[tuple[str, str]] = []
        for number, row in enumerate(rows, 1):
            waiting.append(self._row(number, row))
            if len(waiting) == _BATCH:
                self._keep(waiting)
                waiting = []
        self._keep(waiting)

    def _keep(self, rows: list[tuple[str, str]]) -> None:
        before = self._rows.total_changes
        self._rows.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", rows)
        self._rows.commit()
        self.n_rows += len(rows)
        self.n_repeated += len(rows) - (self._rows.total_changes - before)

    def _row(self, number: int, row: Any) -> tuple[str, str]:
        if not isinstance(row, Mapping):
            raise self._refused(f"row {number} is no object")
        if len(row) > MAX_COLUMNS + 1:
            raise self._refused(f"row {number} has more than {MAX_COLUMNS} columns")
        by_name = {str(name).strip().lower(): name for name in row}
        column = next((by_name[name] for name in FILE_COLUMNS if name in by_name), None)
        if column is None:
            raise self._refused(f"row {number} has no column of files, but {', '.join(by_name)}")
        text = str(row[column] or "").strip()
        if not text:
            raise self._refused(f"row {number} names no file")
        values = {
            str(k): plain
            for k, v in row.items()
            if k != column and (plain := _plain(v)) is not None
        }
        told = json.dumps(values, ensure_ascii=False, sort_keys=True)
        if len(told) > MAX_SIDECAR_BYTES:
            raise self._refused(f"row {number} has more than {MAX_SIDECAR_BYTES:,} bytes")
        try:
            absolute = "://" in text or text.startswith("/")
            uri = normalise(text) if absolute else join(self._folder, *text.split("/"))
        except InputError as error:
            raise self._refused(f"row {number}: {error.what}") from error
        return uri, told

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"the table of metadata cannot be used: {what}",
            where=self.uri,
            remedy=f"Write CSV, Parquet or JSON lines with a column `{FILE_COLUMNS[0]}`, paths "
            "relative to the table's folder; or set `metadata: none`",
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


def _csv(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        first = text.readline()
        text.seek(0)
        delimiter = ";" if first.count(";") > first.count(",") else ","
        for row in csv.DictReader(text, delimiter=delimiter, strict=True):
            yield {name: _of_text(value) for name, value in row.items() if name is not None}


def _of_text(text: str | None) -> Any:
    text = (text or "").strip()
    if _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    return _WORDS.get(text.lower(), text or None)


def _parquet(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(_BATCH):
        yield from batch.to_pylist()


def _json_lines(file: IO[bytes]) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error


def _plain(value: Any) -> Any:
    """Return a table's value as JSON has it; None for what says nothing."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case date():
            return value.isoformat()
        case None | bool() | int() | float() | str():
            return value
        case dict() | list():
            return json.loads(json.dumps(value, default=str))
        case bytes():
            return value.hex()
        case _:
            return str(value)
