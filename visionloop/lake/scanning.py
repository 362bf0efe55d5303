"""Scans a table's snapshot by the columns that the table has now.

pyiceberg reads an old snapshot by the schema of its day. A column that was added since is then an
error to ask for, while for us it is null: an older lake that was migrated reads like a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
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


def rows_of_file(table: Table, task: FileScanTask) -> Iterator[pa.Table]:
    """Yield a file's rows by the columns that the table has now, a part at a time.

    Args:
        table: The table.
        task: What a scan planned of the file: rows that a delete file names are left out.
    """
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    for batch in scan.to_record_batches([task]):
        yield pa.Table.from_batches([batch])
