"""Small models, servers as real processes, and images."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CLASSES = ["cat", "dog", "bird", "Füchse"]
SIZE = 8

ONE_OF = {
    "serve": "from visionloop.serving.predictor import run_server as run",
    "collect": "from visionloop.serving.collector import run_collector as run",
}


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return reply.read()

    def post(
        self, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Post with these headers and no others: urllib would make up a content type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=20)
        try:
            connection.request("POST", path, body=body, headers=headers or {})
            reply = connection.getresponse()
            return reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()}
        finally:
            connection.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


class Starter:
    """Starts servers in a folder, and ends what still runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Server] = []

    def __call__(self, what: str, **arguments: Any) -> Server:
        """Start ``serve`` or ``collect`` with keyword arguments."""
        port_file = self._folder / f"{what}-{len(self._running)}.port"
        log = self._folder / f"{what}-{len(self._running)}.log"
        arguments = {"host": "127.0.0.1", "port_file": str(port_file), **arguments}
        code = f"import json, sys; {ONE_OF[what]}; run(**json.loads(sys.argv[1]))"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(arguments)], stdout=file, stderr=file
            )
        deadline = time.monotonic() + 90
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{what} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        server = Server(process, json.loads(port_file.read_text()), log)
        self._running.append(server)
        return server

    def end(self) -> None:
        """End what still runs."""
        for server in self._running:
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
        for server in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(timeout=15)
            server.process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start servers for one test."""
    starter = Starter(tmp_path)
    yield starter
    starter.end()


def write_bundle(folder: Path, model_id: str, *, seed: int = 0, broken: bool = False) -> Path:
    """Write a bundle of a linear classifier on 8 by 8 pixels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    pixels = 3 * SIZE * SIZE
    weights = rng.normal(0, 0.5, (pixels, len(CLASSES))).astype(np.float32)
    projection = rng.normal(0, 1, (pixels, 6)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
            helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 6]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(projection, "projection"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = b"no model at all" if broken else model.SerializeToString()
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    card = {
        "model_id": model_id,
        "architecture": "linear",
        "classes": CLASSES,
        "image_size": SIZE,
        "embedding_space": "test",
        "embedding_dim": 6,
        "files": {"model.onnx": hashlib.sha256(data).hexdigest()},
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "models" / "m1", "model-1", seed=1)


def kserve_grpc() -> tuple[Any, Any]:
    """Return KServe's messages and stubs of gRPC."""
    held, sys.argv = sys.argv, sys.argv[:1]  # kserve parses the command line when it is imported
    try:
        from kserve.protocol.grpc import grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc
    finally:
        sys.argv = held
    return grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc


def picture(seed: int = 0, *, size: int = SIZE, form: str = "PNG") -> bytes:
    """Return an encoded picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form)
    return out.getvalue()


def write_events(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write a segment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
