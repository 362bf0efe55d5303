"""What a monitor estimates of deployed models lies in the lake, on its page and in the report."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.artifacts import Metrics, artifact, sourceless
from visionloop.lake import Lake
from visionloop.monitoring.report.build import build_report
from visionloop.monitoring.report.load import load_report
from visionloop.stages.monitor import monitor

CLASSES = ["cat", "dog", "owl"]
SPACE = "model_m_1"
NOW = pa.scalar(datetime(2026, 11, 22, tzinfo=UTC), pa.timestamp("us", tz="UTC"))


class Deployed:
    """A lake with a model in service: 300 samples of a holdout, 600 of a pool."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        draw = np.random.Generator(np.random.PCG64(7))
        self.p = draw.dirichlet(np.full(3, 0.25), 900)
        self.truth = [CLASSES[draw.choice(3, p=row)] for row in self.p]
        said = np.maximum(self.p, 1e-6) ** 2.5  # twice as sure as it should be
        self.said = (said / said.sum(axis=1, keepdims=True)).astype(np.float32)
        self.ids = [f"{i:064x}" for i in range(900)]
        self.vectors = draw.normal(size=(900, 8)).astype(np.float32)
        self.config = sourceless(lake, CLASSES)
        self.put("ingest", "0000", samples={
            "sample_id": self.ids,
            "uri": [f"file:///gone/{i}.png" for i in range(900)],
            "split": ["holdout"] * 300 + ["pool"] * 600,
        }, labels={
            "sample_id": self.ids[:300],
            "label": self.truth[:300],
            "created_at": [NOW] * 300,
        }, experiments={
            "model_id": ["m-1"], "arm": ["loop"], "classes": [CLASSES], "state": ["in_service"],
        })  # fmt: skip
        with lake.run(stage="infer", round_id="0000") as run:
            run.append("predictions", pa.table({
                "sample_id": self.ids,
                "model_id": ["m-1"] * 900,
                "label": [CLASSES[i] for i in self.said.argmax(axis=1)],
                "confidence": self.said.max(axis=1),
                "probabilities": list(self.said),
            }))  # fmt: skip
            run.append_embeddings(SPACE, self.ids, self.vectors)
            run.commit(outputs={"space": SPACE, "model_id": "m-1", "model_space": SPACE})

    def put(self, stage: str, round_id: str, **tables: dict[str, list[Any]]) -> None:
        with self.lake.run(stage=stage, round_id=round_id) as run:
            for name, columns in tables.items():
                run.append(name, pa.table(columns))
            run.commit()

    def harvest(self, round_id: str, rows: Any, *, linked: bool = True) -> None:
        said = self.said[rows]
        n = len(said)
        self.put("harvest", round_id, confidences={
            "event_id": [f"{round_id}-{i}" for i in range(n)],
            "endpoint": ["pets"] * n,
            "model_id": ["m-1"] * n,
            "sample_id": [self.ids[i] if linked else None for i in rows],
            "label": [CLASSES[i] for i in said.argmax(axis=1)],
            "confidence": said.max(axis=1).tolist(),
            "probabilities": list(said),
        })  # fmt: skip

    def estimates(self, method: str, label: str | None = None) -> list[dict[str, Any]]:
        rows = self.lake.read("estimates").to_pylist()
        return [row for row in rows if row["method"] == method and row["label"] == label]

    def accuracy(self, rows: Any) -> float:
        return float(np.mean([CLASSES[self.said[i].argmax()] == self.truth[i] for i in rows]))


@pytest.fixture
def deployed(lake: Lake) -> Deployed:
    return Deployed(lake)


