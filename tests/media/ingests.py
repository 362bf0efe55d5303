"""A folder with everything that an ingest may meet, and what a lake holds of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.media.pictures import encoded, photograph
from visionloop.lake import Lake

TABLES = ("files", "samples", "thumbnails", "metadata", "labels", "flags")
# When, and by whom: all else of a lake's rows is told by what was ingested.
OF_A_RUN = {"found_at", "ingested_at", "flagged_at", "created_at", "run_id"}


def fill(folder: Path, n: int = 60) -> None:
    """Write pictures in folders of classes: some twice, some broken, some with sidecars."""
    for number in range(n):
        place = folder / ("cat" if number % 3 else "dog") / f"{number:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(photograph(40, 32, number - number % 7 if number % 7 == 3 else number))
        place.write_bytes(data[: len(data) // 2] if number % 11 == 5 else data)
        if number % 4 == 0:
            told: dict[str, Any] = {"camera": f"c{number % 5}", "iso": number}
            if number == 8:
                told["iso"] = "auto"
            place.with_suffix(".json").write_text(json.dumps(told))
    (folder / "notes.txt").write_text("no picture")


def settings(folder: Path, lake: str, **changed: Any) -> str:
    """Return a configuration of that folder with small shards."""
    told: dict[str, Any] = {
        "name": "test",
        "lake": str(folder.parent / lake),
        "sources": [{"uri": str(folder), "labels": "folder"}],
        "classes": ["cat", "dog"],
        "holdout": {"fraction": 0.2, "min_samples": 8, "group_by": "camera"},
        "cluster": {"inline_samples": 5, "shard_size": 24},
    }
    return json.dumps(told | changed)


def held(lake: Lake) -> dict[str, list[str]]:
    """Return every row of what an ingest writes, as text, in an order of its own."""
    found = {}
    for table in TABLES:
        rows = lake.read(table).to_pylist()
        found[table] = sorted(
            str({k: v for k, v in sorted(row.items()) if k not in OF_A_RUN}) for row in rows
        )
    return found


def in_a_process(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python program."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
