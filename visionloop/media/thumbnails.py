"""The small pictures that ingest wrote, read by sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from visionloop.media.records import among, some_at_a_time

if TYPE_CHECKING:
    from visionloop.lake import Lake


def read_thumbnails(lake: Lake, samples: Iterable[str], version: str) -> dict[str, bytes]:
    """Return the encoded thumbnails of samples; a sample of an older lake may have none.

    Args:
        lake: The lake.
        samples: Sample ids.
        version: Version of the lake.
    """
    found: dict[str, bytes] = {}
    for some in some_at_a_time(sorted(set(samples))):
        table = lake.read("thumbnails", where=among("sample_id", some), version=version)
        found |= dict(zip(table["sample_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    return found
