"""Looks at a small loop whose samples are embedded in shards."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.training.small_loop import SmallLoop
from visionloop.lake import Lake
from visionloop.stages.ingest import ingest

CLUSTER = {"inline_samples": 10, "shard_size": 40}


def shards_of(loop: SmallLoop, **arguments: Any) -> list[str]:
    return ingest(config=loop.config, round_id="0000", fan_out=True, **arguments).shards


def embedded(lake: Lake) -> dict[str, dict[str, bytes]]:
    """Vectors by sample, as bytes, of each space."""
    found = {}
    for space in lake.spaces():
        ids, vectors = lake.embeddings(space)
        assert len(ids) == len(set(ids)), "a sample stands twice"
        found[space] = {name: v.tobytes() for name, v in zip(ids, vectors, strict=True)}
    return found


def predicted(lake: Lake) -> dict[tuple[str, str], list[float]]:
    rows = lake.read("predictions").to_pylist()
    found = {(row["sample_id"], row["model_id"]): row["probabilities"] for row in rows}
    assert len(found) == len(rows), "a prediction stands twice"
    return found


def commits(lake: Lake) -> int:
    return int(lake.stage_runs(where="stage == 'infer'").num_rows)


def files(lake: Lake) -> list[str]:
    folder = lake.path("shards")
    if not lake.storage.exists(folder):
        return []
    return [info.uri for info in lake.storage.list(folder)]


def ids_of(loop: SmallLoop, uri: str) -> list[str]:
    table = pq.read_table(pa.BufferReader(loop.lake.storage.read(uri)))
    return [str(name) for name in table["sample_id"].to_pylist()]
