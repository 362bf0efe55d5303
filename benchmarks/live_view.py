"""The live view's index: a filter, an order and a page of images, beside DuckDB on the same rows.

A lake of a million samples (a hundred thousand with ``--quick``) with labels, predictions, flags,
checks and metadata is written, and read into the index as `visionloop report --serve` does. The
peer is DuckDB, with all its threads, asked per request over one Parquet file that holds the same
columns, joined and sorted beforehand, in the page cache: what a page without an index would do at
its best. Both count all matching images and return the 60 of one page with every column. Times are
the median of some requests; ours remember no earlier result, and an order is computed anew where
the case says so.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from starlette.datastructures import QueryParams

from benchmarks._rows import Row, arguments, report
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.live.asking import Finder, asked_of, facets
from visionloop.monitoring.live.building import build_index
from visionloop.monitoring.live.index import Index

START = datetime(2026, 11, 1, tzinfo=UTC)
REPEATS = 7
# A name, what is asked of the live view, and the same in SQL.
CASES = (
    ("all, page 1", "", "true", "row"),
    ("one class, page 1", "column=label&op=eq&value=class+7", "label = 'class 7'", "row"),
    (
        "a flag and little confidence, least sure first",
        "column=flags&op=eq&value=dark&column=confidence&op=lt&value=0.3&sort=confidence",
        "list_contains(string_split(flags, ', '), 'dark') and confidence < 0.3",
        "confidence, row",
    ),
    (
        "a part of a place, page 100",
        "column=uri&op=contains&value=camera-3/&page=100",
        "contains(lower(uri), 'camera-3/')",
        "row",
    ),
    (
        "metadata of a kind and a day",
        "column=metadata.weather&op=ne&value=rain&column=captured_at&op=eq&value=2026-11-03",
        "metadata_weather is distinct from 'rain' and captured_at >= '2026-11-03 00:00:00+00' "
        "and captured_at < '2026-11-04 00:00:00+00'",
        "row",
    ),
)


def typed(table: str, columns: dict[str, Any]) -> pa.Table:
    """Return rows with the types of a table of the lake."""
    schema = arrow_schema(table)
    return pa.table({name: pa.array(held).cast(schema.field(name).type)
                     for name, held in columns.items()})  # fmt: skip


def write_lake(folder: Path, n: int) -> Lake:
    """Write a lake of n samples, a third of them labelled and a tenth flagged."""
    rng = np.random.Generator(np.random.PCG64(0))
    lake = Lake.open(str(folder / "lake"), loop="bench")
    ids = pa.array([f"{value:064x}" for value in rng.permutation(n)])
    cameras = rng.integers(0, 8, n)
    uris = pa.array([f"gs://bucket/camera-{c}/{i:09}.jpg" for i, c in enumerate(cameras)])
    moments = pa.array(
        np.datetime64("2026-11-01T00:00:00") + np.arange(n) % 2_592_000, pa.timestamp("us")
    )
    moments = moments.cast(pa.timestamp("us", tz="UTC"))
    labelled, flagged = np.flatnonzero(rng.random(n) < 0.33), np.flatnonzero(rng.random(n) < 0.1)
    classes = pa.array([f"class {c}" for c in range(20)])
    some = lambda size: classes.take(pa.array(rng.integers(0, 20, size)))  # noqa: E731
    now = pa.repeat(pa.scalar(START, pa.timestamp("us", tz="UTC")), n)
    with lake.run(stage="bench", round_id="0000") as run:
        run.append("samples", typed("samples", {
            "sample_id": ids, "uri": uris, "source_uri": uris, "width": np.full(n, 1920),
            "height": np.full(n, 1080), "format": ["JPEG"] * n, "captured_at": moments,
            "ingested_at": moments, "source": ["gs://bucket"] * n,
            "split": np.where(rng.random(n) < 0.1, "holdout", "pool"),
            "sharpness": rng.random(n), "brightness": rng.random(n), "contrast": rng.random(n),
            "size": rng.integers(10**5, 10**6, n), "color_mode": ["rgb"] * n,
        }))  # fmt: skip
        run.append("labels", typed("labels", {
            "sample_id": ids.take(pa.array(labelled)), "label": some(len(labelled)),
            "origin": ["oracle"] * len(labelled), "annotator": ["oracle"] * len(labelled),
            "created_at": now.slice(0, len(labelled)),
        }))  # fmt: skip
        run.append("predictions", typed("predictions", {
            "sample_id": ids, "model_id": ["m-1"] * n, "label": some(n),
            "confidence": rng.random(n), "predicted_at": now,
        }))  # fmt: skip
        run.append("flags", typed("flags", {
            "subject": ids.take(pa.array(flagged)), "subject_type": ["sample"] * len(flagged),
            "kind": np.array(["dark", "blurred", "outlier"])[rng.integers(0, 3, len(flagged))],
            "flagged_at": now.slice(0, len(flagged)),
        }))  # fmt: skip
        run.append("checks", typed("checks", {
            "subject": ids, "generation": [""] * n, "state": ["ok"] * n, "checked_at": now,
        }))  # fmt: skip
        weather = np.array(["rain", "sun", "fog"])[rng.integers(0, 3, n)]
        run.append("metadata", pa.table({
            "sample_id": ids, "raw": ["{}"] * n, "weather": weather, "latitude": rng.random(n) * 90,
        }))  # fmt: skip
        run.append("experiments", typed("experiments", {
            "model_id": ["m-1"], "arm": ["loop"], "trained_at": now.slice(0, 1),
        }))  # fmt: skip
        run.commit()
    return lake


def median(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median of the milliseconds that work takes, and what it returned last."""
    took, answer = [], None
    for _ in range(REPEATS):
        began = time.perf_counter()
        answer = work()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took), answer


