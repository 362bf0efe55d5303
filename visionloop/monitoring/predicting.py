"""Which model's predictions pages show: the newest that predicted more than the holdout.

A model that was just published has predicted the holdout alone: what it makes of the other images
the next round's `infer` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.selection.in_service import age

if TYPE_CHECKING:
    from visionloop.lake import Lake


def predicting_model(
    lake: Lake, holdout: pa.Array | pa.ChunkedArray, *, version: str | None = None
) -> str:
    """Return the id of the newest model of the loop that predicted a sample outside the holdout.

    Args:
        lake: The lake.
        holdout: Ids of the holdout's samples.
        version: Lake version to read at, the newest by default.

    Returns:
        The model's id; empty where no model predicted such a sample. A model that the lake has no
        experiment of is older than all others.

    Cost: one pass over two columns of ``predictions``, a batch at a time.
    """
    held = pa.array(holdout) if not isinstance(holdout, pa.ChunkedArray) else holdout
    held = held.cast(pa.string())
    found: set[str] = set()
    columns = ["sample_id", "model_id"]
    for batch in lake.batches("predictions", columns=columns, version=version):
        others = pc.invert(pc.is_in(batch["sample_id"].cast(pa.string()), value_set=held))
        named = pc.unique(batch["model_id"].filter(others))
        found.update(str(name) for name in named.to_pylist() if name is not None)
    if not found:
        return ""
    models = lake.read(
        "experiments", columns=["model_id", "arm", "trained_at"], version=version
    ).to_pylist()
    random = {row["model_id"] for row in models if row["arm"] == "random"}
    ages = {row["model_id"]: age(row) for row in models if row["model_id"] not in random}
    candidates = sorted(found - random)
    return max(candidates, key=lambda name: ages.get(name, ("", name)), default="")
