"""Reads and writes Iceberg tables as Arrow tables, at one snapshot each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.lake.catalog import EMBEDDINGS_PROPERTIES, TABLE_PROPERTIES
from visionloop.lake.schemas import EMBEDDINGS_PREFIX, SCHEMA_VERSION, arrow_schema

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import DataScan, Table

# `metadata` grows a typed column for each name that a sidecar brings.
EVOLVING = frozenset({"metadata"})
# The property of a table that tells by which version of the schemas it is laid out.
SCHEMA_PROPERTY = "visionloop.schema-version"


def load_table(catalog: Catalog, loop: str, name: str) -> Table | None:
    """Return a table of a loop, or None where nothing has been written to it yet.

    Args:
        catalog: The lake's catalog.
        loop: Name of the loop.
        name: Name of the table.
    """
    from pyiceberg.exceptions import NoSuchTableError

    try:
        return catalog.load_table((loop, name))
    except NoSuchTableError:
        return None


def create_table(
    catalog: Catalog,
    loop: str,
    name: str,
    schema: pa.Schema,
    *,
    schema_version: int = SCHEMA_VERSION,
) -> Table:
    """Create a table, or return the one that another writer created first.

    Args:
        catalog: The lake's catalog.
        loop: Name of the loop.
        name: Name of the table.
        schema: Its columns.
        schema_version: Version of the lake's schema, kept as a property of the table.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError

    properties = EMBEDDINGS_PROPERTIES if name.startswith(EMBEDDINGS_PREFIX) else TABLE_PROPERTIES
    properties = properties | {SCHEMA_PROPERTY: str(schema_version)}
    try:
        return catalog.create_table_if_not_exists((loop, name), schema, properties=properties)
    except NoSuchNamespaceError:
        catalog.create_namespace_if_not_exists(loop)
        return catalog.create_table_if_not_exists((loop, name), schema, properties=properties)


def snapshot_of(table: Table) -> int | None:
    """Return the id of a table's newest snapshot, None for one that was never written."""
    snapshot = table.current_snapshot()
    return snapshot.snapshot_id if snapshot else None


def reset(table: Table, snapshot_id: int | None) -> None:
    """Make a snapshot the table's newest one again.

    What a killed run wrote after it becomes unreachable, as if it had never been.
    """
    if snapshot_of(table) == snapshot_id:
        return
    if snapshot_id is None:
        from pyiceberg.expressions import AlwaysTrue

        table.delete(AlwaysTrue())
    else:
        table.manage_snapshots().set_current_snapshot(snapshot_id).commit()


def read(
    table: Table,
    snapshot_id: int,
    *,
    columns: list[str] | None = None,
    where: Any = None,
) -> pa.Table:
    """Read a table at a snapshot.

    Args:
        table: The Iceberg table.
        snapshot_id: Snapshot to read at.
        columns: Names to read, all by default.
        where: A row filter in pyiceberg's syntax, as text or expression.
    """
    arguments: dict[str, Any] = {"snapshot_id": snapshot_id}
    if columns is not None:
        arguments["selected_fields"] = tuple(columns)
    if where is not None:
        arguments["row_filter"] = where
    return narrow(_scan(table, **arguments).to_arrow())


def batches(
    table: Table, snapshot_id: int, *, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a table's rows at a snapshot, a batch at a time, in Iceberg's own types; see `read`.

    Memory: the rows of one data file.
    """
    from visionloop.lake.scanning import batches_of

    arguments = {} if columns is None else {"selected_fields": tuple(columns)}
    yield from batches_of(_scan(table, snapshot_id=snapshot_id, **arguments))


def _scan(table: Table, **arguments: Any) -> DataScan:
    if table.name()[-1] in EVOLVING:
        # Its columns are data: a version has those that it had.
        return table.scan(**arguments)
    from visionloop.lake.scanning import CurrentColumns

    return CurrentColumns(table.metadata, table.io, **arguments)


def narrow(table: pa.Table) -> pa.Table:
    """Undo the scan's large types, so that a column has the type that its schema names."""

    def small(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_large_string(kind):
            return pa.string()
        if pa.types.is_large_binary(kind):
            return pa.binary()
        if pa.types.is_large_list(kind) or pa.types.is_list(kind):
            return pa.list_(small(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([(field.name, small(field.type)) for field in kind])
        return kind

    return table.cast(pa.schema([(field.name, small(field.type)) for field in table.schema]))


def vector_dimension(table: Table) -> int:
    """Return the number of float32 components of an embeddings table's vectors."""
    width: int = table.schema().as_arrow().field("vector").type.byte_width
    return width // 4


def overwrite(table: Table, rows: pa.Table, where: Any) -> None:
    """Put rows in the place of those that a filter names; it may name none.

    Args:
        table: The table.
        rows: The new rows, possibly none.
        where: A row filter in pyiceberg's syntax, as text or expression.
    """
    if snapshot_of(table) is None:
        table.append(rows)
        return
    with warnings.catch_warnings():
        # pyiceberg warns where a filter matches nothing: for a row that is new, that is the rule.
        warnings.filterwarnings("ignore", message="Delete operation did not match")
        if rows.num_rows:
            table.overwrite(rows, overwrite_filter=where)
        else:
            table.delete(where)


def conform(name: str, rows: pa.Table, existing: Table | None) -> pa.Table:
    """Give rows the columns, order and types of their table.

    Missing columns become null.

    Args:
        name: Name of the table.
        rows: The rows.
        existing: The table as it is; None where it is yet to be made.

    Raises:
        InputError: Rows have a column that the table lacks, or of a type that does not fit.
    """
    if name.startswith(EMBEDDINGS_PREFIX):
        schema = arrow_schema(name, dimension=rows.schema.field("vector").type.byte_width // 4)
    else:
        schema = arrow_schema(name)
    if name in EVOLVING:
        known = {field.name for field in schema}
        added = [field for field in rows.schema if field.name not in known]
        if existing is not None:
            held = {field.name: field for field in existing.schema().as_arrow()}
            added = [held.get(f.name, f).with_type(f.type) for f in added]
        schema = pa.schema([*schema, *added])
    unknown = set(rows.column_names) - set(schema.names)
    if unknown:
        raise InputError(f"columns {sorted(unknown)} are not in the schema", where=f"table {name}")
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        try:
            columns.append(rows[field.name].cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"column {field.name!r} does not fit: {error}", where=f"table {name}"
            ) from error
    return pa.table(columns, schema=schema)


def evolve(name: str, table: Table, schema: pa.Schema) -> None:
    """Add the columns that a table lacks.

    Args:
        name: Name of the table.
        table: The table.
        schema: Columns that it is to have.

    Raises:
        InputError: A column exists with another type.
    """
    held = {field.name: field.field_type for field in table.schema().fields}
    missing = [field for field in schema if field.name not in held]
    if missing:
        with table.update_schema() as update:
            update.union_by_name(pa.schema(missing))
    kept = {field.name: field.type for field in table.schema().as_arrow()}
    for field in schema:
        have = narrow(pa.table({"c": pa.nulls(0, kept[field.name])}))["c"].type
        if have != field.type:
            raise InputError(
                f"column {field.name!r} is {have} in the lake and {field.type} in the new rows",
                where=f"table {name}",
                remedy="Give the key one type in every sidecar, or another name",
            )
