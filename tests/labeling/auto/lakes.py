"""A lake with a model in service, whose answers are right as often as a test says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from tests.labeling.file_tool import PROVIDER, Desk
from visionloop.labeling.answers import latest_answers
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.stages.collect_labels import CollectLabelsOutputs, collect_labels
from visionloop.stages.request_labels import RequestLabelsOutputs, request_labels

CLASSES = ["cat", "dog"]


def sample_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


class Labelled:
    """A loop in its second round: a holdout and some of the pool are labelled, the rest predicted.

    Args:
        lake: An empty lake.
        right: Whether the model is right, by the number of a sample and its confidence.
        pool: Size of the pool; the first of it people have labelled.
        holdout: Size of the holdout, which follows it.
        people: How many of the pool people have labelled.
    """

    def __init__(
        self,
        lake: Lake,
        right: Callable[[int, float], bool],
        *,
        pool: int = 300,
        holdout: int = 300,
        people: int = 60,
    ) -> None:
        self.lake, self.desk = lake, Desk(lake)
        self.auto: dict[str, Any] = {"precision": 0.95, "audit": 0.1}
        self.number = {sample_of(n): n for n in range(pool + holdout)}
        ids = list(self.number)
        self.pool, self.holdout, self.people = ids[:pool], ids[pool:], ids[:people]
        rng = np.random.Generator(np.random.PCG64(7))
        self.truth = dict(zip(ids, rng.choice(CLASSES, len(ids)).tolist(), strict=True))
        # As the lake holds them.
        sure = (1 - 0.4 * rng.random(len(ids))).astype(np.float32)
        self.confidence = dict(zip(ids, sure.tolist(), strict=True))
        opened = lake.rounds.open("run")
        prints = [hashlib.sha256(s.encode()).digest() for s in ids]
        with lake.run(stage="ingest", round_id=opened.round_id) as run:
            columns = {
                "sample_id": ids,
                "uri": [f"file:///nowhere/{s[:8]}.png" for s in ids],
                "split": ["pool"] * pool + ["holdout"] * holdout,
                "fingerprint": pa.array(prints, pa.binary(32)),
            }
            run.append("samples", pa.table(columns))
            run.append("files", pa.table({"uri": columns["uri"], "sample_id": ids,
                                          "state": ["ok"] * len(ids)}))  # fmt: skip
            run.commit()
        self.say(self.people + self.holdout)
        self.serve("m1", right)

    def say(self, ids: list[str], origin: str = "import", **more: Any) -> None:
        """Let people tell the truth of some samples."""
        now = datetime.now(UTC)
        rows = [
            {"sample_id": s, "task": "classification", "label": self.truth[s], "origin": origin,
             "annotator": "ann", "created_at": now} | more
            for s in ids
        ]  # fmt: skip
        self.write("labels", rows)

    def serve(
        self, model: str, right: Callable[[int, float], bool], trained: Iterable[str] = ()
    ) -> None:
        """Put a model into service that has trained on some samples."""
        said = []
        for sample, number in self.number.items():
            sure, truth = self.confidence[sample], self.truth[sample]
            wrong = CLASSES[1 - CLASSES.index(truth)]
            label = truth if right(number, sure) else wrong
            said.append(
                {"sample_id": sample, "model_id": model, "label": label, "confidence": sure}
            )
        row = {"model_id": model, "arm": "loop", "state": "in_service", "classes": CLASSES,
               "trained_at": datetime.now(UTC), "training_set": f"of {model}"}  # fmt: skip
        self.write("training_sets", [{"training_set": f"of {model}", "sample_id": sample}
                                     for sample in sorted(trained)])  # fmt: skip
        self.write("experiments", [row])
        self.write("predictions", said)

    def write(self, table: str, rows: list[dict[str, Any]]) -> None:
        round_id = self.lake.rounds.current().round_id  # type: ignore[union-attr]
        with self.lake.run(stage="test", round_id=round_id) as run:
            run.append(table, pa.Table.from_pylist(rows, schema=arrow_schema(table)))
            run.commit()

    @property
    def config(self) -> str:
        told = {"name": self.lake.loop, "lake": self.lake.uri, "classes": CLASSES}
        return json.dumps(told | {"labeling": {"provider": PROVIDER, "auto_labels": self.auto}})

    def request(self) -> RequestLabelsOutputs:
        return request_labels(config=self.config)

    def collect(self) -> CollectLabelsOutputs:
        return collect_labels(config=self.config)

    def automatic(self) -> dict[str, Any]:
        """Return the rows of automatic labels that count."""
        rows = latest_answers(self.lake.read("labels").to_pylist())
        return {sample: row for sample, row in rows.items() if row["origin"] == "model"}

    def decision(self) -> dict[str, Any]:
        rows = self.lake.read("decisions", where="decision == 'auto_labels'").to_pylist()
        row = max(rows, key=lambda one: one["decided_at"])
        return row | {"inputs": json.loads(row["inputs"])}

    def audits(self) -> list[str]:
        rows = self.lake.read("label_requests", where="purpose == 'audit'")
        return sorted(rows["sample_id"].to_pylist())
