"""What a source brings is compared with what it brought before, and told until it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.artifacts import Metrics, artifact, sourceless
from visionloop.lake import Lake
from visionloop.monitoring.arrivals import arrivals, source_names
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.input_drift import PIXELS
from visionloop.stages.monitor import monitor

CLASSES = ["cat", "dog", "owl"]
MODEL = "m-1"
USUAL = {"brightness": 0.5, "contrast": 0.2, "sharpness": 0.1, "saturation": 0.3, "entropy": 7.0}


class Sources:
    """A lake whose sources bring images with known measures, embeddings and predictions."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.draw = np.random.Generator(np.random.PCG64(11))
        self.config = sourceless(lake, CLASSES)
        self.brought: dict[tuple[str, str], list[str]] = {}

    def bring(
        self,
        round_id: str,
        source: str = "gs://pictures/gate",
        *,
        n: int = 200,
        moved: float = 0.0,
        mix: tuple[float, ...] = (0.4, 0.4, 0.2),
        run_id: str = "run",
        **measures: float,
    ) -> list[str]:
        """Let a source bring images: ``moved`` shifts their embeddings, ``mix`` is of classes."""
        number = sum(map(len, self.brought.values()))
        ids = [f"{number + i:064x}" for i in range(n)]
        self.brought.setdefault((source, round_id), []).extend(ids)
        usual = USUAL | measures
        rows = {
            "sample_id": ids,
            "uri": [f"file:///gone/{i}.png" for i in ids],
            "source": [source] * n,
            "split": ["pool"] * n,
            **{
                name: (usual[name] + self.draw.normal(0, USUAL[name] / 10, n)).astype(np.float32)
                for name in PIXELS
            },
        }
        with self.lake.run(stage="ingest", round_id=round_id, run_id=run_id) as run:
            run.append("samples", pa.table(rows))
            run.commit()
        vectors = (self.draw.normal(size=(n, 6)) + moved).astype(np.float32)
        with self.lake.run(stage="infer", round_id=round_id) as run:
            run.append_embeddings("base", ids, vectors)
            run.append("predictions", pa.table({
                "sample_id": ids,
                "model_id": [MODEL] * n,
                "label": [CLASSES[i] for i in self.draw.choice(3, n, p=mix)],
                "confidence": self.draw.uniform(0.4, 1, n).astype(np.float32),
            }))  # fmt: skip
            run.commit(outputs={"space": "base", "model_id": MODEL})
        return ids

    def learn(self, samples: list[str], model_id: str = MODEL) -> None:
        """Put a model in service that learned from some samples."""
        with self.lake.run(stage="train", round_id="0000") as run:
            digest = f"set of {model_id}"
            run.append("training_sets", pa.table({
                "training_set": [digest] * len(samples), "sample_id": samples,
            }))  # fmt: skip
            row = {"model_id": [model_id], "arm": ["loop"], "state": ["in_service"],
                   "training_set": [digest]}  # fmt: skip
            run.replace("experiments", pa.table(row), "arm == 'loop'")
            run.commit()

    def look(self, round_id: str, **artifacts: Any) -> dict[tuple[str, str], dict[str, Any]]:
        """Monitor, and return the flags of drift by subject and kind, with their evidence."""
        monitor(config=self.config, round_id=round_id, **artifacts)
        rows = self.lake.read("flags", where="subject_type == 'source'").to_pylist()
        return {
            (row["subject"], row["kind"]): row | {"told": json.loads(row["evidence"])}
            for row in rows
        }

    def states(self) -> dict[tuple[str, str], str]:
        """Return what the newest monitor said of each source and kind."""
        runs = self.lake.stage_runs(where="stage == 'monitor'").sort_by("sequence").to_pylist()
        said = json.loads(runs[-1]["outputs"])["comparisons"]
        return {(one["subject"], one["kind"]): one["state"] for one in said}


@pytest.fixture
def sources(lake: Lake) -> Sources:
    return Sources(lake)


def test_a_camera_that_darkened_is_flagged_by_name_with_its_darkest_pictures(
    sources: Sources, tmp_path: Path
) -> None:
    sources.bring("0000", n=300)
    sources.bring("0000", "gs://pictures/yard")
    sources.bring("0001", "gs://pictures/yard")
    dark = sources.bring("0001", brightness=0.4)
    metrics, page = Metrics(), artifact(tmp_path / "page.md")
    found = sources.look("0001", metrics=metrics, page=page)
    assert list(found) == [("gate", "pixel_drift")]
    row = found["gate", "pixel_drift"]
    told = row["told"]
    assert (told["measure"], told["unit"]) == ("brightness", "Kolmogorov-Smirnov distance")
    assert told["reference"] == "300 images of gate from round 0, all that came before"
    assert (told["images_before"], told["images_now"], told["look"]) == (300, 200, 1)
    assert told["before"] == pytest.approx(0.5, abs=0.02)
    assert told["now"] == pytest.approx(0.4, abs=0.02)
    assert row["score"] > row["threshold"] and told["p_value"] < told["level"] < 0.001 / 7
    assert len(told["images"]) == 6 and set(told["images"]) <= set(dark)
    brightness = sources.lake.read("samples", where="round_id == '0001'")
    by_id = dict(
        zip(brightness["sample_id"].to_pylist(), brightness["brightness"].to_pylist(), strict=True)
    )
    shown = [by_id[sample] for sample in told["images"]]
    assert shown == sorted(shown) and shown[0] == min(by_id[sample] for sample in dark)
    assert sources.states()["yard", "pixel_drift"] == "stable"
    assert metrics.values["flag_drift"] == 1
    assert metrics.values["pixel_drift gate earlier images"] == row["score"]
    assert metrics.values["n_comparisons_stable"] == 5
    assert "brightness from 0.5" in Path(page.path).read_text()


