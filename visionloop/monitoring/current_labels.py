"""The label that counts of each image, for a million rows of ``labels`` at once.

It is what `visionloop.labeling.answers.latest_answers` and `latest_boxes` say, which go over rows
one by one: here they are asked of the images alone that a withdrawal or a conflict speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.labeling.answers import (
    CONFLICT,
    DETECTION,
    MODEL,
    SKIPPED,
    WITHDRAWN,
    latest_answers,
    latest_boxes,
)
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.joining import latest

if TYPE_CHECKING:
    from visionloop.lake import Lake

# What of ``labels`` decides which row counts, and how many boxes it has; null without a list.
LABEL_COLUMNS = (
    "sample_id", "task", "label", "annotator", "origin", "created_at", "n_annotations", "round_id",
)  # fmt: skip
OBJECTS = "objects"
_LABELS = arrow_schema("labels")
# A number of boxes is told as a number of answers is.
_NUMBER = _LABELS.field("n_annotations").with_name(OBJECTS)
_SAMPLE = _LABELS.field("sample_id")
_OBJECTS = pa.schema([_SAMPLE, _NUMBER])

_Rows = list[dict[str, Any]]


def read_labels(lake: Lake, version: str) -> pa.Table:
    """Return `LABEL_COLUMNS` of all rows of ``labels``, and of their boxes the number alone.

    Args:
        lake: The lake.
        version: Its version.
    """
    schema = pa.schema([_LABELS.field(name) for name in LABEL_COLUMNS])
    parts = [schema.append(_NUMBER).empty_table()]
    for batch in lake.batches("labels", columns=[*LABEL_COLUMNS, "boxes"], version=version):
        rows = pa.Table.from_batches([batch])
        told = rows.select(LABEL_COLUMNS).cast(schema)
        number = pc.list_value_length(rows["boxes"]).cast(_NUMBER.type)
        parts.append(told.append_column(OBJECTS, number))
    return pa.concat_tables(parts)


def current_labels(
    rows: pa.Table, names: Sequence[str] = ("sample_id", "label", "origin")
) -> pa.Table:
    """Return the row that counts of each image that is labelled or was skipped.

    Args:
        rows: Table ``labels``, with `LABEL_COLUMNS`.
        names: Columns to return, of `LABEL_COLUMNS`.
    """
    schema = pa.schema([_LABELS.field(name) for name in names])
    return _current(rows, _speaks(rows), latest_answers, schema)


def current_objects(rows: pa.Table) -> pa.Table:
    """Return sample_id and objects, their number, of each image that somebody looked for some in.

    Args:
        rows: From `read_labels`.
    """
    number = rows[OBJECTS]
    # As `latest_boxes`: an empty list says something where the row says nothing else.
    alone = pc.or_(pc.is_null(rows["label"]), pc.equal(pc.fill_null(rows["task"], ""), DETECTION))
    says = pc.and_(pc.is_valid(number), pc.or_(pc.fill_null(pc.greater(number, 0), False), alone))
    said = pc.and_(says, pc.invert(_was_skipped(rows)))

    def boxed(held: _Rows) -> Mapping[str, Mapping[str, Any]]:
        # A list is asked whether it is one, and whether it is empty.
        return latest_boxes(
            {**row, "boxes": None if row[OBJECTS] is None else range(row[OBJECTS])} for row in held
        )

    return _current(rows, said, boxed, _OBJECTS)


def _was_skipped(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(rows["origin"], SKIPPED), False)


def _speaks(rows: pa.Table) -> pa.ChunkedArray:
    return pc.or_(pc.is_valid(rows["label"]), _was_skipped(rows))


def _current(
    rows: pa.Table,
    said: pa.ChunkedArray,
    one_by_one: Callable[[_Rows], Mapping[str, Mapping[str, Any]]],
    schema: pa.Schema,
) -> pa.Table:
    """Return the row that counts of each image.

    Args:
        rows: Table ``labels``.
        said: bool [n], the rows that say something.
        one_by_one: The rule, for images of which something was taken back.
        schema: Columns to return.
    """
    if not rows.num_rows:
        return schema.empty_table()
    back = pc.is_in(rows["origin"], value_set=pa.array([CONFLICT, WITHDRAWN]))
    taken = pc.unique(rows["sample_id"].filter(back))
    special = pc.is_in(rows["sample_id"], value_set=taken)
    settled = one_by_one(rows.filter(special).to_pylist()).values()
    told = pa.Table.from_pylist(
        [{name: row[name] for name in schema.names} for row in settled], schema=schema
    )
    plain = _newest(rows.filter(pc.and_(said, pc.invert(special))))
    return pa.concat_tables([told, plain.select(schema.names).cast(schema)])


def _newest(rows: pa.Table) -> pa.Table:
    rounds = [
        int(one) if one and one.isdigit() else -1 for one in pc.unique(rows["round_id"]).to_pylist()
    ]
    numbers = pc.index_in(rows["round_id"], value_set=pc.unique(rows["round_id"])).to_numpy()
    counted = np.array(rounds, dtype=np.int64)[numbers] if len(rounds) else np.zeros(0, np.int64)
    rows = rows.append_column("counted", pa.array(counted))
    # A person's answer comes before a model's, however old it is.
    people = pc.fill_null(pc.not_equal(rows["origin"], MODEL), True)
    rows = rows.append_column("people", people)
    for name in ("annotator", "label"):
        rows = rows.append_column(f"{name}_or_none", pc.fill_null(rows[name], ""))
    order = ["people", "counted", "created_at", "annotator_or_none", "label_or_none"]
    return latest(rows, "sample_id", order)
