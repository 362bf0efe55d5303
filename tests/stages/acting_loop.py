"""A loop with two models in turn in service, and what a watch acts on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.selection.small_lake import put
from tests.serving.conftest import write_bundle
from visionloop.lake import Lake
from visionloop.serving.pointer import pointer_uri, read_pointer
from visionloop.stages.publish import PublishOutputs, publish
from visionloop.stages.watch import WatchOutputs, watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BACK = {"roll_back": {"enabled": True, "max_error_rate": 0}}


class ActingLoop:
    """A loop whose models are small, and whose tables are written row by row."""

    def __init__(self, folder: Path, **watching: Any) -> None:
        self.folder = folder
        (folder / "images").mkdir(exist_ok=True)
        self.lake = Lake.open(str(folder / "lake"), loop="test")
        self.watching = watching
        self.serving: dict[str, Any] = {}

    @property
    def config(self) -> str:
        return json.dumps(
            {
                "name": "test",
                "lake": self.lake.uri,
                "classes": ["even", "odd"],
                "sources": [{"uri": str(self.folder / "images")}],
                "serving": self.serving,
                "watch": {"min_new_samples": 0, "max_days": 0, **self.watching},
            }
        )

    def watch(self, **arguments: Any) -> WatchOutputs:
        return watch(config=self.config, **arguments)

    def candidate(self, model: str) -> str:
        """Train a model in a round of its own, and let it pass its gate; return its bundle."""
        uri = f"file://{write_bundle(self.folder / model, model, seed=len(model))}"
        opened = self.lake.rounds.open("run", take_over=True)
        row = {"model_id": model, "arm": "loop", "state": "passed", "uri": uri, "trained_at": NOW}
        put(self.lake, "experiments", [row], opened.round_id)
        return uri

    def publish(self, model: str) -> PublishOutputs:
        uri = self.candidate(model)
        return publish(config=self.config, model_id=model, model_uri=uri, passed=True)

    def labels_judged(self, ok: int, flagged: int) -> None:
        """Let a monitor have judged labels."""
        with self.lake.run(stage="monitor") as run:
            told = {"in": ok + flagged, "ok": ok, "flagged": flagged, "unchecked": 0}
            run.commit(outputs={"labels": told})

    def random_picks(
        self, round_id: str, n: int, *, better: int, worse: int, first: int = 0
    ) -> None:
        """Label random picks, about some of which only m2 or only m1 is right."""
        names = [f"{round_id}-{i:03d}" for i in range(first, first + n)]
        put(self.lake, "selections", [{"sample_id": s, "arm": "random"} for s in names], round_id)
        rows = [{"sample_id": s, "label": "even", "created_at": NOW} for s in names]
        put(self.lake, "labels", rows, round_id)
        said = [
            {"sample_id": s, "model_id": model, "label": "odd" if wrong else "even"}
            for i, s in enumerate(names)
            for model, wrong in (("m1", i < better), ("m2", better <= i < better + worse))
        ]
        put(self.lake, "predictions", said, round_id)

    def drift(self, *, model: str = "m2", of: str = "test") -> None:
        """Let a flag of drift stand."""
        row: dict[str, Any] = {
            "subject": of,
            "subject_type": "endpoint",
            "kind": "confidence_drift",
            "score": 0.4,
            "threshold": 0.2,
        }
        told = {**row, "against": "holdout", "round_id": "0000", "model_id": model}
        row["evidence"] = json.dumps({"model_id": model, "comparisons": [told]})
        put(self.lake, "flags", [row])

    def decisions(self, *which: str) -> list[tuple[str, str, str]]:
        rows = self.lake.read("decisions").to_pylist()
        rows.sort(key=lambda row: (row["round_id"], row["decided_at"]))
        return [
            (row["decision"], row["outcome"], row["subject"])
            for row in rows
            if row["decision"] in which
        ]

    def states(self) -> dict[str, str]:
        rows = self.lake.read("experiments").to_pylist()
        return {row["model_id"]: row["state"] for row in rows}

    def in_service(self) -> tuple[str, str]:
        held = read_pointer(pointer_uri(self.lake, "test"))
        return (held.model_id, held.previous) if held else ("", "")


def worse_loop(folder: Path) -> ActingLoop:
    """Return a loop whose model in service, m2, is worse than m1 was."""
    loop = ActingLoop(folder, **BACK)
    loop.publish("m1")
    loop.publish("m2")
    loop.random_picks("0002", 80, better=2, worse=30)
    return loop
