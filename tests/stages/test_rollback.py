"""`visionloop rollback` where predictors follow the pointer, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.serving.conftest import write_bundle
from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.serving.pointer import pointer_uri, read_pointer
from visionloop.stages.publish import publish
from visionloop.stages.rollback import rollback


def config(lake: Lake) -> str:
    return json.dumps({"name": lake.loop, "lake": lake.uri})


def published(lake: Lake, folder: Path, *models: str) -> None:
    for number, model in enumerate(models):
        uri = f"file://{write_bundle(folder / model, model, seed=number)}"
        opened = lake.rounds.open("run", take_over=True)
        with lake.run(stage="evaluate", round_id=opened.round_id) as run:
            row = {"model_id": [model], "arm": ["loop"], "state": ["passed"], "uri": [uri]}
            run.append("experiments", pa.table(row))
            run.commit()
        publish(config=config(lake), model_id=model, model_uri=uri, passed=True)


def states(lake: Lake) -> dict[str, str]:
    return {row["model_id"]: row["state"] for row in lake.read("experiments").to_pylist()}


def test_the_command_brings_the_model_before_back(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(lake, tmp_path, "m1", "m2")
    file = tmp_path / "loop.yaml"
    file.write_text(config(lake) + "\n")
    assert main(["rollback", "--config", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["in_service"], told["rolled_back"]) == ("m1", "m2")
    held = read_pointer(pointer_uri(lake, "test"))
    assert held and (held.model_id, held.previous) == ("m1", "m2")
    assert states(lake) == {"m1": "in_service", "m2": "rolled_back"}
    rows = [r for r in lake.read("decisions").to_pylist() if r["decision"] == "rollback"]
    assert [(r["subject"], r["outcome"]) for r in rows] == [("m1", "published")]


def test_a_named_model_comes_back_and_each_rollback_is_a_row(lake: Lake, tmp_path: Path) -> None:
    published(lake, tmp_path, "m1", "m2", "m3")
    assert rollback(config=config(lake), model_id="m1")[1:] == ("m1", "m3")
    assert rollback(config=config(lake), model_id="m3")[1:] == ("m3", "m1")
    rows = [r for r in lake.read("decisions").to_pylist() if r["decision"] == "rollback"]
    assert sorted(r["subject"] for r in rows) == ["m1", "m3"]
    from visionloop.monitoring.report.load import load_report

    assert load_report(lake).in_service == "m3"


def test_what_cannot_be_brought_back_is_said(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model is in service"):
        rollback(config=config(lake))
    published(lake, tmp_path, "m1")
    with pytest.raises(InputError, match="m1 is the first model in service"):
        rollback(config=config(lake))
    with pytest.raises(InputError, match="m1 is in service already"):
        rollback(config=config(lake), model_id="m1")
    with pytest.raises(InputError, match=r"no exported model 'm7'"):
        rollback(config=config(lake), model_id="m7")
    with lake.run(stage="evaluate") as run:
        uri = f"file://{write_bundle(tmp_path / 'm9', 'm9')}"
        row = {"model_id": ["m9"], "arm": ["loop"], "state": ["rejected"], "uri": [uri]}
        run.append("experiments", pa.table(row))
        run.commit()
    with pytest.raises(InputError, match="m9 never passed its gate"):
        rollback(config=config(lake), model_id="m9")


def test_a_bundle_that_broke_is_found_before_anything_moves(lake: Lake, tmp_path: Path) -> None:
    published(lake, tmp_path, "m1", "m2")
    (tmp_path / "m1" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(InputError, match="SHA-256 differs"):
        rollback(config=config(lake))
    held = read_pointer(pointer_uri(lake, "test"))
    assert held and held.model_id == "m2"
