"""Lakes with chosen rows, and a small real loop, for the report's tests."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sample_id(number: int) -> str:
    """Return an id as those of samples are."""
    return f"{number:064x}"


def jpeg(seed: int) -> bytes:
    """Return a small picture."""
    rng = np.random.Generator(np.random.PCG64(seed))
    pixels = (rng.random((6, 8, 3)) * 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


class Rows:
    """Writes rows to a lake as stages do."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake.open(str(folder / "lake"), loop="test")

    def write(
        self,
        stage: str,
        round_id: str = "0000",
        *,
        counts: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        vectors: tuple[str, Sequence[str], np.ndarray] | None = None,
        **tables: Sequence[Mapping[str, Any]],
    ) -> str:
        """Write one version and return it."""
        with self.lake.run(stage=stage, round_id=round_id, run_id="run") as run:
            for name, rows in tables.items():
                schema = pa.schema(
                    [f for f in arrow_schema(name) if f.name not in ("round_id", "run_id")]
                )
                run.append(name, pa.Table.from_pylist([dict(row) for row in rows], schema=schema))
            if vectors is not None:
                space, ids, values = vectors
                run.append_embeddings(space, list(ids), values)
            return run.commit(counts=dict(counts or {}), outputs=dict(outputs or {}))

    def pictures(
        self, numbers: Sequence[int], round_id: str = "0000", *, holdout: Sequence[int] = ()
    ) -> None:
        """Write files, samples, thumbnails and passed checks of some pictures."""
        uris = {n: f"gs://bucket/{round_id}/{n:05d}.jpg" for n in numbers}
        self.write(
            "ingest",
            round_id,
            counts={"in": len(numbers), "ok": len(numbers), "skipped": 0},
            files=[
                {
                    "uri": uris[n],
                    "generation": "1",
                    "state": "ok",
                    "sample_id": sample_id(n),
                    "source": "gs://bucket",
                    "found_at": START,
                }
                for n in numbers
            ],
            samples=[
                {
                    "sample_id": sample_id(n),
                    "uri": uris[n],
                    "split": "holdout" if n in holdout else "pool",
                    "source": "gs://bucket",
                    "ingested_at": START,
                }
                for n in numbers
            ],
            thumbnails=[{"sample_id": sample_id(n), "image": jpeg(n % 7)} for n in numbers],
            checks=[
                {"subject": sample_id(n), "generation": "", "state": "ok", "checked_at": START}
                for n in numbers
            ],
        )

    def embeddings(
        self, numbers: Sequence[int], round_id: str = "0000", *, seed: int = 0, groups: int = 3
    ) -> None:
        """Write embeddings in groups that lie apart."""
        rng = np.random.Generator(np.random.PCG64(seed))
        values = rng.normal(size=(len(numbers), 8)).astype(np.float32)
        values[np.arange(len(numbers)), np.asarray(numbers) % groups] += 12
        self.write(
            "infer",
            round_id,
            outputs={"space": "pixels_test", "source": "pixel descriptor"},
            vectors=("pixels_test", [sample_id(n) for n in numbers], values),
        )

    def flags(self, rows: Sequence[Mapping[str, Any]], round_id: str = "0000") -> None:
        """Write flags."""
        whole = [
            {
                "subject_type": "sample",
                "stage": "monitor",
                "flagged_at": START + timedelta(hours=1),
                **row,
                "evidence": json.dumps(row.get("evidence", {})),
            }
            for row in rows
        ]
        self.write("monitor", round_id, flags=whole)
