"""What groups the holdout: what each new file says, and what is odd about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.errors import InputError
from visionloop.media.holdout import HOLDOUT
from visionloop.media.intake import NEW
from visionloop.media.metadata import RESERVED, column_name
from visionloop.media.outcomes import groups_of, ids_of

if TYPE_CHECKING:
    from visionloop.media.outcomes import Rows
    from visionloop.stages.ingest_rows import Ingest


def groups_of_rows(ingest: Ingest, rows: Rows, held: Sequence[str]) -> dict[int, str]:
    """Return the group of each row that has one, and count the new samples that have none.

    Args:
        ingest: The ingest.
        rows: Its rows, decided.
        held: Columns of metadata that the lake has.

    Raises:
        InputError: Nothing has the column that is to group the holdout.
    """
    told, new = ingest.loop.holdout, np.flatnonzero(rows.of_kind(NEW)).tolist()
    if not told.group_by or not len(rows):
        return {}
    column = column_name(told.group_by)
    groups = {row: one for row, one in enumerate(groups_of(ingest.parts(), column)) if one}
    without = sum(row not in groups for row in new)
    if without and without == len(new) and told.fraction:
        columns = {*rows.types, *held} - RESERVED
        if column not in columns:
            raise _no_such_group(told.group_by, sorted(columns))
    ingest.counts["n_without_group"] += without
    return groups


def count_unjudged(
    ingest: Ingest, rows: Rows, groups: Mapping[int, str], held: pa.Table, drawn: set[str]
) -> None:
    """Count the groups where the holdout has none of them: each is larger than its room.

    Args:
        ingest: The ingest.
        rows: Its rows, decided.
        groups: Group by row.
        held: The samples that the lake had.
        drawn: Ids of samples that join the holdout.
    """
    if not groups:
        return
    ids = sorted(drawn)
    is_in = pc.or_(
        pc.equal(held["split"], HOLDOUT), pc.is_in(held["sample_id"], pa.array(ids, pa.string()))
    )
    before = held.filter(is_in)
    came = np.flatnonzero(np.asarray(pc.is_in(rows.sample, value_set=ids_of(ids))))
    judged = {*before["group_key"].to_pylist(), *(groups.get(row) for row in came.tolist())}
    if (before.num_rows or ids) and not judged - {None, ""}:
        ingest.counts["n_unjudged_groups"] = len(set(groups.values()))


def _no_such_group(group_by: str, columns: list[str]) -> InputError:
    from visionloop.validation import nearest

    return InputError(
        f"no image has metadata `{group_by}`{nearest(group_by, columns)}, and without it the "
        "holdout would be drawn by single images",
        where="holdout.group_by",
        remedy=f"Name one of {', '.join(columns[:20])}, or leave group_by out"
        if columns
        else "Give the images metadata (`ingest --format` takes an annotated set's, `import` only "
        "after the draw), or leave group_by out",
    )
