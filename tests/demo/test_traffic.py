"""Traffic: real requests, and a log of exactly what the client saw."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.servers import free_port
from visionloop.demo.traffic import PROTOCOLS, SHIFTS, send_traffic, shift
from visionloop.demo.world import World
from visionloop.media.decode import decode_rgb


def probabilities(key: bytes) -> list[float]:
    """Answer from the hash of what came in, so that an answer proves which bytes arrived."""
    drawn = np.frombuffer(hashlib.sha256(key).digest(), np.uint8)[:10].astype(float) + 1
    return [float(v) for v in drawn / drawn.sum()]


class Predictor(BaseHTTPRequestHandler):
    """A model server of one file: the paths and bodies of KServe's two protocols."""

    bodies: list[bytes]
    failing: int

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        with server.lock:
            server.bodies.append(body)
            failed = len(server.bodies) <= server.failing
        if failed:
            self._send(500, {"error": "out of memory"})
        elif self.path == "/v1/models/digits:predict":
            if self.headers["Content-Type"].startswith("image/"):
                kind = b"\xff\xd8" if self.headers["Content-Type"] == "image/jpeg" else b"\x89PNG"
                assert body.startswith(kind)
                keys = [body]
            else:
                keys = [base64.b64decode(i["b64"]) for i in json.loads(body)["instances"]]
            rows = [{"probabilities": probabilities(key)} for key in keys]
            self._send(200, {"predictions": rows, "model_id": "m1"})
        elif self.path == "/v2/models/digits/infer":
            length = int(self.headers.get("Inference-Header-Content-Length", len(body)))
            tensor = json.loads(body[:length])["inputs"][0]
            if tensor["datatype"] == "BYTES":
                keys = [base64.b64decode(text) for text in tensor["data"]]
            else:
                raw = body[length:] or np.array(tensor["data"], "<f4").tobytes()
                rows_in = np.frombuffer(raw, "<f4").reshape(tensor["shape"])
                assert rows_in.shape[1:] == (3, 32, 32)
                assert rows_in.min() >= 0 and rows_in.max() <= 1
                keys = [row.tobytes() for row in rows_in]
            data = [v for key in keys for v in probabilities(key)]
            output = {"name": "probabilities", "shape": [len(keys), 10], "datatype": "FP32"}
            label = {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["3"]}
            answer = {"model_version": "m1", "outputs": [label, output | {"data": data}]}
            self._send(200, answer)
        else:
            self._send(404, {"error": self.path})

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    found: Any = ThreadingHTTPServer(("127.0.0.1", 0), Predictor)
    found.bodies, found.failing, found.lock = [], 0, threading.Lock()
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{found.server_port}"
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_says_what_was_sent_and_what_came_back(
    server: Any, world: World, tmp_path: Path
) -> None:
    log = tmp_path / "traffic" / "0.jsonl"
    sent = send_traffic(server.url, "digits", world.traffic(0), n_requests=150, log=log)
    lines = read(log)
    assert (sent.requests, sent.failed) == (150, 0) == (len(lines), 0)
    assert sent.answered == sent.images == sum(len(line["labels"]) for line in lines) > 150
    assert {line["protocol"] for line in lines} == {name for name, _, _ in PROTOCOLS}
    assert {hashlib.sha256(body).hexdigest() for body in server.bodies} == {
        line["request_sha256"] for line in lines
    }
    known = {p.sample_id: p for p in world.traffic(0)}
    for line in lines:
        assert line["status"] == 200 and line["model_id"] == "m1"
        for i, row in enumerate(line["probabilities"]):
            assert abs(sum(row) - 1) < 1e-6
            sample = line["sample_ids"][i]
            assert (sample is None) == (line["protocol"] in ("v2-fp32", "v2-binary"))
            assert (sample is None) == (line["tensor_sha256"][i] is not None)
            if sample in known:
                assert row == pytest.approx(probabilities(known[sample].data))
                assert line["labels"][i] == known[sample].label and line["shifts"][i] == ""
            elif sample is not None:
                assert line["shifts"][i] in SHIFTS


def test_pictures_that_are_not_shifted_keep_the_bytes_that_arrive_in_the_bucket(
    server: Any, world: World, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    send_traffic(server.url, "digits", world.traffic(0), n_requests=120, log=log)
    coming = {p.sample_id for p in world.delivered(1)}
    found = {s for line in read(log) for s in line["sample_ids"] if s in coming}
    assert len(found) > 25


def test_the_same_seed_sends_the_same_requests(server: Any, world: World) -> None:
    bodies = []
    for seed in (1, 1, 2):
        send_traffic(server.url, "digits", world.traffic(0), seed=seed, n_requests=40)
        bodies.append(Counter(server.bodies))
        server.bodies.clear()
    assert bodies[0] == bodies[1] != bodies[2]


def test_a_share_of_the_pictures_is_shifted(server: Any, world: World) -> None:
    none = send_traffic(server.url, "digits", world.traffic(0), n_requests=50, shifted_share=0)
    everything = send_traffic(
        server.url, "digits", world.traffic(0), n_requests=50, shifted_share=1
    )
    assert none.shifted == 0
    assert everything.shifted == everything.images


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shift_changes_the_picture_and_keeps_its_size(kind: str, world: World) -> None:
    data = world.traffic(0)[0].data
    before = decode_rgb(data).astype(int)
    after = decode_rgb(shift(data, kind, np.random.default_rng(0))).astype(int)
    assert after.shape == before.shape
    assert np.abs(after - before).mean() > 10


def test_failures_are_counted_and_told(server: Any, world: World, tmp_path: Path) -> None:
    server.failing = 7
    sent = send_traffic(server.url, "digits", world.traffic(0), n_requests=30, log=tmp_path / "log")
    assert sent.failed == 7
    assert sent.answered < sent.images
    told = [line["error"] for line in read(tmp_path / "log") if line["status"] == 500]
    assert len(told) == 7 and "out of memory" in told[0]


def test_an_endpoint_that_is_not_there_fails_every_request(world: World, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    sent = send_traffic(url, "digits", world.traffic(0), n_requests=5, log=tmp_path / "log")
    assert (sent.requests, sent.failed, sent.answered) == (5, 5, 0)
    assert all("ConnectError" in line["error"] for line in read(tmp_path / "log"))


def test_five_hundred_images_take_no_longer_than_the_server(server: Any, world: World) -> None:
    sent = send_traffic(server.url, "digits", world.traffic(0), n_requests=400)
    assert 450 <= sent.images <= 900
    assert sent.seconds < 20
