"""Scans a table's snapshot by the columns that the table has now.

pyiceberg reads an old snapshot by the schema of its day. A column that was added since is then an
error to ask for, while for us it is null: an older lake that was migrated reads like a new one.
"""

from __future__ import annotations

from pyiceberg.schema import Schema
from pyiceberg.table import DataScan


class CurrentColumns(DataScan):
    """A scan whose columns are the table's newest, null where a file was written before them."""

    def projection(self) -> Schema:
        """Return the schema that is read."""
        schema = self.table_metadata.schema()
        if "*" in self.selected_fields:
            return schema
        return schema.select(*self.selected_fields, case_sensitive=self.case_sensitive)