def test_embeddings_and_predictions_of_a_source_that_moved_are_flagged(sources: Sources) -> None:
    sources.bring("0000")
    moved = sources.bring("0001", moved=0.8, mix=(0.05, 0.9, 0.05))
    found = sources.look("0001")
    assert set(found) == {("gate", "input_embedding_drift"), ("gate", "prediction_drift")}
    assert found["gate", "prediction_drift"]["told"]["measure"] == "share of the class dog"
    assert found["gate", "prediction_drift"]["told"]["model_id"] == MODEL
    for row in found.values():
        assert set(row["told"]["images"]) <= set(moved) and len(row["told"]["images"]) == 6


def test_drift_stands_while_nothing_new_comes_and_falls_when_the_model_has_learned_it(
    sources: Sources,
) -> None:
    first = sources.bring("0000")
    sources.learn(first[:20])
    drifted = sources.bring("0001", brightness=0.8)
    began = sources.look("0001")["gate", "pixel_drift"]
    # A round that brings next to nothing takes nothing back, and does not make it new.
    sources.bring("0002", n=5)
    still = sources.look("0002")["gate", "pixel_drift"]
    assert (still["flagged_at"], still["round_id"]) == (began["flagged_at"], "0001")
    sources.learn(drifted[:20], "m-2")
    assert not sources.look("0002")
    assert sources.states()["gate", "pixel_drift"] == "too few to say"
    sources.bring("0003", brightness=0.8)
    assert not sources.look("0003")


def test_a_window_that_is_back_withdraws_the_drift(sources: Sources) -> None:
    sources.learn(sources.bring("0000")[:20])
    sources.bring("0001", entropy=5.0)
    assert ("gate", "pixel_drift") in sources.look("0001")
    sources.bring("0002")
    assert not sources.look("0002")
    assert sources.states()["gate", "pixel_drift"] == "stable"


def test_a_new_source_that_differs_is_told_until_a_model_learned_from_it(sources: Sources) -> None:
    sources.learn(sources.bring("0000")[:20])
    sources.bring("0001")
    new = sources.bring("0001", "gs://pictures/roof", saturation=0.05)
    sources.bring("0001", "gs://pictures/cellar")
    found = sources.look("0001")
    assert list(found) == [("roof", "source_drift")]
    told = found["roof", "source_drift"]["told"]
    assert told["measure"] == "saturation"
    assert told["reference"] == "200 images of the 1 source that the model in service learned from"
    assert sources.states()["cellar", "source_drift"] == "stable"
    sources.learn(new[:20] + sources.brought["gs://pictures/gate", "0001"][:20], "m-2")
    assert not sources.look("0001")
    assert sources.states()["roof", "pixel_drift"] == "nothing to compare"


def test_first_images_and_few_images_are_no_answer_and_not_no_drift(sources: Sources) -> None:
    sources.bring("0000")
    assert not sources.look("0000")
    assert set(sources.states().values()) == {"nothing to compare"}
    sources.bring("0001", n=20, brightness=0.9)
    assert not sources.look("0001")
    assert set(sources.states().values()) == {"too few to say"}


def test_each_intake_is_a_look_and_a_new_model_begins_anew() -> None:
    def looked(learned: np.ndarray | None) -> tuple[int, tuple[str, ...]]:
        of_round = np.repeat([0, 1, 1, 2], 100)
        (one,) = arrivals(
            ["a"],
            np.zeros(400, np.intp),
            ["0000", "0001", "0002"],
            of_round,
            np.repeat([0, 1, 2, 3], 100),
            learned,
            least=100,
        )
        return one.look, one.rounds

    assert looked(None) == (3, ("0002",))
    learned = np.zeros(400, bool)
    learned[250] = True
    assert looked(learned) == (1, ("0002",))


def test_sources_are_named_by_as_much_of_their_uri_as_tells_them_apart() -> None:
    uris = ["gs://a/site/cam", "gs://b/site/cam", "file:///data/yard/", ""]
    assert source_names(uris) == ["a/site/cam", "b/site/cam", "yard", "images without a source"]


def test_what_comes_in_without_drift_raises_no_alarm_however_often_it_is_judged() -> None:
    """100 lives of five looks at a level of .2: as many alarms as it says, at most."""
    from visionloop.monitoring.arrivals import Arrivals
    from visionloop.monitoring.input_drift import compare_arrivals

    lax = MonitoringConfig().model_copy(
        update={"drift_significance": 0.2, "pixel_drift_above": 1e-9, "class_mix_drift_above": 1e-9}
    )
    alarmed = 0
    for seed in range(100):
        draw = np.random.Generator(np.random.PCG64(seed))
        pixels = {name: draw.normal(size=700) for name in PIXELS}
        before, found = np.arange(200), False
        for look in range(1, 6):
            newest = np.arange(100 + 100 * look, 200 + 100 * look)
            one = Arrivals("a", "a", newest, before, ("0001",), "", look)
            judged = compare_arrivals(
                one, pixels, lambda rows: (rows[:0], np.zeros((0, 1), np.float32)), None, lax
            )
            found = found or any(c.drift.state == "drift" for c in judged)
        alarmed += found
    # 20 are meant at most; 30 or more come with a probability of 0.011.
    assert alarmed <= 29
