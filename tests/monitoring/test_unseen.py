"""A class that labels, refused answers or replies name is told of while nobody knows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.stages.monitor import monitor

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def box(label: str) -> dict[str, Any]:
    return {"x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9, "label": label, "scores": []}


class Loop:
    """A lake with rows that nobody but a fault or another tool writes."""

    def __init__(self, folder: Path, classes: list[str]) -> None:
        self.lake = Lake.open(str(folder / "lake"), loop="test")
        self.config = json.dumps(
            {
                "name": "test",
                "lake": str(folder / "lake"),
                "classes": classes,
                "sources": [{"uri": str(folder)}],
                "labeling": {"provider": "csv"},
            }
        )

    def write(self, table: str, *rows: dict[str, Any]) -> None:
        fields = [f for f in arrow_schema(table) if f.name not in ("round_id", "run_id")]
        with self.lake.run(stage="test", round_id="0000") as run:
            run.append(table, pa.Table.from_pylist(list(rows), schema=pa.schema(fields)))
            run.commit()

    def label(self, sample: str, label: str | None, **more: Any) -> None:
        row = {"sample_id": sample, "label": label, "origin": "import", "created_at": NOW}
        self.write("labels", {**row, **more})

    def serve(self, *classes: str) -> None:
        self.write(
            "experiments",
            {"model_id": "m", "arm": "loop", "classes": list(classes), "state": "in_service"},
        )

    def unseen(self) -> dict[str, dict[str, Any]]:
        monitor(config=self.config, round_id="0000")
        rows = self.lake.read("flags", where="kind == 'unseen_class'").to_pylist()
        assert all(row["subject_type"] == "class" for row in rows)
        return {
            row["subject"]: {**json.loads(row["evidence"]), "score": row["score"]} for row in rows
        }


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path, ["cat", "dog"])


def test_a_class_of_labels_and_boxes_that_the_loop_lacks_is_told_of_until_it_is_corrected(
    loop: Loop,
) -> None:
    loop.label("s1", "cat")
    loop.label("s2", "fox|<b>")
    loop.label("s3", None, boxes=[box("dog"), box("owl")], task="detection")
    found = loop.unseen()
    assert set(found) == {"fox|<b>", "owl"}
    assert found["owl"]["images"] == ["s3"] and found["owl"]["unknown_to"] == "the loop"
    loop.label("s2", "dog", created_at=datetime(2026, 11, 2, tzinfo=UTC))
    assert set(loop.unseen()) == {"owl"}


def test_the_page_names_a_class_and_runs_nothing_of_it(loop: Loop, tmp_path: Path) -> None:
    loop.label("s1", "fox<img src=x onerror=alert(1)>")
    page = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    monitor(config=loop.config, round_id="0000", page=page)
    text = Path(page.path).read_text()
    assert "Classes never seen" in text and "fox" in text and "<img" not in text


def test_a_class_that_the_loop_has_and_the_model_has_not_learned_is_told_of(loop: Loop) -> None:
    loop.label("s1", "dog")
    assert loop.unseen() == {}
    loop.serve("cat")
    found = loop.unseen()
    assert found["dog"]["unknown_to"] == "the model in service"


def test_a_class_that_was_taken_off_the_list_is_unknown_to_the_loop(loop: Loop) -> None:
    loop.serve("cat", "dog", "fox")
    loop.label("s1", "fox")
    loop.write("confidences", {"event_id": "1", "endpoint": "gate", "label": "fox"})
    found = loop.unseen()
    assert set(found) == {"fox"} and found["fox"]["unknown_to"] == "the loop"
    assert found["fox"]["named_in"] == {"labels": 1, "replies of gate": 1}


def test_answers_that_were_refused_and_replies_of_another_model_name_theirs(loop: Loop) -> None:
    answer = {"state": "rejected", "reason": "unknown_class", "label": "fox"}
    loop.write("annotations", {"sample_id": "s1", **answer}, {"sample_id": "s2", **answer})
    reply = {"endpoint": "gate", "label": "wolf", "model_id": "other"}
    loop.write("confidences", *({"event_id": str(i), **reply} for i in range(3)))
    found = loop.unseen()
    assert found["fox"]["named_in"] == {"answers that were refused": 2}
    assert found["wolf"]["named_in"] == {"replies of gate": 3} and found["wolf"]["score"] == 3


def test_without_classes_in_the_configuration_the_models_are_what_is_known(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [])
    loop.label("s1", "cat")
    assert loop.unseen() == {}
    loop.serve("dog")
    assert set(loop.unseen()) == {"cat"}
