"""The collector under an open loop: 1,000 events a second of 24 KB, and requests of 19 MB beside.

Latency counts from when an event was due, so that a pause is told by all whom it kept waiting; an
event that is not acknowledged counts as infinitely late. The peer is what is usually written by
hand: a FastAPI route that appends a line to a file and calls fsync for each event. Both acknowledge
what is on the disk. Run it on the disk that shall be used (``TMPDIR`` says which), and on a machine
that does nothing else: what is measured is mostly the disk.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks._connection import http_request
from benchmarks._open_loop import Arrivals, arrivals
from benchmarks._rows import Row, arguments, report

RATE = 1000.0
SMALL, LARGE = 24_000, 19_000_000
GOAL_MS = 10.0
PEER_NAME = "FastAPI, fsync an event"

OURS = """
import json, sys
from visionloop.serving.collector import run_collector
run_collector(**json.loads(sys.argv[1]))
"""
PEER = """
import base64, json, os, socket, sys
import uvicorn
from fastapi import FastAPI, Request

given = json.loads(sys.argv[1])
app = FastAPI()
events = open(given["events"] + ".jsonl", "a")

@app.post("/")
async def take(request: Request):
    body = base64.b64encode(await request.body()).decode()
    events.write(json.dumps({"headers": dict(request.headers), "body": body}) + "\\n")
    events.flush()
    os.fsync(events.fileno())
    return {}

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
with open(given["port_file"], "w") as file:
    json.dump({"http": listener.getsockname()[1]}, file)
config = uvicorn.Config(app, log_level="warning", access_log=False)
uvicorn.Server(config).run(sockets=[listener])
"""


@dataclass(frozen=True)
class Sink:
    """A running sink.

    Attributes:
        port: Where it listens.
        process: Its process.
    """

    port: int
    process: int

    def cpu(self) -> float:
        """Return the processor seconds of it and its children so far."""
        pids = [self.process]
        listed = Path(f"/proc/{self.process}/task/{self.process}/children").read_text()
        pids += [int(child) for child in listed.split()]
        ticks = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(program: str, **given: object) -> Iterator[Sink]:
    """Run a sink in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="visionloop-collector-"))
    ports = folder / "port"
    said = {"events": str(folder / "events"), "port_file": str(ports), **given}
    process = subprocess.Popen([sys.executable, "-c", program, json.dumps(said)])
    try:
        while not ports.exists() or not ports.read_text():
            time.sleep(0.05)
        time.sleep(0.5)
        yield Sink(json.loads(ports.read_text())["http"], process.pid)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def ours(keep: str) -> dict[str, object]:
    """Return the settings of our collector."""
    return {"port": 0, "host": "127.0.0.1", "keep": keep, "durable": True}


def event(size: int) -> bytes:
    """Return a V1 request with one image, about so large."""
    image = b"\xff\xd8\xff\xe0" + random.Random(0).randbytes(size * 3 // 4 - 64)
    body = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()
    headers = {
        "Ce-Id": "@" * 12,
        "Ce-Type": "org.kubeflow.serving.inference.request",
        "Ce-Time": "2026-11-22T12:00:00Z",
        "Content-Type": "application/json",
    }
    return http_request("/", body, headers)


def steady(sink: Sink, seconds: float) -> tuple[Arrivals, float]:
    """Return what 1,000 small events a second come to, and the microseconds of CPU an event."""
    small = [event(SMALL)]
    arrivals(sink.port, small, rate=200, count=200)
    before = sink.cpu()
    found = arrivals(sink.port, small, rate=RATE, count=int(RATE * seconds))
    return found, (sink.cpu() - before) / max(1, found.acknowledged) * 1e6


def mixed(sink: Sink, seconds: float) -> tuple[Arrivals, Arrivals]:
    """Return what 200 small events a second and one of 19 MB a second come to."""
    found: dict[str, Arrivals] = {}

    def send(name: str, size: int, rate: float) -> None:
        found[name] = arrivals(sink.port, [event(size)], rate=rate, count=int(rate * seconds))

    threads = [
        threading.Thread(target=send, args=one)
        for one in (("small", SMALL, 200.0), ("large", LARGE, 1.0))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found["small"], found["large"]


def bare(seconds: float) -> list[float]:
    """Return sorted seconds of an append of 24 KB and its fsync, one after the other."""
    times = []
    with tempfile.NamedTemporaryFile(prefix="visionloop-collector-") as file:
        data = random.Random(0).randbytes(SMALL)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            os.write(file.fileno(), data)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)


def told(
    case: str, found: Arrivals, peer: Arrivals, shares: tuple[tuple[str, float], ...]
) -> list[Row]:
    """Return the rows of a run: events not acknowledged, quantiles, and how late events were sent.

    Args:
        case: What was run.
        found: What ours came to.
        peer: What the peer came to.
        shares: Names of the quantiles, and which they are.
    """
    rows = [Row(f"{case}: not acknowledged", found.refused, PEER_NAME, peer.refused, "events")]
    for name, share in shares:
        values = found.quantile(share) * 1e3, peer.quantile(share) * 1e3
        rows.append(Row(f"{case}: {name}", values[0], PEER_NAME, values[1], "ms"))
    rows.append(Row(f"{case}: generator late", found.late * 1e3, PEER_NAME, peer.late * 1e3, "ms"))
    return rows


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__)
    seconds = 6.0 if given.quick else 30.0
    rows: list[Row] = []
    with running(PEER) as sink:
        peer, peer_cpu = steady(sink, seconds)
    disk = bare(2.0)
    for keep in ("hashes", "bodies"):
        with running(OURS, **ours(keep)) as sink:
            found, cpu = steady(sink, seconds)
        case = f"{keep}, 1000/s of 24 KB"
        rows.append(
            Row(f"{case}: acknowledged", found.rate, PEER_NAME, peer.rate, "1/s",
                smaller_is_better=False)
        )  # fmt: skip
        rows += told(case, found, peer, (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)))
        p99 = found.quantile(0.99) * 1e3
        rows.append(Row(f"{case}: p99", p99, "goal", GOAL_MS, "ms", goal=1.0))
        rows.append(
            Row(f"{case}: p99", p99, "bare fsync p99", disk[int(0.99 * len(disk))] * 1e3, "ms")
        )
        rows.append(Row(f"{case}: CPU an event", cpu, PEER_NAME, peer_cpu, "us"))
    with running(PEER) as sink:
        peers = mixed(sink, seconds)
    with running(OURS, **ours("hashes")) as sink:
        mine = mixed(sink, seconds)
    for name, one, other in zip(("24 KB", "19 MB"), mine, peers, strict=True):
        case = f"hashes, 200/s of 24 KB + 1/s of 19 MB: {name}"
        rows += told(case, one, other, (("p50", 0.5), ("p99", 0.99)))
    report("collector", rows, as_json=given.json)


if __name__ == "__main__":
    main()
