"""What a collector refuses, how it counts it, and that it drops nothing that it acknowledged."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Server, Starter, picture
from tests.serving.test_collector import EVENT, encoded_request, lines
from visionloop.serving.segments import Position, Reader, find
from visionloop.stages.harvest import harvest


def refused(server: Server) -> dict[str, int]:
    """Return what the metrics say was refused."""
    found = {}
    for line in server.get("/metrics").decode().splitlines():
        if line.startswith("visionloop_collector_refused_total{"):
            found[line.split('"')[1]] = int(float(line.rsplit(" ", 1)[1]))
    return {reason: number for reason, number in found.items() if number}


def told(folder: Path) -> dict[str, int]:
    """Return what the segments of a folder say was refused."""
    found: dict[str, int] = {}
    for info in find(str(folder)):
        reader = Reader(info, Position())
        list(reader.events())
        for reason, number in reader.refused.items():
            found[reason] = found.get(reason, 0) + number
    return found


def send(server: Server, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20)
    client.sendall(data)
    return client


def answer(client: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        return client.recv(1000)
    return b""


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Yield a folder on a disk of its own."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("keep", ["bodies", "hashes"])
def test_what_is_refused_is_in_the_metrics_and_in_the_segments(
    start: Starter, tmp_path: Path, keep: str
) -> None:
    folder = tmp_path / "lake" / "events"
    server = start(
        "collect", events=str(folder), port=0, keep=keep, max_body_bytes=1000, body_seconds=0.2
    )
    assert server.post("/", b"x" * 2000, EVENT)[0] == 413
    assert server.post("/", b"x" * 2001, EVENT)[0] == 413
    slow = send(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + b"x" * 100)
    assert b" 408 " in answer(slow)
    assert b" 400 " in answer(send(server, b"\x16\x03\x01 no HTTP at all\r\n\r\n"))
    gone = send(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + b"x" * 100)
    gone.close()
    assert server.post("/", encoded_request(picture(1)), EVENT)[0] == 200
    expected = {"too_large": 2, "too_slow": 1, "malformed": 1, "incomplete": 1}
    assert refused(server) == expected
    assert server.stop() == 0
    assert told(folder) == expected
    assert "collect: events are refused: " in server.log.read_text()
    config = json.dumps({"lake": str(folder.parent), "name": "test"})
    page = tmp_path / "page.md"
    outputs = harvest(config=config, page=type("Page", (), {"path": str(page)})())
    assert outputs.n_events == 1  # a refusal is no event
    assert "| too_large | 2 |" in page.read_text()
    assert harvest(config=config).n_events == 0


def test_refusals_of_a_packed_segment_that_grew_are_counted_once(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "a.events.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"refused":{"overload":3}}\n'))
    (info,) = find(str(tmp_path))
    reader = Reader(info, Position())
    assert list(reader.events()) == []
    assert reader.refused == {"overload": 3}
    with path.open("ab") as file:
        file.write(gzip.compress(b'{"refused":{"overload":4,"odd":"x","less":-1}}\n{"refused":\n'))
    (info,) = find(str(tmp_path))
    again = Reader(info, reader.position)
    assert list(again.events()) == []
    assert again.refused == {"overload": 4}


def test_a_disk_that_fills_up_refuses_and_loses_nothing(start: Starter, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as disk:
        server = start("collect", events=str(disk / "events"), port=0, min_free_bytes=0)
        answers = [server.post("/", b"x" * 100_000, {"Ce-Id": f"{n}"})[0] for n in range(40)]
        acknowledged = {f"{n}" for n, status in enumerate(answers) if status == 200}
        assert len(acknowledged) > 10
        assert answers[-1] == 503
        assert set(refused(server)) <= {"disk_full", "unwritable"}
        assert {line["headers"]["ce-id"] for line in lines(disk / "events")} == acknowledged
        # Once there is room again it goes on, and tells what it refused.
        (full,) = (disk / "events").glob("*.events.jsonl")
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        time.sleep(0.3)
        assert server.post("/", b"x" * 1000, {"Ce-Id": "again"})[0] == 200
        assert server.stop() == 0
        text = full.read_bytes().splitlines()
        kept = [json.loads(line) for line in text]
        ids = {line["headers"]["ce-id"] for line in kept if "headers" in line}
        assert ids == acknowledged | {"again"}
        assert sum(told(disk / "events").values()) == 40 - len(acknowledged)


def test_so_much_of_the_disk_stays_free(start: Starter, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    server = start("collect", events=str(tmp_path / "e"), port=0, min_free_bytes=2 * free)
    with pytest.raises(OSError, match="503"):
        server.get("/readyz")
    status, body, _ = server.post("/", b"x", EVENT)
    assert (status, body) == (503, b"disk_full\n")


def test_clients_are_bounded_and_none_may_dawdle_over_its_head(
    start: Starter, tmp_path: Path
) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0, max_connections=4)
    held = [send(server, b"POST / HT") for _ in range(4)]
    time.sleep(0.2)
    # Its answer is 503, unless its own bytes meet the closed connection first.
    assert b" 200 " not in answer(send(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
    for client in held:
        client.close()
    deadline = time.monotonic() + 20
    found: dict[str, int] = {}
    while "too_large" not in found and time.monotonic() < deadline:
        endless = send(server, b"POST / HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(OSError):
            for _ in range(40):
                endless.sendall(b"X-Endless: " + b"x" * 50_000 + b"\r\n")
        time.sleep(0.05)
        with contextlib.suppress(OSError):  # the closed ones may still count as clients
            found = refused(server)
    assert found["connections"] >= 1
    assert found["too_large"] >= 1


def test_a_kept_connection_serves_many_events_with_limits_on_each(
    start: Starter, tmp_path: Path
) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0, body_seconds=0.3)
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=20)
    for number in range(3):
        connection.request("POST", "/", body=b"x" * 100, headers={"Ce-Id": f"{number}"})
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (200, b"")
        time.sleep(0.35)
    assert len(lines(tmp_path / "events")) == 3


def test_a_segment_that_a_power_cut_left_without_a_name_is_found(tmp_path: Path) -> None:
    from visionloop.serving.segment_writer import SegmentWriter

    lost: dict[str, Any] = {"headers": {"ce-id": "lost"}}
    (tmp_path / ".aa.events.jsonl.part").write_text(json.dumps(lost) + "\n")
    (tmp_path / ".bb.events.jsonl.part").touch()
    SegmentWriter(tmp_path).close()
    assert lines(tmp_path) == [lost]
    assert len(list(tmp_path.iterdir())) == 1
