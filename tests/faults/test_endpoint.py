"""An endpoint that does not come up, or refuses the model: the old one stays in service."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.faults.conftest import SmallLoop, doubled, failure_of
from tests.servers import free_port
from visionloop.lake.storage import local_path
from visionloop.serving.endpoint import served_models
from visionloop.serving.pointer import pointer_uri, read_pointer
from visionloop.stages.evaluate import evaluate
from visionloop.stages.export import export
from visionloop.stages.publish import publish


@contextlib.contextmanager
def serving(pointer: str, folder: Path) -> Iterator[str]:
    """Run the predictor on a pointer, and yield its address."""
    ports = folder / "ports.json"
    program = ["serve", "--model", pointer, "--port", "0", "--grpc-port", "-1"]
    with (folder / "serve.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "visionloop", *program, "--port-file", str(ports)],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 90
        while not ports.exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{json.loads(ports.read_text())['http']}"
    finally:
        child.terminate()
        child.wait(timeout=30)


def test_an_endpoint_that_refuses_the_model_keeps_the_old_one_and_the_next_run_mends_it(
    loop: SmallLoop,
) -> None:
    # Eight samples decide: which of two models that learned next to nothing is better is chance.
    loop.settings["gates"] = {"max_drop": 1.0}
    loop.take_in()
    loop.label()
    old = loop.publish()
    pointer = pointer_uri(loop.lake, "faults")
    with serving(pointer, loop.folder) as url:
        loop.settings["serving"] = {"url": url, "timeout_s": 60}
        loop.take_in()
        loop.label()
        new, uri = loop.candidate()
        assert new != old
        graph = local_path(uri) / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-100])

        loop.settings["serving"]["timeout_s"] = 1.5
        at = {"config": loop.config, "model_id": new, "model_uri": uri, "passed": True}
        told = failure_of(lambda: publish(**at))  # type: ignore[arg-type]
        assert told.exit_status == 1 and told.where == url
        assert f"did not come up with model {new}" in told.what and f"serves {old}" in told.what
        assert "refuses" in told.what and "SHA-256" in told.what
        assert "run the round, or the rollback, again" in told.remedy
        held = read_pointer(pointer)
        assert held is not None and held.model_id == old
        assert served_models(url, "faults") == [old]
        states = {r["model_id"]: r["state"] for r in loop.lake.read("experiments").to_pylist()}
        assert states == {old: "in_service", new: "passed"}
        (current,) = [one for one in loop.lake.rounds.all() if one.state != "done"]
        assert current.round_id == "0001"

        # The round runs again: the export finds that its bundle is broken, and writes it anew.
        loop.settings["serving"]["timeout_s"] = 60
        assert export(config=loop.config, model_id=new).model_uri == uri
        assert evaluate(config=loop.config, model_id=new).passed
        done = publish(config=loop.config, model_id=new, model_uri=uri, passed=True)
        assert done.in_service == new
        assert served_models(url, "faults") == [new]
        body = urllib.request.urlopen(f"{url}/visionloop/status").read()
        assert json.loads(body)["refused"] is None
    assert not doubled(loop.lake)


def test_an_endpoint_that_does_not_come_up_leaves_no_pointer_to_a_first_model(
    loop: SmallLoop,
) -> None:
    loop.take_in()
    loop.label()
    model_id, uri = loop.candidate()
    url = f"http://127.0.0.1:{free_port()}"
    loop.settings["serving"] = {"url": url, "timeout_s": 0.5}
    at = {"model_id": model_id, "model_uri": uri, "passed": True}
    told = failure_of(lambda: publish(config=loop.config, **at))  # type: ignore[arg-type]
    assert told.exit_status == 1 and told.where == url
    assert "does not answer" in told.what and "visionloop serve --model" in told.remedy
    assert read_pointer(pointer_uri(loop.lake, "faults")) is None
    loop.settings["serving"] = {}
    assert publish(config=loop.config, **at).published  # type: ignore[arg-type]
    (ended,) = loop.lake.rounds.all()
    assert (ended.state, ended.outcome) == ("done", "published")