def test_the_accuracy_of_a_window_lies_in_the_lake_and_is_written_once(
    deployed: Deployed, tmp_path: Path
) -> None:
    rows = np.arange(300, 700)
    deployed.harvest("0001", rows)
    metrics, page = Metrics(), artifact(tmp_path / "page.md")
    first = monitor(config=deployed.config, round_id="0001", metrics=metrics, page=page)
    (said,) = deployed.estimates("confidences")
    truth = deployed.accuracy(rows)
    assert (said["endpoint"], said["model_id"], said["state"]) == ("pets", "m-1", "answered")
    assert (said["harvested_in_round"], said["n"], said["round_id"]) == ("0001", 400, "0001")
    assert said["low"] <= truth <= said["high"]
    evidence = json.loads(said["evidence"])
    assert evidence["judged_by"] == "embeddings"
    assert abs(said["value"] - truth) < abs(evidence["uncalibrated"] - truth)
    assert {row["label"] for row in deployed.lake.read("estimates").to_pylist()} == {None, *CLASSES}
    assert metrics.values["accuracy_by_confidences pets m-1"] == said["value"]
    assert (
        f"| pets | m-1 | confidences | all | {said['value']:.1%} |" in Path(page.path).read_text()
    )

    again = monitor(config=deployed.config, round_id="0001")
    assert again.lake_version == first.lake_version
    shown = build_report(deployed.lake)
    assert f"Confidences promise <b>{said['value']:.1%}</b> accuracy" in shown


def test_a_window_elsewhere_gets_no_number_anywhere(deployed: Deployed, tmp_path: Path) -> None:
    far = [f"{i:064x}" for i in range(900, 1100)]
    deployed.ids += far
    deployed.said = np.concatenate([deployed.said, deployed.said[300:500]])
    deployed.put("ingest", "0001", samples={"sample_id": far, "uri": [""] * 200,
                                            "split": ["pool"] * 200})  # fmt: skip
    with deployed.lake.run(stage="infer", round_id="0001") as run:
        run.append_embeddings(SPACE, far, deployed.vectors[300:500] + np.float32(8))
        run.commit(outputs={"space": SPACE, "model_id": "m-1", "model_space": SPACE})
    deployed.harvest("0001", np.arange(900, 1100))
    metrics = Metrics()
    monitor(config=deployed.config, round_id="0001", metrics=metrics)
    (said,) = deployed.estimates("confidences")
    assert (said["value"], said["low"], said["state"]) == (None, None, "refused")
    assert said["reason"].startswith("100% of the images lie outside")
    assert metrics.values["n_estimates_refused"] == 2  # nor are there labels of random picks
    assert not any(name.startswith("accuracy_by_confidences") for name in metrics.values)
    (window,) = load_report(deployed.lake).windows
    assert window.expected is None and window.refused == said["reason"]
    assert "look different, against the holdout" in " ".join(window.flags)
    flags = deployed.lake.read("flags", where="subject_type == 'endpoint'")
    kinds = set(flags["kind"].to_pylist())
    assert kinds == {"embedding_drift"}
    assert "Confidences promise nothing: 100% of the images" in build_report(deployed.lake)


def test_an_image_that_is_asked_again_makes_no_window_surer(deployed: Deployed) -> None:
    widths = {}
    for round_id, rows in (
        ("0001", np.arange(300, 420)),
        ("0002", np.repeat(np.arange(300, 420), 10)),
    ):
        deployed.harvest(round_id, rows)
        monitor(config=deployed.config, round_id=round_id)
        found = deployed.estimates("confidences")
        (said,) = (row for row in found if row["harvested_in_round"] == round_id)
        evidence = json.loads(said["evidence"])
        assert (said["n"], evidence["n_images"]) == (len(rows), 120)
        widths[round_id] = said["high"] - said["low"]
    assert widths["0002"] == pytest.approx(widths["0001"])
    flags = deployed.lake.read("flags", where="subject_type == 'endpoint'")
    assert not flags.num_rows


