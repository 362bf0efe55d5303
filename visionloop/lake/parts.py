"""Reads a lake's tables in parts: a range of an embedding space, the rows of some samples.

A table of a hundred million rows passes through memory a batch at a time, and only what was asked
for is kept. The parts of a space are ranges of its rows in the order of its files, so they are the
same for everyone who reads the same version, and whoever reads one opens the files of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.errors import VisionloopError
from visionloop.lake import tables, versions
from visionloop.lake.catalog import catalog_errors
from visionloop.lake.schemas import EMBEDDINGS_PREFIX, arrow_schema

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from pyiceberg.table import Table

    from visionloop.lake.lake import Lake

Floats = NDArray[np.float32]
_ROWS = 1 << 14  # read at a time


@dataclass(frozen=True)
class _File:
    """A data file: how many rows it has, and where it lies."""

    rows: int
    path: str


def rows_of_space(lake: Lake, space: str, version: str) -> int:
    """Return how many vectors an embedding space holds, as the table's manifests tell.

    Args:
        lake: The lake.
        space: The embedding space.
        version: Lake version.
    """
    table, snapshot = _at(lake, EMBEDDINGS_PREFIX + space, version)
    if table is None or snapshot is None:
        return 0
    return sum(file.rows for file in _files(table, snapshot))


def components_of_space(lake: Lake, space: str, version: str) -> int:
    """Return how many components each vector of an embedding space has, 0 where there is none.

    Args:
        lake: The lake.
        space: The embedding space.
        version: Lake version.
    """
    table, _ = _at(lake, EMBEDDINGS_PREFIX + space, version)
    return 0 if table is None else tables.vector_dimension(table)


def read_part(
    lake: Lake, space: str, version: str, part: int, parts: int
) -> tuple[list[str], Floats]:
    """Read one of the equal parts of an embedding space, and no vector of another.

    Args:
        lake: The lake.
        space: The embedding space.
        version: Lake version.
        part: Which one, from 0.
        parts: How many there are.

    Returns:
        Sample ids in ascending order, and float32 [n, d] in the same order.

    Memory: the vectors once, the ids, and a batch.
    """
    table, snapshot = _at(lake, EMBEDDINGS_PREFIX + space, version)
    if table is None or snapshot is None:
        return [], np.zeros((0, 0), np.float32)
    files = _files(table, snapshot)
    total = sum(file.rows for file in files)
    first, last = part * total // parts, (part + 1) * total // parts
    read = [pa.array([], pa.string())]
    read += (ids.cast(pa.string()) for ids in _range(table, files, first, last, "sample_id"))
    ids = pa.concat_arrays(read)
    # Each vector goes to its place at once: sorting them afterwards would hold them twice.
    place = np.empty(len(ids), dtype=np.intp)
    order = pc.sort_indices(ids).to_numpy()
    place[order] = np.arange(len(ids))
    x = np.empty((len(ids), tables.vector_dimension(table)), dtype=np.float32)
    done = 0
    for batch in _range(table, files, first, last, "vector"):
        x[place[done : done + len(batch)]] = _matrix(batch)
        done += len(batch)
    pa.default_memory_pool().release_unused()
    return ids.take(pa.array(order)).to_pylist(), x


def rows_of(
    lake: Lake,
    table: str,
    wanted: Container[str],
    *,
    key: str = "sample_id",
    columns: list[str] | None = None,
    where: Any = None,
    version: str = "",
) -> pa.Table:
    """Read a table's rows of some samples; see `Lake.read`.

    Args:
        lake: The lake.
        table: Name of the table.
        wanted: Contains the ids of the samples.
        key: The column that names the sample.
        columns: Columns to read, the key among them; all by default.
        where: A row filter in pyiceberg's syntax.
        version: Lake version; empty for the newest.

    Memory: the rows that are returned, and a batch.
    """
    kept = []
    schema = None
    for batch in batches(lake, table, columns, where, version):
        schema = batch.schema
        mask = pa.array([name in wanted for name in batch[key].to_pylist()], pa.bool_())
        if mask.true_count:
            # Of a column that came later, files that lack it and files that have it differ in type.
            kept.append(tables.narrow(pa.Table.from_batches([batch.filter(mask)])))
    if schema is None:
        empty = arrow_schema(table).empty_table()
        return empty.select(columns) if columns else empty
    return pa.concat_tables(kept) if kept else tables.narrow(schema.empty_table())


def rows_chosen(
    lake: Lake, name: str, key: str, chosen: Callable[[pa.Array], NDArray[np.bool_]], version: str
) -> Iterator[pa.RecordBatch]:
    """Yield a table's rows whose key is chosen; of a file without one only the keys are read.

    Args:
        lake: The lake.
        name: Name of the table.
        key: The column that is looked at.
        chosen: Returns which keys are, bool [n]; asked twice for some.
        version: Lake version; empty for the newest.

    Memory: the rows of one data file.
    """
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    from visionloop.lake.scanning import CurrentColumns

    table, snapshot = _at(lake, name, version)
    if table is None or snapshot is None:
        return
    scan = CurrentColumns(table.metadata, table.io, snapshot_id=snapshot)
    with catalog_errors(f"table {name} of {lake.place}"):
        keys = ArrowScan(table.metadata, table.io, table.schema().select(key), AlwaysTrue())
        rows = ArrowScan(table.metadata, table.io, scan.projection(), AlwaysTrue())
        for task in scan.plan_files():
            if any(chosen(batch[key]).any() for batch in keys.to_record_batches([task])):
                for batch in rows.to_record_batches([task]):
                    mask = chosen(batch[key])
                    if mask.any():
                        yield batch.filter(pa.array(mask))


def count(lake: Lake, table: str, column: str, value: str, version: str) -> int:
    """Return how many rows of a table have a value in a column of text.

    Args:
        lake: The lake.
        table: Name of the table.
        column: The column.
        value: The value.
        version: Lake version; empty for the newest.
    """
    total = 0
    for batch in batches(lake, table, [column], None, version):
        total += pc.sum(pc.equal(batch[column], value)).as_py() or 0
    return total


def smallest(
    lake: Lake, table: str, column: str, number: int, version: str
) -> tuple[list[str], bool]:
    """Return the smallest values of a column of text, each once, and whether there are others.

    Args:
        lake: The lake.
        table: Name of the table.
        column: The column; what is null in it does not count.
        number: How many at most.
        version: Lake version; empty for the newest.

    Memory: twice as many values, and a batch.
    """
    held: set[str] = set()
    more = False
    for batch in batches(lake, table, [column], None, version):
        held.update(pc.unique(batch[column]).drop_null().to_pylist())
        if len(held) > 2 * number:
            held, more = set(sorted(held)[:number]), True
    return sorted(held)[:number], more or len(held) > number


def batches(
    lake: Lake, name: str, columns: list[str] | None, where: Any, version: str
) -> Iterator[pa.RecordBatch]:
    """Yield a table's rows some at a time, a file after the other.

    Args:
        lake: The lake.
        name: Name of the table.
        columns: Columns to read; None for all.
        where: A row filter in pyiceberg's syntax, if any.
        version: Lake version; empty for the newest.
    """
    from pyiceberg.io.pyarrow import ArrowScan

    from visionloop.lake.scanning import CurrentColumns

    table, snapshot = _at(lake, name, version)
    if table is None or snapshot is None:
        return
    arguments: dict[str, Any] = {"snapshot_id": snapshot}
    if columns is not None:
        arguments["selected_fields"] = tuple(columns)
    if where is not None:
        arguments["row_filter"] = where
    scan = (
        table.scan(**arguments)
        if name in tables.EVOLVING
        else CurrentColumns(table.metadata, table.io, **arguments)
    )
    with catalog_errors(f"table {name} of {lake.place}"):
        reader = ArrowScan(table.metadata, table.io, scan.projection(), scan.row_filter)
        # One file at a time: pyiceberg reads all that it is given at once, ahead of who asks.
        for task in scan.plan_files():
            yield from reader.to_record_batches([task])


def _at(lake: Lake, name: str, version: str) -> tuple[Table | None, int | None]:
    with catalog_errors(f"table {name} of {lake.place}"):
        runs = lake.table("stage_runs")
        held = versions.find(runs, version) if version else versions.newest(runs)
        snapshot = held.tables.get(name)
        return (lake.table(name) if snapshot else None), snapshot


def _files(table: Table, snapshot: int) -> list[_File]:
    """Return a snapshot's files, in an order that does not depend on who asks."""
    found = []
    for task in table.scan(snapshot_id=snapshot).plan_files():
        if task.delete_files:
            raise VisionloopError(
                "rows of an embeddings table were deleted beside its files, and parts are read "
                "from the files alone",
                where=task.file.file_path,
                remedy="Rewrite the table without delete files",
            )
        found.append(_File(task.file.record_count, task.file.file_path))
    return sorted(found, key=lambda file: file.path)


