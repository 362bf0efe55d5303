"""Embeddings in Parquet that is read like a matrix.

A file of an embeddings table is plain Parquet that every reader knows. Written the way it is here
(fixed-length binary, uncompressed, no dictionary, no statistics of the vectors, so few rows in a
group that its vectors are one page) each row group also holds its vectors as float32 ``[n, d]`` in
one piece, whose place follows from the file's footer. So a scan reads them without decoding, and a
row costs its own bytes. Files that were written otherwise, by an earlier version or by
another engine, and files with Iceberg's delete files are read by pyiceberg: the same rows, slower.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.lake import data_files
from visionloop.lake.tables import vector_dimension

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Arrow begins a new page after 20,000 rows. Far fewer, so that the page which it grows and then
# copies stays in a core's cache: of 512 components 4 MiB, which are appended in two thirds of the
# time of 32 MiB.
GROUP_ROWS = 2_048
FILE_BYTES = 256 * 2**20
_WRITERS = 2
_MARK = {b"visionloop.vectors": b"one page a row group, no nulls"}
# A page's header and its levels, of which all are 1, take 33 to 40 bytes: two pages take more.
_PAGE_OVERHEAD = 48


def append(table: Table, rows: pa.Table) -> None:
    """Add vectors to an embeddings table.

    Args:
        table: The table.
        rows: Its columns, in its order; no vector is null.
    """
    data_files.commit(table, write(table, rows))


def replace(table: Table, rows: pa.Table) -> None:
    """Put vectors in the place of those of the same samples; files without any are left alone.

    Args:
        table: The table.
        rows: Its columns, in its order; no vector is null.
    """
    removed: list[DataFile] = []
    added: list[DataFile] = []
    wanted = pc.cast(rows["sample_id"].combine_chunks(), pa.string())
    for task in table.scan().plan_files():
        ids = _ids(table, task)
        going = pc.is_in(ids, value_set=wanted)
        if not pc.any(going).as_py():
            continue
        removed.append(task.file)
        staying = data_files.write(
            table,
            (part.filter(pc.invert(pc.is_in(part["sample_id"], value_set=wanted)))
             for part in tables(table, task)),
            **layout(),
        )  # fmt: skip
        added += [staying] if staying else []
    data_files.commit(table, [*added, *write(table, rows)], removed)


def write(table: Table, rows: pa.Table) -> list[DataFile]:
    """Write vectors into as many files as they need, which belong to no snapshot yet."""
    size = file_rows(4 * vector_dimension(table))
    parts = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    # Arrow encodes a column on one core.
    with ThreadPoolExecutor(_WRITERS) as pool:
        written = list(pool.map(lambda part: data_files.write(table, [part], **layout()), parts))
    return [one for one in written if one is not None]


def file_rows(width: int) -> int:
    """Return how many rows go into a file: whole row groups, of vectors of so many bytes."""
    return max(1, FILE_BYTES // width // GROUP_ROWS) * GROUP_ROWS


def layout() -> dict[str, Any]:
    """Return how a file is written whose vectors are read where they lie."""
    return {
        "compression": "none",
        "use_dictionary": ["round_id", "run_id"],
        "write_statistics": ["sample_id", "round_id", "run_id"],
        "data_page_size": 2**30,
        "row_group_size": GROUP_ROWS,
        "mark": _MARK,
    }


def blocks(table: Table, snapshot_id: int) -> Iterator[tuple[pa.Array, Floats]]:
    """Yield an embeddings table a part at a time, in no order.

    Yields:
        Sample ids, and float32 ``[n, d]`` in the same order, which cannot be written to.
    """
    for ids, load in _parts(table, snapshot_id):
        yield ids, load().view("<f4")


def _parts(table: Table, snapshot_id: int) -> Iterator[tuple[pa.Array, Callable[[], Bytes]]]:
    """Yield sample ids, and what reads the bytes of their vectors, ``[n, 4 d]``."""
    for task in table.scan(snapshot_id=snapshot_id).plan_files():
        if (file := _VectorFile.open(table, task)) is None:
            for ids, rows in _decoded(table, task):
                yield ids, partial(_same, rows)
            continue
        ids = file.ids()
        for group, start in enumerate(file.starts[:-1].tolist()):
            size = int(file.starts[group + 1]) - start
            yield ids.slice(start, size), partial(file.rows, group)


def _same(rows: Bytes) -> Bytes:
    return rows


def _some(
    table: Table, snapshot_id: int, wanted: pa.Array
) -> Iterator[tuple[pa.Array, Callable[[], Bytes]]]:
    """Yield the same of some samples; of the others only the ids are read."""
    for task in table.scan(snapshot_id=snapshot_id).plan_files():
        file = _VectorFile.open(table, task)
        if file is None:
            for ids, rows in _decoded(table, task):
                places = _places(ids, wanted)
                yield ids.take(pa.array(places)), partial(_same, rows[places])
            continue
        ids = file.ids()
        places = _places(ids, wanted)
        if not len(places):
            continue
        yield ids.take(pa.array(places)), partial(file.some, places)


def read(
    table: Table, snapshot_id: int, *, wanted: list[str] | None = None
) -> tuple[list[str], Floats]:
    """Read an embeddings table.

    Args:
        table: The table.
        snapshot_id: Snapshot to read at.
        wanted: Samples to read, all by default; those without a vector are left out.

    Returns:
        Sample ids in ascending order, and float32 ``[n, d]`` in the same order.
    """
    parts = list(
        _parts(table, snapshot_id)
        if wanted is None
        else _some(table, snapshot_id, pa.array(wanted, pa.string()))
    )
    ids = pa.concat_arrays([ids for ids, _ in parts]) if parts else pa.array([], pa.string())
    order = pc.sort_indices(ids).to_numpy()
    vectors = np.empty((len(ids), vector_dimension(table)), np.float32)
    as_bytes = vectors.view(np.uint8)
    ranks = np.empty(len(ids), np.int64)
    ranks[order] = np.arange(len(ids))
    start = 0
    for names, load in parts:
        # Each row goes to its place at once: the vectors are in memory once.
        as_bytes[ranks[start : start + len(names)]] = load()
        start += len(names)
    return ids.take(pa.array(order)).to_pylist(), vectors


def not_finite(vectors: Floats) -> NDArray[np.int64]:
    """Return the places of the rows of ``[n, d]`` that hold NaN or infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is not finite where a component is not, and at worst where they are huge. One pass
        # over the vectors at the memory's speed; a mask of every component is four times slower.
        sums = vectors @ np.ones(vectors.shape[1], np.float32)
    doubtful = np.flatnonzero(~np.isfinite(sums))
    return doubtful[~np.isfinite(vectors[doubtful]).all(axis=1)]