def test_images_that_the_lake_does_not_have_are_judged_by_their_probabilities(
    deployed: Deployed,
) -> None:
    deployed.harvest("0001", np.arange(300, 700), linked=False)
    monitor(config=deployed.config, round_id="0001")
    (said,) = deployed.estimates("confidences")
    assert said["state"] == "answered"
    assert json.loads(said["evidence"])["judged_by"] == "probabilities"


def test_labels_of_random_picks_tell_the_accuracy_of_production(
    deployed: Deployed, tmp_path: Path
) -> None:
    draw = np.random.Generator(np.random.PCG64(3))
    rows = np.arange(300, 900)
    deployed.harvest("0001", rows)
    deployed.harvest("0001", rows[:200], linked=False)
    picked = draw.choice(rows, 60, replace=False)
    sure = deployed.said.max(axis=1)
    doubtful = sorted(set(rows) - set(picked), key=lambda i: sure[i])[:60]
    both = [*picked, *doubtful]
    deployed.put("select", "0001", selections={
        "sample_id": [deployed.ids[i] for i in both],
        "arm": ["random"] * 60 + ["selected"] * 60,
        "propensity": [0.1] * 60 + [1.0] * 60,
    }, labels={
        "sample_id": [deployed.ids[i] for i in both],
        "label": [deployed.truth[i] for i in both],
        "created_at": [NOW] * 120,
    })  # fmt: skip
    page = artifact(tmp_path / "page.md")
    monitor(config=deployed.config, round_id="0001", page=page)
    (said,) = deployed.estimates("random_picks")
    assert (said["state"], said["n"], said["harvested_in_round"]) == ("answered", 60, "")
    assert said["value"] == pytest.approx(deployed.accuracy(picked))
    assert said["low"] <= deployed.accuracy(rows) <= said["high"]
    # What the lake does not know is told of as well.
    assert json.loads(said["evidence"])["covered"] == pytest.approx(600 / 800)
    assert "of 75% of 800 inferences" in Path(page.path).read_text()
    assert f"random picks say <b>{said['value']:.1%}</b>" in build_report(deployed.lake)


def test_a_model_of_nobody_is_refused(deployed: Deployed) -> None:
    deployed.harvest("0001", np.arange(300, 700))
    with deployed.lake.run(stage="evaluate", round_id="0001") as run:
        run.replace("experiments", run.read("experiments").slice(0, 0), "model_id == 'm-1'")
        run.commit()
    monitor(config=deployed.config, round_id="0001")
    (said,) = deployed.estimates("confidences")
    assert said["reason"] == "the model is not one of this loop's"


def test_drift_of_an_endpoint_stands_through_a_small_harvest_and_falls_with_its_model(
    deployed: Deployed,
) -> None:
    sure = deployed.said.max(axis=1)
    least_sure = 300 + np.argsort(sure[300:])[:200]

    def flags(round_id: str) -> dict[str, dict[str, Any]]:
        monitor(config=deployed.config, round_id=round_id)
        rows = deployed.lake.read("flags", where="subject_type == 'endpoint'").to_pylist()
        return {row["kind"]: row for row in rows}

    deployed.harvest("0001", least_sure)
    began = flags("0001")["confidence_drift"]
    told = json.loads(began["evidence"])
    assert told["reference"] == "what the model says of its frozen holdout (300 images)"
    assert told["images"] == [deployed.ids[i] for i in least_sure[:6]]
    (compared,) = told["comparisons"]
    assert (compared["against"], compared["model_id"]) == ("holdout", "m-1")
    deployed.harvest("0002", least_sure[:5])
    still = flags("0002")["confidence_drift"]
    assert (still["flagged_at"], still["round_id"]) == (began["flagged_at"], "0001")
    with deployed.lake.run(stage="rollback", round_id="0002") as run:
        gone = {"model_id": ["m-1"], "arm": ["loop"], "classes": [CLASSES], "state": ["retired"]}
        run.replace("experiments", pa.table(gone), "model_id == 'm-1'")
        run.commit()
    assert not flags("0002")
