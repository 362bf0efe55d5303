"""A small lake to select from: samples with embeddings, models with predictions, labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ["cat", "dog", "owl"]


def ids(n: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{i:04d}" + "0" * (60 - len(prefix)) for i in range(n)]


def vectors(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def put(lake: Lake, table: str, rows: Sequence[dict[str, Any]], round_id: str = "0000") -> None:
    with lake.run(stage="test", round_id=round_id) as run:
        run.append(table, pa.Table.from_pylist(list(rows), schema=arrow_schema(table)))
        run.commit()


def fill(lake: Lake, n: int = 30, holdout: int = 3, space: str = "pixels") -> list[str]:
    """Write a pool and a holdout with embeddings; the holdout's first picture is also pool 2."""
    rng = np.random.default_rng(1)
    names, frozen = ids(n), ids(holdout, "f")
    prints = [rng.bytes(32) for _ in range(n + holdout)]
    if n > 2 and holdout:
        prints[2] = prints[n]
    put(
        lake,
        "samples",
        [
            {
                "sample_id": name,
                "split": "pool" if name in set(names) else "holdout",
                "fingerprint": prints[i],
                "sharpness": float(i),
                "ingested_at": NOW,
            }
            for i, name in enumerate([*names, *frozen])
        ],
    )
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings(space, [*names, *frozen], vectors(n + holdout))
        run.commit(outputs={"space": space})
    return names


def deploy(lake: Lake, names: list[str]) -> None:
    common = {"arm": "loop", "classes": CLASSES, "uri": "", "trained_at": NOW}
    put(
        lake,
        "experiments",
        [
            {"model_id": "m1", "state": "in_service", **common},
            {"model_id": "m0", "state": "retired", **common, "trained_at": NOW + timedelta(days=1)},
            {"model_id": "c1", "state": "in_service", **common, "arm": "random"},
        ],
    )
    p = np.random.default_rng(3).dirichlet(np.ones(3), size=len(names)).astype(np.float32)
    put(
        lake,
        "predictions",
        [
            {"sample_id": name, "model_id": model, "probabilities": [float(v) for v in row]}
            for model in ("m1", "m0")
            for name, row in zip(names, p if model == "m1" else p[::-1], strict=True)
        ],
    )


def label(lake: Lake, names: Sequence[str]) -> None:
    put(lake, "labels", [{"sample_id": s, "label": "cat", "created_at": NOW} for s in names])