def ours(index: Index, query: str) -> tuple[int, list[str]]:
    """Return the number of matching images and the ids of the page, with no result remembered."""
    asked = asked_of(QueryParams(query), index)
    found = Finder().find(index, asked)
    return found.matching, [row["sample_id"] for row in index.rows(found.rows)]


def peer(database: Any, file: Path, where: str, order: str, page: int) -> tuple[int, list[str]]:
    """Return the same, asked of DuckDB: one pass counts, one returns the page."""
    source = f"read_parquet('{file}')"
    counted = database.sql(f"select count(*) from {source} where {where}").fetchall()
    query = f"select * from {source} where {where} order by {order}"
    rows = database.sql(f"{query} limit 60 offset {60 * (page - 1)}").to_arrow_table()
    return int(counted[0][0]), rows["sample_id"].to_pylist()


def main() -> None:
    """Measure and print."""
    told = arguments(__doc__)
    import duckdb

    n = 100_000 if told.quick else 1_000_000
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lake = write_lake(folder, n)
        began = time.perf_counter()
        index = build_index(lake, lake.version())
        built = time.perf_counter() - began
        print(
            f"{n:,} images: index read in {built:.1f} s, {index.nbytes / 2**20:.0f} MiB "
            f"({index.nbytes / n:.0f} bytes an image)",
            file=sys.stderr,
        )
        took, _ = median(lambda: facets(index, None, list(index.columns), 10))
        print(f"counts of every column of texts, over all: {took:.0f} ms", file=sys.stderr)
        flat = index.table.rename_columns([c.replace(".", "_") for c in index.table.column_names])
        file = folder / "wide.parquet"
        pq.write_table(flat.append_column("row", pa.array(np.arange(n))), file)
        database = duckdb.connect()
        peer_name = f"DuckDB {duckdb.__version__} over Parquet"
        for case, query, where, order in CASES:
            page = 100 if "page=100" in query else 1
            first = "sort=" in query
            if first:
                began = time.perf_counter()
                index.order("confidence", False)
                print(
                    f"order of a column, once a version: {time.perf_counter() - began:.2f} s",
                    file=sys.stderr,
                )
            mine, answer = median(lambda query=query: ours(index, query))
            theirs, expected = median(
                lambda where=where, order=order, page=page: peer(database, file, where, order, page)
            )
            if answer != expected:
                raise SystemExit(f"{case}: {answer[0]} and {expected[0]} images, or other pages")
            rows.append(Row(f"{case} ({answer[0]:,} of {n:,})", mine, peer_name, theirs, "ms", 1.0))
    report("live_view", rows, as_json=told.json)


if __name__ == "__main__":
    main()
