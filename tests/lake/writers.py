"""What processes do to a lake that tests run beside each other, and kill."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa

from visionloop.errors import StaleRead
from visionloop.lake import Lake
from visionloop.lake.compact import compact

THEN = datetime(2026, 1, 1, tzinfo=UTC)
# Its children have imported everything: tests wait for writers, not for imports.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["tests.lake.writers", "pyiceberg.catalog.sql", "pyiceberg.io.pyarrow", "pyarrow.parquet",
     "psycopg2"]
)  # fmt: skip


def count(uri: str, catalog: str, writer: int, times: int) -> None:
    """Add rows of one's own, and one to a count that all writers share, so many times."""
    lake = Lake.open(uri, catalog=catalog, loop="test")
    done = 0
    while done < times:
        try:
            with lake.run(stage="count") as run:
                name = f"{writer}-{done}"
                held = run.read("decisions", columns=["outcome"])["outcome"].to_pylist()
                run.append("files", pa.table({"uri": [name], "state": ["skipped"]}))
                run.append_embeddings("s", [name], np.full((1, 4), 0.5, np.float32))
                total = str(int(held[0]) + 1 if held else 1)
                rows = pa.table({"subject": ["count"], "outcome": [total]})
                run.replace("decisions", rows, "subject == 'count'")
                run.commit()
            done += 1
        except StaleRead:
            continue  # another writer came first: read again


def work(uri: str, catalog: str, steps: int, ready: Connection | None = None) -> None:
    """Do what is left of a job: a stage's run for each step, and a compaction after every third."""
    lake = Lake.open(uri, catalog=catalog, loop="test")
    if ready is not None:
        ready.send("ready")
    for step in range(steps):
        known = lake.read("files")["uri"].to_pylist()
        if f"{step}-0" not in known:
            names = [f"{step}-{i}" for i in range(5)]
            with lake.run(stage="step", round_id="0000", run_id="r") as run:
                rows = {"uri": names, "state": ["skipped"] * 5, "found_at": [THEN] * 5}
                run.append("files", pa.table(rows))
                run.append_embeddings("s", names, np.full((5, 4), 0.5, np.float32))
                decided = pa.table(
                    {"subject": [f"step {step}", "newest"], "decided_at": [THEN] * 2}
                )
                run.replace("decisions", decided, f"subject in ('newest', 'step {step}')")
                run.commit(counts={"in": 5, "skipped": 5})
        if step % 3 == 2:
            compact(lake, min_files=2)
