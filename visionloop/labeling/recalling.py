"""Takes a round's open requests back, so that nobody labels for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.labeling.opening import open_provider, provider_name
from visionloop.labeling.overview import open_requests
from visionloop.lake.schemas import arrow_schema
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


@dataclass(frozen=True)
class Recalled:
    """What was taken back.

    Attributes:
        round_id: The round.
        asked: Samples whose requests were open, and that nobody had begun as the lake knows it.
        recalled: Those of them whose requests are gone now; the others somebody has begun since.
        begun: Samples whose requests are open and stay, since somebody has begun them.
        unusable: Samples whose requests are open and stay, since they have an answer that cannot
            be used.
        lake_version: Lake version that says so.
    """

    round_id: str
    asked: Sequence[str]
    recalled: Sequence[str]
    begun: Sequence[str]
    unusable: Sequence[str]
    lake_version: str


def recall(loop: LoopConfig, lake: Lake, round_id: str, *, dry_run: bool = False) -> Recalled:
    """Take a round's open requests back; what people have answered or begun stays.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        round_id: The round.
        dry_run: Only tell which requests are open, and which of them would stay.

    Raises:
        InputError: The requests were made at another provider than the configuration names.
        VisionloopError: The provider does not answer.
    """
    import pyarrow as pa

    mine = f"round_id == '{round_id}'"
    version = lake.version()
    rows = lake.read("label_requests", where=mine, version=version).to_pylist()
    found = open_requests(lake, round_id, version)
    left = found.untouched
    others = {row["provider"] for row in left} - {provider_name(loop)}
    if others:
        raise InputError(
            f"the requests of {round_name(round_id)} were made at {', '.join(sorted(others))}",
            where=f"labeling.provider {loop.labeling.provider}",
            remedy="Give the configuration that asked",
        )
    asked = [row["sample_id"] for row in left]
    if dry_run or not left:
        return Recalled(round_id, asked, [], found.begun, found.unusable, version)
    provider = open_provider(loop, lake)
    ids = {row["sample_id"]: row["external_id"] or "" for row in left}
    gone = set(provider.recall(round_id, ids)) & ids.keys()
    for row in rows:
        row["recalled"] = bool(row["recalled"]) or row["sample_id"] in gone
    with lake.run(stage="recall_labels", round_id=round_id, base_version=version) as run:
        run.refuse_stale("label_requests")
        table = pa.Table.from_pylist(rows, schema=arrow_schema("label_requests"))
        run.replace("label_requests", table, mine)
        made = run.commit(outputs={"recalled": len(gone)})
    return Recalled(round_id, asked, sorted(gone), found.begun, found.unusable, made)
