"""Copies known samples into the lake where their source says `copy: true` by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.anywhere import Anywhere
from visionloop.lake.identity import is_sample
from visionloop.lake.storage import StorageError

if TYPE_CHECKING:
    from visionloop.stages.ingest_rows import Ingest


def copy_known(ingest: Ingest) -> dict[str, str]:
    """Copy the samples of sources that are to be copied, as far as they lie elsewhere still.

    Args:
        ingest: The ingest that is being committed; it counts ``n_copied`` and ``n_not_copied``.

    Returns:
        New URI of each sample that was copied.

    Raises:
        StorageError: The lake cannot be written.
    """
    pairs = zip(ingest.listing.roots, ingest.loop.sources, strict=True)
    roots = [root for root, source in pairs if source.copy_media]
    if not roots:
        return {}
    samples = ingest.run.read("samples", columns=["sample_id", "uri", "source", "format"])
    mine = pc.is_in(samples["source"], value_set=pa.array(roots, pa.string()))
    for root in roots:
        mine = pc.or_kleene(mine, pc.starts_with(samples["uri"], root.rstrip("/") + "/"))
    own = ingest.lake.path("media").rstrip("/") + "/"
    outside = pc.invert(pc.starts_with(samples["uri"], own))
    left = samples.filter(pc.and_kleene(mine, outside)).sort_by("uri").to_pylist()
    if not left:
        return {}
    ingest.bar.note(f"copies {len(left):,} known images")
    copied: dict[str, str] = {}
    found = Anywhere().read_many(row["uri"] for row in left)
    for row, (_, data) in zip(left, found, strict=True):
        # What was removed or overwritten is no sample's any more, and told elsewhere.
        if not isinstance(data, StorageError) and is_sample(row["sample_id"], data):
            copied[row["sample_id"]] = ingest.kept.put(row["sample_id"], row["format"], data)
    ingest.counts.update(n_copied=len(copied), n_not_copied=len(left) - len(copied))
    return copied
