"""The label that counts of each image, for a million rows of ``labels`` at once.

It is what `visionloop.labeling.answers.latest_answers` says, which goes over rows one by one: here
it is asked of the images alone that a withdrawal or a conflict speaks of.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.labeling.answers import CONFLICT, MODEL, SKIPPED, WITHDRAWN, latest_answers
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.live.joining import latest

# What of ``labels`` decides which row counts.
LABEL_COLUMNS = (
    "sample_id", "task", "label", "annotator", "origin", "created_at", "n_annotations", "round_id",
)  # fmt: skip
_TOLD = ("sample_id", "label", "origin")
_SCHEMA = pa.schema([column for column in arrow_schema("labels") if column.name in _TOLD])


def current_labels(rows: pa.Table) -> pa.Table:
    """Return sample_id, label and origin of each image that is labelled or was skipped.

    Args:
        rows: Table ``labels``, with `LABEL_COLUMNS`.
    """
    if not rows.num_rows:
        return _SCHEMA.empty_table()
    back = pc.is_in(rows["origin"], value_set=pa.array([CONFLICT, WITHDRAWN]))
    taken = pc.unique(rows["sample_id"].filter(back))
    special = pc.is_in(rows["sample_id"], value_set=taken)
    answers = latest_answers(rows.filter(special).to_pylist())
    told = pa.table(
        {
            "sample_id": list(answers),
            "label": [row["label"] for row in answers.values()],
            "origin": [row["origin"] for row in answers.values()],
        },
        schema=_SCHEMA,
    )
    said = pc.or_(
        pc.is_valid(rows["label"]), pc.fill_null(pc.equal(rows["origin"], SKIPPED), False)
    )
    return pa.concat_tables([told, _newest(rows.filter(pc.and_(said, pc.invert(special))))])


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
    return latest(rows, "sample_id", order).select(_SCHEMA.names).cast(_SCHEMA)