def _open(table: Table, file: _File) -> pq.ParquetFile:
    import pyarrow.parquet as pq
    from pyiceberg.io.pyarrow import PyArrowFileIO

    io = table.io
    assert isinstance(io, PyArrowFileIO)
    scheme, netloc, path = PyArrowFileIO.parse_location(file.path)
    return pq.ParquetFile(path, filesystem=io.fs_by_scheme(scheme, netloc))


def _range(
    table: Table, files: list[_File], first: int, last: int, column: str
) -> Iterator[pa.Array]:
    """Yield the rows [first, last) of a column over all files, a batch at a time."""
    start = 0
    for file in files:
        if start < last and start + file.rows > first:
            yield from _range_of_file(_open(table, file), first - start, last - start, column)
        start += file.rows


def _range_of_file(
    opened: pq.ParquetFile, first: int, last: int, column: str
) -> Iterator[pa.Array]:
    start = 0
    for group in range(opened.metadata.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if start < last and start + rows > first:
            at = start
            for batch in opened.iter_batches(_ROWS, row_groups=[group], columns=[column]):
                low, high = max(first - at, 0), min(last - at, len(batch))
                if low < high:
                    yield batch.column(0).slice(low, high - low)
                at += len(batch)
        start += rows


def _matrix(vectors: pa.Array) -> Floats:
    width = vectors.type.byte_width
    flat = np.frombuffer(
        vectors.buffers()[1], np.uint8, len(vectors) * width, vectors.offset * width
    )
    return flat.view("<f4").reshape(len(vectors), width // 4)
