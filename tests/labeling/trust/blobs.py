"""Samples of a few classes whose embeddings lie around a centre each, and labels with errors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.selection.small_lake import put
from visionloop.config import LoopConfig, load_config
from visionloop.lake import Lake

CLASSES = ["cat", "dog", "owl"]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Blobs:
    """Made samples.

    Attributes:
        ids: n sample ids.
        x: float32 [n, 8], of length 1.
        truth: int64 [n].
        given: int64 [n], with errors.
    """

    ids: list[str]
    x: np.ndarray
    truth: np.ndarray
    given: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        return np.asarray(self.truth != self.given)


def blobs(n: int = 200, rate: float = 0.1, seed: int = 0, spread: float = 0.35) -> Blobs:
    rng = np.random.default_rng(seed)
    centres = np.eye(8)[:3]
    truth = rng.integers(0, 3, n)
    x = centres[truth] + spread * rng.normal(size=(n, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = truth.copy()
    flipped = rng.choice(n, round(rate * n), replace=False)
    given[flipped] = (truth[flipped] + rng.integers(1, 3, len(flipped))) % 3
    names = [hashlib.sha256(f"{seed} {i}".encode()).hexdigest() for i in range(n)]
    return Blobs(names, x.astype(np.float32), truth.astype(np.int64), given.astype(np.int64))


def loop_of(root: Path, **trust: Any) -> LoopConfig:
    text = {
        "name": "blobs",
        "lake": str(root / "lake"),
        "classes": CLASSES,
        "sources": [{"uri": str(root)}],
        "labeling": {"trust": trust},
    }
    return load_config(json.dumps(text))


def lake_of(root: Path, made: Blobs, *, holdout: int = 0, unlabelled: int = 0) -> Lake:
    """Write a lake whose last samples have no label, and of whose others the first are holdout."""
    lake = Lake.open(str(root / "lake"), loop="blobs")
    rng = np.random.default_rng(1)
    put(
        lake,
        "samples",
        [
            {
                "sample_id": sample,
                "split": "holdout" if i < holdout else "pool",
                "fingerprint": rng.bytes(32),
                "ingested_at": NOW,
            }
            for i, sample in enumerate(made.ids)
        ],
    )
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("base", made.ids, made.x)
        run.commit(outputs={"space": "base"})
    label(lake, made, range(len(made.ids) - unlabelled))
    return lake


def label(
    lake: Lake, made: Blobs, rows: Any, origin: str = "import", round_id: str = "0000"
) -> None:
    put(
        lake,
        "labels",
        [
            {
                "sample_id": made.ids[i],
                "task": "classification",
                "label": CLASSES[made.given[i]],
                "annotator": origin,
                "origin": origin,
                "created_at": NOW,
            }
            for i in rows
        ],
        round_id,
    )


def answer(lake: Lake, *said: tuple[str, str, str], round_id: str = "0000") -> None:
    """Write what people said of samples: sample, person, label."""
    rows = [
        {
            "sample_id": sample,
            "provider": "tool",
            "external_id": f"{name} {sample[:6]}",
            "annotator": name,
            "state": "done",
            "task": "classification",
            "label": label,
            "created_at": NOW,
            "updated_at": NOW,
        }
        for sample, name, label in said
    ]
    put(lake, "annotations", rows, round_id)
