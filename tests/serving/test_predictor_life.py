"""The predictor is alive before it has a model, and gone in time, whatever goes on."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.serving.conftest import CLASSES, SIZE, Server, Starter, picture, write_bundle
from visionloop.serving.cloudevents import EventSender, Origin
from visionloop.serving.pointer import Pointer, write_pointer

V1 = "/v1/models/clf:predict"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def status_of(port: int, path: str) -> int:
    """Return the status of an answer; 0 while nobody listens. Fails where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        assert isinstance(error.reason, ConnectionRefusedError)
        return 0


def feed(pipe: Path, text: str) -> None:
    """Write to a pipe once somebody reads it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            opened = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody does
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            os.write(opened, text.encode())
            os.close(opened)
            return


@pytest.mark.parametrize("named", ["by a pointer", "directly"])
def test_it_is_alive_and_not_ready_while_its_first_model_takes_its_time(
    start: Starter, tmp_path: Path, named: str
) -> None:
    bundle = write_bundle(tmp_path / "m", "model-1")
    card = bundle / "card.json"
    text = card.read_text()
    card.unlink()
    os.mkfifo(card)  # whoever reads it waits until somebody writes
    uri = str(bundle)
    if named == "by a pointer":
        uri = str(tmp_path / "clf.json")
        write_pointer(uri, Pointer("model-1", str(bundle)))
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(
            start, "serve", model_uri=uri, name="clf", http_port=port, grpc_port=None
        )
        try:
            deadline = time.monotonic() + 60
            while not (alive := status_of(port, "/v2/health/live")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert alive == 200
            assert status_of(port, "/v2/health/ready") == 503
            assert not starting.done()
        finally:
            feed(card, text)
        server = starting.result(timeout=60)
    assert status_of(port, "/v2/health/ready") == 200
    assert server.post(V1, picture())[0] == 200
    assert server.stop() == 0


def test_a_bundle_named_directly_that_does_not_load_ends_it_and_is_told(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m", "model-1", broken=True)
    command = [sys.executable, "-m", "visionloop", "serve", "--model", str(bundle), "--port", "0"]
    ended = subprocess.run(
        [*command, "--grpc-port", "-1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert str(bundle) in ended.stderr and "ONNX" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- the end ------------------------------------------------------------------------------------


def write_endless(folder: Path) -> Path:
    """Write a bundle whose network does not come to an end on a picture that is white."""
    from onnx import TensorProto, helper, numpy_helper

    counted = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["sum", "one"], ["summed"]),
        ],
        "count",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("summed", TensorProto.FLOAT, []),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
            helper.make_node("Sub", ["brightest", "limit"], ["above"]),
            helper.make_node("Relu", ["above"], ["beyond"]),
            helper.make_node("Mul", ["beyond", "much"], ["often"]),
            helper.make_node("Cast", ["often"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "", "nought"], ["waste"], body=counted),
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Add", ["flat", "waste"], ["late"]),
            helper.make_node("MatMul", ["late", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("LpNormalization", ["late"], ["embedding"], axis=1, p=2),
        ],
        "endless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3 * SIZE * SIZE]),
        ],
        [
            numpy_helper.from_array(
                np.zeros((3 * SIZE * SIZE, len(CLASSES)), np.float32), "weights"
            ),
            *(
                numpy_helper.from_array(np.array(value, np.float32), name)
                for name, value in {"one": 1, "nought": 0, "limit": 0.9, "much": 1e11}.items()
            ),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    write_bundle(folder, "endless")
    (folder / "model.onnx").write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    card["embedding_dim"] = 3 * SIZE * SIZE
    card["files"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    return folder


WHITE = json.dumps({"instances": [np.full((SIZE, SIZE, 3), 255).tolist()]}).encode()


def ask_for_what_never_ends(server: Server, requests: int) -> list[socket.socket]:
    """Return the connections once all are under way."""
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(WHITE)}\r\n\r\n".encode()
    asking = []
    for _ in range(requests):
        asking.append(socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20))
        asking[-1].sendall(head + WHITE)
    deadline = time.monotonic() + 10
    while b"visionloop_inference_under_way %.1f" % requests not in server.get("/metrics"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    return asking


@pytest.mark.parametrize("signals", [1, 2])
def test_it_is_gone_in_time_though_the_network_runs_and_more_waits(
    start: Starter, tmp_path: Path, signals: int
) -> None:
    bundle = write_endless(tmp_path / "m")
    server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
                   max_batch=1, grace_s=0.5 if signals == 1 else 600)  # fmt: skip
    assert server.post(V1, json.dumps({"instances": [[[100]]]}).encode())[0] == 200
    asking = ask_for_what_never_ends(server, 6)
    began = time.monotonic()
    if signals == 2:
        server.process.terminate()
        time.sleep(0.3)
        assert server.process.poll() is None
    assert server.stop() == 0
    assert time.monotonic() - began < 5
    for one in asking:
        one.close()


def test_events_are_sent_within_a_deadline_though_the_sink_never_answers() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as sink:
        url = f"http://127.0.0.1:{sink.getsockname()[1]}"
        sender = EventSender(url, Origin("service"), log=told.append)
        for n in range(5):
            sender.emit("request", event_id=str(n), body=b"x", content_type="", metadata={})
        began = time.monotonic()
        sender.close(seconds=0.5)
        assert time.monotonic() - began < 1.5
        assert told == ["events: 0 delivered, 5 dropped"]
