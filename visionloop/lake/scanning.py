"""Scans a table's snapshot by the columns that the table has now.

pyiceberg reads an old snapshot by the schema of its day. A column that was added since is then an
error to ask for, while for us it is null: an older lake that was migrated reads like a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import DataScan, FileScanTask, Table


class CurrentColumns(DataScan):
    """A scan whose columns are the table's newest, null where a file was written before them."""

    def projection(self) -> Schema:
        """Return the schema that is read."""
        schema = self.table_metadata.schema()
        if "*" in self.selected_fields:
            return schema
        return schema.select(*self.selected_fields, case_sensitive=self.case_sensitive)


def batches_of(scan: DataScan) -> Iterator[pa.RecordBatch]:
    """Yield a scan's rows in Iceberg's own types, with one data file in memory at a time.

    pyiceberg's own reader begins to read all files at once, and keeps what nobody has taken yet.

    Args:
        scan: The scan.
    """
    projected = scan.projection()
    reader = ArrowScan(
        scan.table_metadata, scan.io, projected, scan.row_filter, scan.case_sensitive
    )
    target = schema_to_pyarrow(projected)
    for task in scan.plan_files():
        for batch in reader.to_record_batches([task]):
            yield batch.cast(target)


def rows_of_file(table: Table, task: FileScanTask) -> Iterator[pa.Table]:
    """Yield a file's rows by the columns that the table has now, a part at a time.

    Args:
        table: The table.
        task: What a scan planned of the file: rows that a delete file names are left out.
    """
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    for batch in scan.to_record_batches([task]):
        yield pa.Table.from_batches([batch])
