"""A list of images: a text file with one URI a line, or a table in CSV or Parquet.

A relative path is taken from the list's folder. In a table the URI stands in the column ``uri``,
``file``, ``path``, ``filename`` or ``image``; ``label`` may hold a label, and every other column is
metadata. URIs and labels of a CSV are what is written, see `visionloop.media.csv_table`. A line
that repeats an earlier one is counted and read once, the first one's metadata stand; a line that
names nothing is ``missing`` and looked for again by the next ingest.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.errors import InputError
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.storage import is_member, join, normalise
from visionloop.media.csv_table import CsvTable
from visionloop.media.metadata import plain_value
from visionloop.media.sources.entries import MEDIA, REPEATED, Entry, Member
from visionloop.media.sources.folder import folder_label
from visionloop.media.sources.named import looked_up, missing, nowhere

if TYPE_CHECKING:
    from visionloop.source_config import SourceConfig

URI_COLUMNS = ("uri", "file", "path", "filename", "image")
LABEL_COLUMN = "label"
_BATCH = 2000


class ListSource:
    """A list of images.

    Memory holds the list in columns: some hundred bytes a line.

    Args:
        source: Its configuration.
    """

    def __init__(self, source: SourceConfig) -> None:
        self.root = normalise(source.uri)
        self.storage = Anywhere()
        self._labels = source.labels == "source"
        self._folders = source.labels == "folder"
        self._values = source.metadata != "none"
        # Of CSV, whose types are told once it is read.
        self._typed: CsvTable | None = None

    def entries(self) -> Iterator[Entry]:
        """Yield what the lines name, in the order of the URIs."""
        table = self._read()
        uris = self._uris(table)
        order = pc.sort_indices(pa.table({"uri": uris}), sort_keys=[("uri", "ascending")])
        rows = order.to_numpy()
        named = (uris[int(row)].as_py() for row in rows)
        before = ""
        for row, (uri, info) in zip(rows, looked_up(named, self.storage), strict=True):
            if uri == before:
                yield Entry(nowhere(uri), REPEATED)
            elif info is None:
                yield missing(uri)
            else:
                values, label = self._said(table, int(row))
                if is_member(uri):
                    # A source that opens the tar lists the same member.
                    info = replace(info, generation=f"{info.generation};listed")
                yield Entry(info, MEDIA, values=values, label=label or self._folder(uri))
            before = uri

    def _folder(self, uri: str) -> str:
        return folder_label(uri) if self._folders else ""

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """A list names no containers."""
        raise NotImplementedError(f"{entry.info.uri} is no container of a list")

    def _read(self) -> pa.Table:
        data = self.storage.read(self.root)
        name = self.root.lower()
        try:
            if name.endswith(".parquet"):
                import pyarrow.parquet as pq

                table = pq.read_table(io.BytesIO(data))
                return pa.table({n: _text_of(n, table[n]) for n in table.column_names})
            if name.endswith(".csv"):
                return self._csv(data)
            lines = data.decode("utf-8-sig").splitlines()
        except (pa.ArrowException, csv.Error, ValueError, OSError) as error:
            raise InputError(
                f"the list cannot be read: {str(error).splitlines()[0]}",
                where=self.root,
                remedy="Write UTF-8 text with one URI a line, or a CSV or Parquet table with a "
                "column `uri`",
            ) from error
        kept = [line.strip() for line in lines]
        return pa.table({"uri": [line for line in kept if line and not line.startswith("#")]})

    def _csv(self, data: bytes) -> pa.Table:
        """Return all cells as text: what is a number is told where it is metadata."""
        self._typed = found = CsvTable(io.BytesIO(data))
        schema = pa.schema([(name, pa.string()) for name in found.header if name])
        rows = found.rows()
        batches = []
        while some := list(islice(rows, _BATCH)):
            batches.append(pa.RecordBatch.from_pylist(some, schema=schema))
        return pa.Table.from_batches(batches, schema=schema).combine_chunks()

    def _uris(self, table: pa.Table) -> pa.Array:
        by_name = {name.strip().lower(): name for name in table.column_names}
        column = next((by_name[name] for name in URI_COLUMNS if name in by_name), None)
        if column is None:
            raise InputError(
                f"the list has no column of URIs, but {', '.join(table.column_names)}",
                where=self.root,
                remedy=f"Call it {', '.join(URI_COLUMNS[:-1])} or {URI_COLUMNS[-1]}",
            )
        self._uri_column = column
        self._label_column = by_name.get(LABEL_COLUMN)
        folder = self.root.rpartition("/")[0]
        return pa.array(
            [self._absolute(folder, value, line) for line, value in enumerate(table[column], 1)],
            pa.string(),
        )

    def _absolute(self, folder: str, value: pa.Scalar, line: int) -> str:
        text = str(value.as_py() or "").strip()
        if not text:
            raise InputError(
                f"row {line} names no image", where=self.root, remedy="Give each row its URI"
            )
        try:
            if "://" in text or text.startswith(("/", "~")):
                return normalise(text)
            return join(folder, *text.split("/"))
        except InputError as error:
            raise InputError(
                f"row {line}: {error.what}", where=self.root, remedy=error.remedy
            ) from error

    def _said(self, table: pa.Table, row: int) -> tuple[dict[str, Any], str]:
        """Return the metadata and the label of a row."""
        cells = {
            name: value
            for name in table.column_names
            if name != self._uri_column and (value := table[name][row].as_py()) is not None
        }
        label = ""
        if self._labels and self._label_column is not None:
            said = plain_value(cells.pop(self._label_column, None))
            label = "" if said is None else str(said).strip()
        if not self._values:
            return {}, label
        typed = cells if self._typed is None else self._typed.typed(cells)
        plain = {name: plain_value(value) for name, value in typed.items()}
        return {name: value for name, value in plain.items() if value is not None}, label


def _text_of(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return URIs and labels as text: writers of old do not say that their bytes are UTF-8."""
    kind = column.type
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    named = name.strip().lower() in (*URI_COLUMNS, LABEL_COLUMN)
    return column.cast(pa.string()) if is_bytes and named else column
