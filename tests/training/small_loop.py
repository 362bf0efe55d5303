"""A small loop on real digits in a lake of its own: ingested, labelled, ready to train."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_digits

from visionloop.lake import Lake
from visionloop.stages.ingest import ingest

N_IMAGES = 120


@dataclass
class Folder:
    """A task's artifact: a path, and what was logged to it."""

    path: str
    uri: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)

    def log_metric(self, metric: str, value: float) -> None:
        assert isinstance(value, float) and np.isfinite(value)
        self.logged[metric] = value

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        assert all(len(row) == len(categories) for row in matrix)
        self.logged["confusion"] = (categories, matrix)


class SmallLoop:
    """The loop's configuration, lake and true labels."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        pixels, labels = load_digits(return_X_y=True)
        truth = []
        for i in range(N_IMAGES):
            name = f"{i:04d}.png"
            image = (pixels[i].reshape(8, 8) * 15.9).astype(np.uint8)
            Image.fromarray(image).resize((24, 24)).save(self.images / name)
            (self.images / f"{name}.json").write_text(
                json.dumps({"camera": "north" if i % 3 else "south", "lux": i})
            )
            truth.append((name, str(labels[i])))
        with (folder / "truth.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *truth])
        settings: dict[str, Any] = {
            "name": "small",
            "lake": str(folder / "lake"),
            "classes": [str(i) for i in range(10)],
            "sources": [{"uri": str(self.images)}],
            "holdout": {"fraction": 0.3},
            "labeling": {"provider": "oracle", "labels": str(folder / "truth.csv")},
            "training": {"epochs": 1, "min_updates": 30, "calibrate": False},
        }
        self.settings = settings | {
            name: value if isinstance(value, list) else settings.get(name, {}) | value
            for name, value in sections.items()
        }
        self.lake = Lake.open(settings["lake"], loop="small")
        ingest(config=self.config, round_id="0000", run_id="r", open_round=True)
        self.truth = self._truth()

    @property
    def config(self) -> str:
        return json.dumps(self.settings)

    def changed(self, section: str, **values: Any) -> str:
        """Return the configuration with other values in one section."""
        return json.dumps(self.settings | {section: self.settings.get(section, {}) | values})

    def _truth(self) -> dict[str, str]:
        from visionloop.config import load_config
        from visionloop.labeling.oracle import open_oracle

        oracle = open_oracle(load_config(self.config), self.lake)
        return oracle.labels(self.split("pool") + self.split("holdout"))

    def split(self, name: str) -> list[str]:
        rows = self.lake.read("samples", columns=["sample_id"], where=f"split == '{name}'")
        return sorted(rows["sample_id"].to_pylist())

    def label(self, sample_ids: list[str], **changed: str) -> str:
        """Write true labels, or those given by sample id, and return the version."""
        rows = [
            {
                "sample_id": sample_id,
                "task": "classification",
                "label": changed.get(sample_id, self.truth[sample_id]),
                "annotator": "test",
                "origin": "oracle",
                "created_at": datetime.now(UTC),
            }
            for sample_id in sample_ids
        ]
        from visionloop.lake.schemas import arrow_schema

        with self.lake.run(stage="collect_labels") as run:
            run.append("labels", pa.Table.from_pylist(rows, schema=arrow_schema("labels")))
            return run.commit()

    def experiment(self, model_id: str) -> dict[str, Any]:
        rows = self.lake.read("experiments", where=f"model_id == '{model_id}'").to_pylist()
        assert len(rows) == 1
        return dict(rows[0])

    def serve(self, model_id: str) -> str:
        """Do what publish does to the table `experiments`."""
        from visionloop.lake.schemas import arrow_schema

        row = self.experiment(model_id) | {"state": "in_service"}
        with self.lake.run(stage="publish") as run:
            rows = pa.Table.from_pylist([row], schema=arrow_schema("experiments"))
            run.replace("experiments", rows, f"model_id == '{model_id}'")
            run.set_round(state="done", outcome="published")
            return run.commit()

    def retire(self, model_id: str) -> None:
        """Do what publish does to the model that served before."""
        from visionloop.lake.schemas import arrow_schema

        row = self.experiment(model_id) | {"state": "retired"}
        with self.lake.run(stage="publish") as run:
            rows = pa.Table.from_pylist([row], schema=arrow_schema("experiments"))
            run.replace("experiments", rows, f"model_id == '{model_id}'")
            run.commit()

    def artifact(self, name: str) -> Folder:
        return Folder(str(self.folder / "artifacts" / name))

    def counts(self) -> dict[str, int]:
        """Return the rows of every table: what must not change when a task is run again."""
        names = ["predictions", "experiments", "training_sets", "flags", "decisions", "labels"]
        found = {name: self.lake.read(name).num_rows for name in names}
        for space in self.lake.spaces():
            found[space] = len(self.lake.embeddings(space)[0])
        return found