def _places(ids: pa.Array, wanted: pa.Array) -> NDArray[np.int64]:
    found = pc.is_in(ids, value_set=wanted)
    return np.flatnonzero(found.to_numpy(zero_copy_only=False))


class _VectorFile:
    """A data file whose vectors are read where they lie."""

    def __init__(self, source: pa.NativeFile, local: str, width: int) -> None:
        import pyarrow.parquet as pq

        self._source = source
        self._local = local
        self._width = width
        self._file = pq.ParquetFile(source)
        self._metadata = self._file.metadata
        rows = [self._metadata.row_group(i).num_rows for i in range(self.groups)]
        self.starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    @classmethod
    def open(cls, table: Table, task: FileScanTask) -> _VectorFile | None:
        """Open a task's file; None for one that pyiceberg has to read."""
        from pyiceberg.io.pyarrow import PyArrowFileIO

        io = table.io
        assert isinstance(io, PyArrowFileIO)
        if task.delete_files:
            return None
        scheme, netloc, path = PyArrowFileIO.parse_location(task.file.file_path)
        source = io.fs_by_scheme(scheme, netloc).open_input_file(path)
        local = path if scheme == "file" else ""
        held = cls(source, local, 4 * vector_dimension(table))
        return held if held._is_laid_out(table.schema().column_names) else None

    @property
    def groups(self) -> int:
        """The number of row groups."""
        return int(self._metadata.num_row_groups)

    def ids(self) -> pa.Array:
        """Return the sample ids of all rows."""
        column = self._file.read(columns=["sample_id"])["sample_id"].combine_chunks()
        return column.cast(pa.string())

    def rows(self, group: int) -> Bytes:
        """Read the bytes of a row group's vectors, ``[n, 4 d]``."""
        start, size = self._place(group)
        if not self._local:
            return np.frombuffer(self._source.read_at(size, start), np.uint8).reshape(
                -1, self._width
            )
        # Into memory of Arrow's pool that was used before: its `read_at` takes new pages each time,
        # and their first touch costs four times what the copy does.
        data = np.frombuffer(pa.allocate_buffer(size), np.uint8)
        with open(self._local, "rb") as file:
            if os.preadv(file.fileno(), [data.data], start) != size:
                raise OSError(errno.EIO, "the file ends early", self._local)
        return data.reshape(-1, self._width)

    def some(self, places: NDArray[np.int64]) -> Bytes:
        """Read the bytes of some rows' vectors, by ascending number."""
        cuts = np.searchsorted(places, self.starts[1:-1])
        found = [
            self._group(group)[some - self.starts[group]]
            for group, some in enumerate(np.split(places, cuts))
            if len(some)
        ]
        return np.concatenate(found)

    def _group(self, group: int) -> Bytes:
        """Return the bytes of a row group's vectors: where they lie on a local disk, or read."""
        if not self._local:
            return self.rows(group)
        start, size = self._place(group)
        shape = (size // self._width, self._width)
        mapped = np.memmap(self._local, np.uint8, "r", offset=start, shape=shape)
        # The kernel is not to read the neighbours of each row with it.
        mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        return mapped

    def _place(self, group: int) -> tuple[int, int]:
        """Return where the vectors of a row group begin, and how many bytes they have."""
        size = self._metadata.row_group(group).num_rows * self._width
        chunk = self._vectors(group)
        return chunk.data_page_offset + chunk.total_compressed_size - size, size

    def _vectors(self, group: int) -> pa.lib.ColumnChunkMetaData:
        return self._metadata.row_group(group).column(self._metadata.schema.names.index("vector"))

    def tables(self) -> Iterator[pa.Table]:
        """Yield whole rows, a row group at a time."""
        for group in range(self.groups):
            yield self._file.read_row_group(group)

    def _is_laid_out(self, columns: list[str]) -> bool:
        held = self._metadata.metadata or {}
        marked = all(held.get(name) == value for name, value in _MARK.items())
        return (
            marked
            and self._metadata.schema.names == columns
            and all(
                (chunk := self._vectors(group)).compression == "UNCOMPRESSED"
                and set(chunk.encodings) <= {"PLAIN", "RLE"}
                and not chunk.has_dictionary_page
                and 0
                <= chunk.total_compressed_size
                - self._metadata.row_group(group).num_rows * self._width
                <= _PAGE_OVERHEAD
                for group in range(self.groups)
            )
        )


def _decoded(table: Table, task: FileScanTask) -> Iterator[tuple[pa.Array, Bytes]]:
    width = 4 * vector_dimension(table)
    for part in tables(table, task):
        rows = part.filter(pc.is_valid(part["vector"]))  # null: it has no vector
        for batch in rows.select(["sample_id", "vector"]).combine_chunks().to_batches():
            ids, column = batch.column(0).cast(pa.string()), batch.column(1)
            data = np.frombuffer(
                column.buffers()[1], np.uint8, len(column) * width, column.offset * width
            )
            yield ids, data.reshape(-1, width)


def tables(table: Table, task: FileScanTask) -> Iterator[pa.Table]:
    """Yield a file's rows, a part at a time, without those that a delete file names."""
    from visionloop.lake.scanning import rows_of_file

    if (file := _VectorFile.open(table, task)) is not None:
        yield from file.tables()
    else:
        yield from rows_of_file(table, task)


def _ids(table: Table, task: FileScanTask) -> pa.Array:
    file = _VectorFile.open(table, task)
    if file is not None:
        return file.ids()
    held = [part["sample_id"].combine_chunks().cast(pa.string()) for part in tables(table, task)]
    return pa.concat_arrays(held) if held else pa.array([], pa.string())
