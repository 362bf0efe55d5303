"""Writes a table's Parquet files with pyarrow, and commits which of them a table consists of.

pyiceberg commits, keeps snapshots and plans what to read; its own writer tries a dictionary on
every column and cannot be told to leave a row group alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

GROUP_ROWS = 131_072
# Bounds of vectors help nobody, and pyiceberg complains of a file that has none.
_METRICS = {"write.metadata.metrics.column.vector": "none"}
# A snapshot that holds the same rows as the one before it, in other files, says so.
SAME_ROWS = "visionloop.same-rows"


def file_schema(table: Table) -> pa.Schema:
    """Return a table's columns as they are written: with Iceberg's field ids, no large types."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return pa.schema([_small(field) for field in schema_to_pyarrow(table.schema())])


def _small(field: pa.Field) -> pa.Field:
    kind = field.type
    if pa.types.is_large_string(kind):
        kind = pa.string()
    elif pa.types.is_large_binary(kind):
        kind = pa.binary()
    elif pa.types.is_large_list(kind) or pa.types.is_list(kind):
        kind = pa.list_(_small(kind.value_field))
    elif pa.types.is_struct(kind):
        kind = pa.struct([_small(kind.field(i)) for i in range(kind.num_fields)])
    return field.with_type(kind)


def write(table: Table, parts: Iterable[pa.Table], **options: Any) -> DataFile | None:
    """Write rows into one new file that belongs to no snapshot yet.

    Args:
        table: The table, which is partitioned by nothing.
        parts: Rows with the table's columns, in its order.
        options: Of `pyarrow.parquet.ParquetWriter`, ``row_group_size``, and ``mark``: key and value
            for the file's footer.

    Returns:
        The file, to be committed by `commit`; None where there were no rows.
    """
    import pyarrow.parquet as pq
    from pyiceberg.io.pyarrow import parquet_file_to_data_file

    group = options.pop("row_group_size", GROUP_ROWS)
    mark = options.pop("mark", None)
    schema = file_schema(table)
    location = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
    output = table.io.new_output(location)
    rows = 0
    with (
        output.create() as stream,
        pq.ParquetWriter(stream, schema, store_schema=False, **options) as writer,
    ):
        for part in _whole_groups((_typed(part, schema) for part in parts), group):
            writer.write_table(part, row_group_size=group)
            rows += part.num_rows
        if mark:
            writer.add_key_value_metadata(mark)
    if not rows:
        table.io.delete(location)
        return None
    described = table.metadata.model_copy(
        update={"properties": table.metadata.properties | _METRICS}
    )
    return parquet_file_to_data_file(table.io, described, location)


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    # Field ids stand in the fields' metadata, which `Table.cast` would keep of the old ones.
    columns = [c.cast(f.type) for c, f in zip(rows.columns, schema, strict=True)]
    return pa.table(columns, schema=schema)


def _whole_groups(parts: Iterable[pa.Table], group: int) -> Iterator[pa.Table]:
    """Yield rows in whole row groups, the last one excepted: a writer begins one at each call."""
    held: list[pa.Table] = []
    rows = 0
    for part in parts:
        held.append(part)
        rows += part.num_rows
        if rows >= group:
            all_rows = pa.concat_tables(held)
            rows %= group
            full = all_rows.num_rows - rows
            yield all_rows.slice(0, full)
            held = [all_rows.slice(full)]
    if rows:
        yield pa.concat_tables(held)


def commit(
    table: Table,
    added: Sequence[DataFile],
    removed: Sequence[DataFile] = (),
    *,
    properties: dict[str, str] | None = None,
) -> None:
    """Commit a snapshot that has some files more and some fewer; nothing happens for none.

    Args:
        table: The table.
        added: Files that `write` returned.
        removed: Files of the table's newest snapshot.
        properties: Properties of the snapshot's summary.
    """
    if not added and not removed:
        return
    with table.transaction() as change:
        update = change.update_snapshot(snapshot_properties=properties or {})
        with update.overwrite() if removed else update.fast_append() as snapshot:
            for one in removed:
                snapshot.delete_data_file(one)
            for one in added:
                snapshot.append_data_file(one)


def holds_the_same(table: Table, older: int | None, newer: int | None) -> bool:
    """Whether two snapshots hold the same rows: only compactions lie between them.

    Args:
        table: The table.
        older: The earlier snapshot.
        newer: The later one.
    """
    while newer != older:
        snapshot = table.snapshot_by_id(newer) if newer is not None else None
        if snapshot is None or snapshot.summary is None:
            return False
        if SAME_ROWS not in snapshot.summary.additional_properties:
            return False
        newer = snapshot.parent_snapshot_id
    return True
