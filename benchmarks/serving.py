"""The predictor against a stock `kserve.Model` and a bare ONNX Runtime loop, in the same run.

All three have the same network, pictures and processors, and are measured in turn, several times;
the medians are told. Requests come from a process of its own (`benchmarks/_serving_load.py`), which
shares the processors: so the server's processor time a request is told beside the requests a
second. Networks are `light` (a few operations: what is left is protocol and decoding) and networks
of torchvision with random weights. JPEG photographs are real ones of some 0.25 megapixels. The
predictor serves with its defaults; its peer has neither an access log nor threads that spin, which
makes it faster than as it comes. Before anything is measured the servers' answers are compared.

A stock model decodes and predicts on its event loop, one request at a time. Where processor time a
request is about the same, more requests a second are further processors at work, and rows of
`ModelServer(workers=…)`, a process and a copy of the network for each processor, tell what KServe's
own way to that gives; no goal is about them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import pickle
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._connection import http_request
from benchmarks._photographs import encoded, paths, photographs
from benchmarks._rows import Row, arguments, report
from benchmarks._serving_load import Load, load
from visionloop.serving.responses import decode_response

SIZE, CLASSES, AT_A_TIME = 224, 10, 8
WORKERS = len(os.sched_getaffinity(0))
# Probabilities of two pictures differ by .03 in the mean, also where weights are random.
MOST_DIFFERENCE = 1e-3
_ROOT = Path(__file__).parents[1]
_TICK = os.sysconf("SC_CLK_TCK")
_OURS = (
    "import sys; from visionloop.serving.predictor import run_server; "
    "run_server(sys.argv[1], 'clf', int(sys.argv[2]), None, host='127.0.0.1')"
)


def light_network() -> bytes:
    """Return a network that costs next to nothing: pooling and a linear layer."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 0.1, (3 * 7 * 7, CLASSES)).astype(np.float32)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[32, 32],
                             strides=[32, 32]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("LpNormalization", ["flat"], ["embedding"], axis=1, p=2),
        ],
        "light",
        [helper.make_tensor_value_info("image", floats, ["n", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("probabilities", floats, ["n", CLASSES]),
            helper.make_tensor_value_info("embedding", floats, ["n", 147]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def torchvision_network(architecture: str) -> bytes:
    """Return a network of torchvision with random weights, as the loop exports it."""
    from visionloop.training.bundle import deployable, export_onnx
    from visionloop.training.network import build_network

    network = build_network(architecture, n_classes=CLASSES, image_size=SIZE)
    outputs = ["probabilities", "embedding"]
    return export_onnx(deployable(network, 1.0), image_size=SIZE, outputs=outputs)


def write_bundle(folder: Path, name: str) -> Path:
    """Write the bundle of a network, and return its folder."""
    onnx = light_network() if name == "light" else torchvision_network(name)
    sizes = {"light": 147, "mobilenet_v3_small": 1024, "resnet18": 512}
    (folder / name).mkdir()
    (folder / name / "model.onnx").write_bytes(onnx)
    card = {
        "model_id": name,
        "architecture": name,
        "classes": [f"class {n}" for n in range(CLASSES)],
        "image_size": SIZE,
        "embedding_space": "benchmark",
        "embedding_dim": sizes[name],
        "files": {"model.onnx": hashlib.sha256(onnx).hexdigest()},
    }
    (folder / name / "card.json").write_text(json.dumps(card))
    return folder / name


class Server:
    """A server in a process of its own, and what processes that one starts."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, cwd=_ROOT, stdout=quiet, stderr=quiet, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise SystemExit(f"a server did not start: {command}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready") as reply:
                return json.load(reply) == {"ready": True}
        except OSError:
            return False

    @property
    def cpu(self) -> float:
        """Processor seconds so far, of all threads and processes."""
        ticks, left = 0, [str(self.process.pid)]
        while left:
            place = Path("/proc") / left.pop()
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            # The main thread is the one that starts workers.
            left += (place / "task" / place.name / "children").read_text().split()
        return ticks / _TICK

    def end(self) -> None:
        """End it, with all that it started."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def servers(bundle: Path) -> Iterator[dict[str, Server]]:
    """Run ours, the stock one in one process, and the stock one with workers."""
    ours = free_port()
    onnx = str(bundle / "model.onnx")
    peer = [sys.executable, "-m", "benchmarks._serving_peers", "stock", onnx]
    running: dict[str, Server] = {}
    try:
        running["ours"] = Server([sys.executable, "-c", _OURS, str(bundle), str(ours)], ours)
        for name, workers in (("stock", 1), ("workers", WORKERS)):
            port = free_port()
            running[name] = Server([*peer, str(port), str(workers)], port)
        yield running
    finally:
        for server in running.values():
            server.end()


def pictures(number: int) -> list[bytes]:
    """Return JPEG files: real ones as they are, where there are some."""
    found = [*paths("clothing")[: number // 2], *paths("bccd")[: number // 2]]
    if found:
        return [path.read_bytes() for path in found]
    return [encoded(image, 90) for image in photographs("clothing", number)]


def prepared(kind: str, files: list[bytes]) -> list[bytes]:
    """Return the requests of a kind, as they go over the wire."""
    v1, v2 = "/v1/models/clf:predict", "/v2/models/clf/infer"
    if kind == "raw JPEG":
        return [http_request(v1, data, {"Content-Type": "image/jpeg"}) for data in files]
    if kind == "base64 JPEG":
        bodies = [
            json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}) for data in files
        ]
        return [
            http_request(v1, body.encode(), {"Content-Type": "application/json"}) for body in bodies
        ]
    raw = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32).tobytes()
    head = json.dumps(
        {
            "id": "1",
            "inputs": [
                {"name": "image", "shape": [1, 3, SIZE, SIZE], "datatype": "FP32",
                 "parameters": {"binary_data_size": len(raw)}}
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()  # fmt: skip
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return [http_request(v2, head + raw, headers)]


def answered(port: int, request: bytes) -> NDArray[np.float64]:
    """Return the probabilities that a server answers, [n, C]."""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(request)
        reply = http.client.HTTPResponse(wire)
        reply.begin()
        found = decode_response(reply.read())
    if reply.status != 200 or found.probabilities is None:
        raise SystemExit(f"a server answered {reply.status} {found.problem}")
    return np.array(found.probabilities, dtype=np.float64)


def require_same_answers(running: dict[str, Server], kind: str, files: list[bytes]) -> None:
    """End the benchmark where servers do not answer alike: they would not do the same work."""
    for request in prepared(kind, files):
        ours, *others = (answered(server.port, request) for server in running.values())
        apart = max(float(np.abs(ours - other).max()) for other in others)
        if apart > MOST_DIFFERENCE:
            raise SystemExit(f"{kind}: the servers' probabilities differ by {apart}")


class Measured:
    """Medians of several turns."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self.generator: list[float] = []
        self.p50: list[float] = []

    def add(self, run: Load, cpu: float) -> None:
        """Keep one turn."""
        if run.refused:
            raise SystemExit(f"a server refused {run.refused} requests")
        self.rates.append(run.rate)
        self.cpu.append(1000 * cpu / run.requests)
        self.generator.append(1000 * run.own_cpu / run.requests)
        self.p50.append(1000 * statistics.median(run.latencies))


def measured(
    running: dict[str, Server],
    kind: str,
    files: list[bytes],
    *,
    connections: int,
    turns: int,
    seconds: float,
    beside: Callable[[], float] = lambda: 0.0,
) -> tuple[dict[str, Measured], float]:
    """Ask all in turn, and something else in each turn, whose median is returned too."""
    requests = prepared(kind, files)
    found = {name: Measured() for name in running}
    others: list[float] = []
    for turn in range(turns + 1):
        for name, server in running.items():
            before = server.cpu
            long = seconds if turn else min(seconds, 0.5)  # the first one warms up
            run = load(server.port, requests, connections=connections, seconds=long)
            if turn:
                found[name].add(run, server.cpu - before)
        if turn:
            others.append(beside())
    return found, statistics.median(others)


def bare(bundle: Path, files: list[bytes], seconds: float) -> float:
    """Return the pictures a second of the loop without a server."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._serving_peers", "bare"],
        input=pickle.dumps((str(bundle / "model.onnx"), files, seconds)),
        stdout=subprocess.PIPE, check=True, cwd=_ROOT,
    )  # fmt: skip
    return float(json.loads(done.stdout))


def rows_of(name: str, bundle: Path, files: list[bytes], *, quick: bool) -> list[Row]:
    """Measure one network."""
    stock_name = f"kserve {version('kserve')} Model"
    workers_name = f"the same, ModelServer(workers={WORKERS})"
    times: dict[str, Any] = {"turns": 3, "seconds": 0.7} if quick else {"turns": 5, "seconds": 3.0}
    rows: list[Row] = []

    def row(
        case: str,
        ours: list[float],
        stock: list[float],
        unit: str,
        goal: float | None = None,
        peer: str = stock_name,
    ) -> Row:
        pair = statistics.median(ours), statistics.median(stock)
        return Row(
            f"{name}, {case}", pair[0], peer, pair[1], unit, goal, smaller_is_better=unit == "ms"
        )

    with servers(bundle) as running:
        for kind in (*(["V2 binary FP32"] if name == "light" else []), "raw JPEG", "base64 JPEG"):
            raw, binary = kind == "raw JPEG", kind == "V2 binary FP32"
            loop = partial(bare, bundle, files, times["seconds"]) if raw else lambda: 0.0
            require_same_answers(running, kind, files)
            found, by_loop = measured(
                running, kind, files, connections=AT_A_TIME, beside=loop, **times
            )
            ours, stock, workers = (found[of] for of in ("ours", "stock", "workers"))
            told = f"{kind}: server CPU"
            rows += [
                row(told, ours.cpu, stock.cpu, "ms", 20.0 if binary else None),
                row(told, ours.cpu, workers.cpu, "ms", peer=workers_name),
            ]
            told = f"{kind}: {AT_A_TIME} at a time"
            rate = row(told, ours.rates, stock.rates, "/s", None if binary else 1.3)
            rows += [
                rate,
                row(told, ours.rates, workers.rates, "/s", peer=workers_name),
                row(f"{kind}: generator CPU", ours.generator, stock.generator, "ms"),
            ]
            if raw:
                # A few operations are no network: what is left is HTTP beside decoding.
                goal = None if name == "light" else 0.85
                rows.append(
                    Row(f"{name}, {kind}: {AT_A_TIME} at a time", rate.ours,
                        "ONNX Runtime in a loop, no server", by_loop, "/s", goal,
                        smaller_is_better=False)
                )  # fmt: skip
            if raw and not quick:
                one, _ = measured(running, kind, files, connections=1, **times)
                rows.append(row(f"{kind}: latency of one", one["ours"].p50, one["stock"].p50, "ms"))
    return rows


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    names = ["light", "resnet18"] if options.quick else ["light", "mobilenet_v3_small", "resnet18"]
    files = pictures(32)
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        for name in names:
            rows += rows_of(name, write_bundle(Path(folder), name), files, quick=options.quick)
    report("serving", rows, as_json=options.json)


if __name__ == "__main__":
    main()
