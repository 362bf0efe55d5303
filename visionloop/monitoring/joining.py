"""Joins tables by the image that their rows are about, a column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def latest(rows: pa.Table, key: str, order: list[str]) -> pa.Table:
    """Return the last row of each key.

    Args:
        rows: The rows.
        key: The column that names what a row is about.
        order: Columns that rows are ordered by.
    """
    rows = rows.combine_chunks()
    if not rows.num_rows:
        return rows
    keys = {}
    for number, name in enumerate(order):
        # What has no value comes first: the default puts it last.
        keys[f"has {number}"] = pc.is_valid(rows[name])
        keys[f"key {number}"] = rows[name]
    ways = [(name, "ascending") for name in keys]
    places = pc.sort_indices(pa.table(keys), sort_keys=ways).to_numpy()
    codes = pc.dictionary_encode(rows[key].combine_chunks()).indices.to_numpy()
    last = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    # Of several values that go to one place the last one stays.
    last[codes[places]] = places
    return rows.take(pa.array(np.sort(last)))


def joined(ids: pa.ChunkedArray, rows: pa.Table, key: str, names: dict[str, str]) -> dict[str, Any]:
    """Return columns of other rows in the order of the images, null where there is none.

    Args:
        ids: Ids of the images.
        rows: The other rows, one a key.
        key: The column that names the image.
        names: What each column is called from now on.
    """
    places = pc.index_in(ids, value_set=rows[key].combine_chunks())
    return {new: rows[old].take(places) for old, new in names.items()}
