"""`visionloop rollback` where predictors follow the pointer, and what it refuses."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pyarrow as pa
import pytest

from tests.servers import answering, free_port, wait_until
from tests.serving.conftest import write_bundle
from visionloop.cli import main
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.lock import writer_lock
from visionloop.monitoring.failed_stages import failures
from visionloop.serving.pointer import Pointer, pointer_uri, read_pointer, write_pointer
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


def test_a_model_that_was_rolled_back_comes_back_by_its_name_alone(
    lake: Lake, tmp_path: Path
) -> None:
    published(lake, tmp_path, "m1", "m2", "m3")
    assert rollback(config=config(lake))[1:] == ("m2", "m3")
    assert rollback(config=config(lake))[1:] == ("m1", "m2")
    with pytest.raises(InputError, match=r"m2 was rolled back, and no other model .* before m1"):
        rollback(config=config(lake))
    assert states(lake) == {"m1": "in_service", "m2": "rolled_back", "m3": "rolled_back"}
    assert rollback(config=config(lake), model_id="m3")[1:] == ("m3", "m1")


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


def test_a_rollback_waits_for_who_writes_and_moves_no_model_that_came_meanwhile(
    lake: Lake, tmp_path: Path
) -> None:
    published(lake, tmp_path, "m1", "m2")
    place, told = pointer_uri(lake, "test"), []

    def rolls_back() -> None:
        try:
            rollback(config=config(lake))
        except InputError as error:
            told.append(str(error))

    thread = threading.Thread(target=rolls_back)
    with writer_lock(lake.catalog_uri, lake.loop):
        thread.start()
        time.sleep(0.7)
        held = read_pointer(place)
        assert held and held.model_id == "m2", "nothing moves while somebody else may move it"
        write_pointer(place, Pointer("m3", "file:///m3", "", "m2", held.model_uri))
    thread.join(timeout=60)
    held = read_pointer(place)
    assert held and held.model_id == "m3"
    assert len(told) == 1 and told[0].startswith("m3 is in service by now, not m2")


def test_an_endpoint_that_comes_up_with_nothing_gives_back_no_pointer_that_moved_on(
    lake: Lake, tmp_path: Path
) -> None:
    published(lake, tmp_path, "m1", "m2")
    place = pointer_uri(lake, "test")
    serving = {"url": f"http://127.0.0.1:{free_port()}", "timeout_s": 1.5}
    given = json.dumps(json.loads(config(lake)) | {"serving": serving})
    failed = []

    def rolls_back() -> None:
        try:
            rollback(config=given)
        except VisionloopError as error:
            failed.append(error)

    thread = threading.Thread(target=rolls_back)
    thread.start()
    wait_until(lambda: (held := read_pointer(place)) and held.model_id == "m1")
    with writer_lock(lake.catalog_uri, lake.loop):
        write_pointer(place, Pointer("m3", "file:///m3", "", "m1", "file:///m1"))
    thread.join(timeout=60)
    held = read_pointer(place)
    assert len(failed) == 1 and held and held.model_id == "m3"


def test_a_rollback_that_failed_says_what_to_run_again_until_a_model_comes_into_service(
    lake: Lake, tmp_path: Path
) -> None:
    published(lake, tmp_path, "m1", "m2")
    serving = {"url": f"http://127.0.0.1:{free_port()}", "timeout_s": 0.1}
    with pytest.raises(VisionloopError, match="did not come up"):
        rollback(config=json.dumps(json.loads(config(lake)) | {"serving": serving}))
    (failure,) = failures(lake)
    assert failure.stage == "rollback"
    assert "run the round, or the rollback, again" in failure.remedy
    published(lake, tmp_path, "m3")
    assert failures(lake) == []


def test_a_rollback_tells_of_the_model_that_came_right_after_it(lake: Lake, tmp_path: Path) -> None:
    published(lake, tmp_path, "m1", "m2")
    place, writing, told = pointer_uri(lake, "test"), threading.Event(), threading.Event()

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not writing.is_set():
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"name": "test", "versions": ["m1"]}).encode())
            told.set()

    done = []
    with answering(Endpoint) as address:
        given = json.dumps(json.loads(config(lake)) | {"serving": {"url": f"http://{address}"}})
        thread = threading.Thread(target=lambda: done.append(rollback(config=given)))
        thread.start()
        wait_until(lambda: (held := read_pointer(place)) and held.model_id == "m1")
        with writer_lock(lake.catalog_uri, lake.loop):
            writing.set()
            assert told.wait(60)
            write_pointer(place, Pointer("m3", "file:///m3", "", "m1", "file:///m1"))
        thread.join(timeout=60)
    assert done[0][1:] == ("m3", "m2")
    assert states(lake)["m2"] == "rolled_back"
