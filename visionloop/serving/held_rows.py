"""The rows of earlier harvests that a harvest may change: found, and put anew.

A table of any age passes through memory a data file at a time, and of a file without a row that
matters only the event ids are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake import data_files, parts, tables
from visionloop.serving.key_hashes import Hashes, among, hashes

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask, Table

    from visionloop.lake import Lake
    from visionloop.lake.run import Run


def held_rows(
    lake: Lake, version: str, new: Hashes, *, orphaned_before: datetime
) -> Iterator[pa.Table]:
    """Yield the rows of `harvest_events` with event ids that came again, or waited long enough.

    Of an id all rows are yielded. Some rows of other ids may be among them: whether an id's rows
    are is decided by its hash.

    Args:
        lake: The lake.
        version: Lake version to read at.
        new: Hashes of the event ids that came.
        orphaned_before: What is pending and was received earlier has waited long enough.
    """
    found = [new]
    columns = ["event_id", "received_at"]
    for batch in parts.batches(lake, "harvest_events", columns, "state == 'pending'", version):
        received = batch["received_at"]
        early = pc.less(received, pa.scalar(orphaned_before, received.type))
        waited = pc.fill_null(early, True)
        found.append(hashes(batch["event_id"].filter(waited)))
    wanted = np.unique(np.concatenate(found))
    if not len(wanted):
        return
    for batch in parts.rows_chosen(
        lake, "harvest_events", "event_id", lambda ids: among(ids, wanted), version
    ):
        yield tables.narrow(pa.Table.from_batches([batch]))


def remove(run: Run, name: str, ids: pa.Array) -> None:
    """Remove the rows with some event ids from a table, as part of a run.

    Args:
        run: The run; it has written nothing to the table yet.
        name: Name of the table.
        ids: The event ids, each once.
    """
    from visionloop.lake.scanning import CurrentColumns, rows_of_file

    wanted = np.sort(hashes(ids))

    def gone(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
        """Return which of some ids are among them; None where none is."""
        if not among(texts, wanted).any():
            return None
        mask = pc.is_in(texts.cast(ids.type), value_set=ids)
        return mask if pc.any(mask).as_py() else None

    def without(table: Table, task: FileScanTask) -> Iterator[pa.Table]:
        for rows in rows_of_file(table, task):
            mask = gone(rows["event_id"])
            yield rows if mask is None else rows.filter(pc.invert(mask))

    def change(table: Table, properties: dict[str, str]) -> None:
        touched = []
        planned = CurrentColumns(table.metadata, table.io, selected_fields=("event_id",))
        for task in planned.plan_files():
            if any(gone(ids) is not None for ids in _event_ids(table, task)):
                touched.append(task)
        written = [
            data_files.write(table, without(table, task), compression="zstd") for task in touched
        ]
        added = [one for one in written if one is not None]
        data_files.commit(table, added, [task.file for task in touched], properties=properties)

    run.rewrite(name, change, same_rows=False)


def _event_ids(table: Table, task: FileScanTask) -> Iterator[pa.Array]:
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    scan = ArrowScan(table.metadata, table.io, table.schema().select("event_id"), AlwaysTrue())
    for batch in scan.to_record_batches([task]):
        yield batch["event_id"]
