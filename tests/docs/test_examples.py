"""The examples of the pages work as they stand there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import ROOT
from visionloop.lake import Lake
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.request_labels import request_labels

EXAMPLES = ROOT / "docs" / "examples"
IDS = [letter * 64 for letter in "abcd"]


@pytest.fixture
def asked(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Return a configuration that names the example, and its folder with a round's tasks."""
    monkeypatch.syspath_prepend(EXAMPLES)
    folder = tmp_path / "shared folder"
    opened = lake.rounds.open("run")
    with lake.run(stage="ingest", round_id=opened.round_id) as run:
        uris = [f"file:///data/{one[0]}.png" for one in IDS]
        run.append("files", pa.table({"uri": uris, "sample_id": IDS, "state": ["ok"] * 4}))
        run.append("samples", pa.table({"sample_id": IDS, "uri": uris, "split": ["pool"] * 4}))
        run.append("selections", pa.table({"sample_id": IDS, "rank": [0, 1, 2, 3]}))
        run.commit()
    labeling: dict[str, Any] = {"provider": "folder_tool:FolderTool", "labels": folder.as_uri()}
    told = {"name": lake.loop, "lake": lake.uri, "classes": ["cat", "dog"]}
    config = json.dumps(told | {"labeling": labeling | {"ready": {"share": 0.75}}})
    assert request_labels(config=config).n_requested == 4
    return config, folder / "0000"


def test_the_provider_has_forty_lines_of_code() -> None:
    lines = (EXAMPLES / "folder_tool.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


@pytest.mark.parametrize("text", ['{"label": "c', "[]", '{"says": "cat"}', ""])
def test_an_answer_that_is_half_written_stops_no_other(
    asked: tuple[str, Path], lake: Lake, text: str
) -> None:
    config, folder = asked
    (folder / IDS[0] / "ann.json").write_text(text)
    (folder / IDS[1] / "ann.json").write_text('{"label": "cat"}')
    assert collect_labels(config=config).n_labels == 1
    rows = lake.read("annotations").sort_by("sample_id").to_pylist()
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("rejected", "malformed"),
        ("done", ""),
    ]
    (folder / IDS[0] / "ann.json").write_text('{"label": "dog"}')
    assert collect_labels(config=config).n_labels == 2


def test_the_provider_asks_collects_and_takes_back(asked: tuple[str, Path], lake: Lake) -> None:
    config, folder = asked
    task = json.loads((folder / IDS[0] / "task.json").read_text())
    assert task["image"] == "file:///data/a.png" and task["wanted"] == 1
    assert collect_labels(config=config).trainable_version == ""
    answers = [{"label": "cat", "seconds": 2.5}, {"label": None}, {"label": "dog"}]
    for one, answer in zip(IDS, answers, strict=False):
        (folder / one / "ann b.json").write_text(json.dumps(answer))
    collected = collect_labels(config=config)
    assert collected.trainable_version
    assert (collected.n_labels, collected.n_skipped) == (2, 1)
    rows = lake.read("labels").sort_by("sample_id").to_pylist()
    assert [(row["label"], row["origin"], row["annotator"], row["seconds"]) for row in rows] == [
        ("cat", "FolderTool", "ann b", 2.5),
        (None, "skipped", "ann b", None),
        ("dog", "FolderTool", "ann b", None),
    ]
    # Nobody labels for a round that has gone on.
    assert not (folder / IDS[3] / "task.json").exists()
    assert (folder / IDS[0] / "task.json").exists()


def test_asking_and_collecting_again_changes_nothing(asked: tuple[str, Path], lake: Lake) -> None:
    config, folder = asked
    (folder / IDS[0] / "ann.json").write_text('{"label": "cat"}')
    for _ in range(2):
        request_labels(config=config)
        collect_labels(config=config)
    assert lake.read("labels").num_rows == lake.read("annotations").num_rows == 1
    assert lake.read("label_requests").num_rows == 4
