"""A lake that is ready to ask people."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.labeling.file_tool import PROVIDER, Desk
from visionloop.lake import Lake
from visionloop.stages.collect_labels import CollectLabelsOutputs, collect_labels
from visionloop.stages.request_labels import RequestLabelsOutputs, request_labels

HOLDOUT = ["y" * 64, "z" * 64]


class Asking:
    """A loop whose first round has picked, and whose people sit at a desk."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.desk = lake, Desk(lake)
        self.images = Path(lake.uri.removeprefix("file://") + "-images")
        self.images.mkdir()
        self.labeling: dict[str, Any] = {"provider": PROVIDER}

    def config(self, **labeling: Any) -> str:
        told: dict[str, Any] = {
            "name": self.lake.loop,
            "lake": self.lake.uri,
            "classes": ["cat", "dog"],
        }
        told |= {"sources": [{"uri": str(self.images)}]}
        return json.dumps(told | {"labeling": self.labeling | labeling})

    def request(self, **labeling: Any) -> RequestLabelsOutputs:
        self.labeling |= labeling
        return request_labels(config=self.config())

    def collect(self, round_id: str = "", **more: Any) -> CollectLabelsOutputs:
        return collect_labels(config=self.config(), round_id=round_id, **more)

    def counts(self) -> dict[str, int]:
        rows = self.lake.stage_runs(where="stage == 'collect_labels'").sort_by("sequence")
        counts: dict[str, int] = json.loads(rows.to_pylist()[-1]["counts"])
        whole = sum(counts[name] for name in ("ok", "skipped", "missing", "conflicts", "recalled"))
        assert counts["in"] == whole
        kinds = ("used", "passed", "drafts", "rejected")
        assert counts["annotations"] == sum(counts[name] for name in kinds)
        return counts

    def labels(self) -> dict[str, str]:
        from visionloop.labeling.answers import latest_labels

        found = latest_labels(self.lake.read("labels").to_pylist(), "classification")
        return {sample[0]: label for sample, label in found.items()}

    def state(self) -> str:
        held = self.lake.rounds.get("0000")
        assert held is not None
        return held.state


@pytest.fixture
def asking(lake: Lake) -> Asking:
    """Return a loop with six picks, a to f, and two samples of the holdout, y and z."""
    opened = lake.rounds.open("run")
    ids = [letter * 64 for letter in "abcdefghyz"]
    uris = [f"file:///data/{sample[0]}.png" for sample in ids]
    with lake.run(stage="ingest", round_id=opened.round_id) as run:
        run.append("files", pa.table({"uri": uris, "sample_id": ids, "state": ["ok"] * 10}))
        columns = {"sample_id": ids, "uri": uris, "split": ["pool"] * 8 + ["holdout"] * 2}
        run.append("samples", pa.table(columns | {"width": [32] * 10, "height": [24] * 10}))
        run.append("metadata", pa.table({"sample_id": ids[:1], "raw": ['{"camera": "north"}']}))
        arms = ["selected"] * 5 + ["random"]
        told = ['{"least_confidence": 0.9}'] * 5 + ["{}"]
        picks = {"sample_id": ids[:6], "rank": range(6), "arm": arms, "objectives": told}
        run.append("selections", pa.table(picks))
        model = {"model_id": "m1", "arm": "loop", "state": "in_service", "classes": ["cat", "dog"],
                 "trained_at": datetime.now(UTC), "training_set": "s"}  # fmt: skip
        run.append("experiments", pa.Table.from_pylist([model]))
        said = [
            {"sample_id": s, "model_id": "m1", "label": "dog", "confidence": 0.75,
             "probabilities": [0.25, 0.75]}
            for s in ids
        ]  # fmt: skip
        run.append("predictions", pa.Table.from_pylist(said))
        run.commit()
    return Asking(lake)


@pytest.fixture
def answered(asking: Asking) -> Callable[..., Asking]:
    """Return what asks, and has alice answer the samples that are named by a letter."""

    def answer(labels: str = "", **labeling: Any) -> Asking:
        asking.request(**labeling)
        for pair in labels.split():
            asking.desk.answer(pair[0] * 64, {"c": "cat", "d": "dog"}[pair[1]])
        return asking

    return answer
