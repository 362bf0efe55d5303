"""The collector as a process of its own: what it acknowledged is there, whatever happens to it."""
# Over 400 lines: one server, whose faults are told by what it kept.

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Server, Starter, picture

EVENT = {
    "Ce-Id": "one",
    "Ce-Type": "org.kubeflow.serving.inference.request",
    "Content-Type": "application/json",
}


def lines(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("*.events.jsonl")):
        text = path.read_bytes()
        found += [json.loads(line) for line in text.split(b"\n")[:-1]]
    return found


def hammer(server: Server, stop: threading.Event, acknowledged: list[str], name: int) -> None:
    """Post events one after the other; note each that was acknowledged."""
    number = 0
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=5)
    while not stop.is_set():
        event_id = f"{name}-{number}"
        try:
            connection.request("POST", "/", body=b"x" * 20_000, headers={"Ce-Id": event_id})
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            return
        if reply.status == 200:
            acknowledged.append(event_id)
        number += 1


def test_what_was_acknowledged_survives_kill_9(start: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    acknowledged: list[str] = []
    for turn in range(3):
        server = start("collect", events=str(folder), port=0, max_segment_bytes=2_000_000)
        stop = threading.Event()
        clients = [
            threading.Thread(target=hammer, args=(server, stop, acknowledged, 10 * turn + n))
            for n in range(4)
        ]
        for client in clients:
            client.start()
        time.sleep(0.7)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        stop.set()
        for client in clients:
            client.join()
    assert len(acknowledged) > 100
    kept = [line["headers"]["ce-id"] for line in lines(folder)]
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))


def test_a_line_is_what_was_sent(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0)
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"])
    body = bytes(range(256))
    headers = {**EVENT, "Ce-Namespace": "größe".encode(), "X-Odd": ""}
    private = {
        "Authorization": "Bearer secret",
        "Proxy-Authorization": "secret",
        "Cookie": "secret",
    }
    sent: dict[str, Any] = {**headers, **private}
    connection.request("POST", "/any/path", body=body, headers=sent)
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (200, b"")
    assert server.stop() == 0
    (line,) = lines(tmp_path / "events")
    assert set(line) == {"received_at", "headers", "body_b64"}
    assert base64.b64decode(line["body_b64"]) == body
    assert line["headers"]["ce-id"] == "one"
    assert line["headers"]["content-length"] == "256"
    assert line["headers"]["ce-namespace"].encode("latin-1").decode() == "größe"
    assert line["received_at"].endswith("Z")
    assert "secret" not in str(line["headers"])


def test_chunked_events_are_taken(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0)
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"])
    connection.request(
        "POST", "/", body=iter([b"one ", b"two"]), headers=EVENT, encode_chunked=True
    )
    assert connection.getresponse().status == 200
    (line,) = lines(tmp_path / "events")
    assert base64.b64decode(line["body_b64"]) == b"one two"


def test_collectors_share_a_folder_and_close_segments_by_size_and_age(
    start: Starter, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    servers = [
        start("collect", events=str(folder), port=0, max_segment_bytes=30_000),
        start("collect", events=str(folder), port=0, max_segment_seconds=0.2),
    ]
    for number in range(12):
        for server in servers:
            status, _, _ = server.post("/", b"x" * 9_000, {"Ce-Id": f"{number}"})
            assert status == 200
        time.sleep(0.05)
    for server in servers:
        server.stop()
    assert len(lines(folder)) == 24
    assert len(list(folder.glob("*.events.jsonl"))) >= 6


def test_health_and_counts(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0, max_body_bytes=1000)
    assert server.get("/healthz") == b"alive\n"
    assert server.get("/readyz") == b"ready\n"
    assert server.post("/", b"x" * 2000)[0] == 413
    assert server.post("/", b"x" * 200)[0] == 200
    metrics = server.get("/metrics").decode()
    assert "visionloop_collector_events_total 1" in metrics
    assert 'visionloop_collector_refused_total{reason="too_large"} 1' in metrics


def test_load_is_shed_at_once_and_not_made_to_wait(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0, max_queued_bytes=50_000)
    slow = socket.create_connection(("127.0.0.1", server.ports["http"]))
    slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 49000\r\n\r\n" + b"x" * 100)
    time.sleep(0.2)
    began = time.monotonic()
    status, _, headers = server.post("/", b"x" * 10_000, EVENT)
    assert (status, headers["retry-after"]) == (503, "1")
    assert time.monotonic() - began < 1
    slow.close()
    time.sleep(0.2)
    assert server.post("/", b"x" * 10_000, EVENT)[0] == 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    from visionloop.errors import VisionloopError
    from visionloop.serving.segment_writer import SegmentWriter

    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(VisionloopError, match="cannot write"):
        SegmentWriter(tmp_path / "locked")


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path, monkeypatch: Any) -> None:
    from visionloop.serving import segment_writer

    writer = segment_writer.SegmentWriter(tmp_path)
    results: list[bool] = []
    done = threading.Event()

    def note(ok: bool) -> None:
        results.append(ok)
        done.set()

    def write(data: bytes) -> None:
        done.clear()
        writer.write([data[:3], data[3:]], note)
        done.wait(5)

    write(b'{"one": 1}\n')
    real = os.write

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", lambda fd, parts: real(fd, parts[0]))
        patched.setattr(os, "write", full)
        write(b'{"two": 2}\n')
    assert "No space left" in writer.written.error
    write(b'{"three": 3}\n')
    writer.close()
    assert results == [True, False, True]
    (path,) = tmp_path.glob("*.events.jsonl")
    assert path.read_bytes() == b'{"one": 1}\n{"three": 3}\n'


def test_hashes_alone_are_kept_on_demand_and_harvested_alike(
    start: Starter, tmp_path: Path
) -> None:
    from visionloop.serving.harvesting import harvest_events, see
    from visionloop.serving.segments import Position, Reader, find

    image = picture(3)
    request = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()
    reply = json.dumps({"predictions": [[0.25, 0.75]]}).encode()
    tables = []
    for keep in ("bodies", "hashes"):
        folder = tmp_path / keep
        server = start("collect", events=str(folder), port=0, keep=keep)
        for kind, body in (("request", request), ("response", reply)):
            kinds = {"Ce-Type": f"org.kubeflow.serving.inference.{kind}"}
            times = {"Ce-Time": "2026-01-01T00:00:00Z"}
            assert server.post("/", body, {**EVENT, **kinds, **times})[0] == 200
        server.stop()
        from datetime import UTC, datetime

        seen = [see(e) for info in find(str(folder)) for e in Reader(info, Position()).events()]
        found = harvest_events(seen, [], orphaned_before=datetime.now(UTC))
        tables.append(found.new_confidences.drop_columns(["occurred_at"]).to_pylist())
    assert tables[0] == tables[1]
    assert tables[1][0]["sample_id"] == hashlib.sha256(image).hexdigest()
    files = [path for path in (tmp_path / "hashes").rglob("*") if path.is_file()]
    text = b"".join(path.read_bytes() for path in files)
    assert base64.b64encode(request)[:60] not in text
    assert request[20:60] not in text


def test_closed_segments_go_to_a_bucket_also_those_of_a_killed_collector(
    start: Starter, tmp_path: Path, monkeypatch: Any
) -> None:
    from tests.servers import storage_emulator

    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        import requests

        requests.post(f"{address}/storage/v1/b", json={"name": "bucket"}, timeout=10)
        spool = str(tmp_path / "spool")
        arguments = {"events": "gs://bucket/lake/events", "port": 0, "spool": spool}
        server = start("collect", **arguments)
        assert server.post("/", b"first", {"Ce-Id": "1"})[0] == 200
        server.process.kill()
        server.process.wait()
        server = start("collect", **arguments)
        assert server.post("/", b"second", {"Ce-Id": "2"})[0] == 200
        assert server.stop() == 0
        from visionloop.serving.segments import Position, Reader, find

        events = [
            event
            for info in find("gs://bucket/lake/events")
            for event in Reader(info, Position()).events()
        ]
        assert sorted(event.body for event in events) == [b"first", b"second"]
        assert not list((tmp_path / "spool").glob("*"))


# --- hashes: acknowledged first, reduced beside it ------------------------------------------------


BOMB = gzip.compress(b"[" + b"0," * 31_000_000 + b"0]", compresslevel=1)  # unpacks to 62 MB


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


def wait_for_lines(folder: Path, count: int, seconds: float = 30) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    while len(found := lines(folder)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def encoded_request(image: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()


def acknowledged_in(server: Server, body: bytes, seconds: float) -> list[float]:
    """Post small events for a while; return how long each acknowledgement took."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=20)
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        connection.request("POST", "/", body=body, headers=EVENT)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 200
        times.append(time.monotonic() - began)
    return times


def test_events_are_acknowledged_while_a_bomb_beside_them_is_still_being_read(
    start: Starter, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    server = start("collect", events=str(folder), port=0, keep="hashes", max_segment_seconds=0.05)
    small = encoded_request(picture(1))
    acknowledged_in(server, small, 0.2)
    wait_for_lines(folder, 1)
    for _ in range(3):
        assert server.post("/", BOMB, {**EVENT, "Ce-Id": "bomb"})[0] == 200
    times = acknowledged_in(server, small, 1.0)
    # All of these were answered although the bombs before them were not through.
    assert len([e for e in lines(folder) if e["headers"]["ce-id"] == "bomb"]) < 3
    assert len(times) > 5
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        bombs = [line for line in lines(folder) if line["headers"]["ce-id"] == "bomb"]
        if len(bombs) == 3:
            break
        time.sleep(0.1)
    assert [line["request"]["problem"] for line in bombs] == ["request_too_many_values"] * 3


def test_large_requests_do_not_keep_small_ones_waiting(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0, keep="hashes")
    small = encoded_request(picture(1))
    pixels = json.dumps({"instances": [[[[7, 8, 9]] * 1000] * 1500]}).encode()
    assert len(pixels) > 13_000_000
    stop = threading.Event()

    def large() -> None:
        for _ in range(6):
            assert server.post("/", pixels, EVENT)[0] == 200
        stop.set()

    client = threading.Thread(target=large)
    client.start()
    times = []
    while not stop.is_set():
        times += acknowledged_in(server, small, 0.1)
    client.join()
    # Read on the loop, each of the large ones holds up everything for half a second.
    assert sorted(times)[int(0.9 * len(times))] < 0.25


def test_the_spool_is_private_and_empty_in_the_end(start: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    server = start("collect", events=str(folder), port=0, keep="hashes")
    (reducer,) = children(server.process.pid)
    os.kill(reducer, signal.SIGSTOP)
    image = picture(5)
    assert server.post("/", encoded_request(image), EVENT)[0] == 200
    (raw,) = (folder / ".raw").glob("*.raw")
    assert base64.b64encode(image) in raw.read_bytes()
    assert stat.S_IMODE(raw.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / ".raw").stat().st_mode) == 0o700
    os.kill(reducer, signal.SIGCONT)
    (line,) = wait_for_lines(folder, 1)
    assert line["request"]["samples"] == [hashlib.sha256(image).hexdigest()]
    assert "body_b64" not in line
    server.stop()
    assert not list((folder / ".raw").iterdir())


@pytest.mark.parametrize("also_the_reducer", [False, True])
def test_hashes_survive_kill_9_and_pixels_do_not(
    start: Starter, tmp_path: Path, also_the_reducer: bool
) -> None:
    folder = tmp_path / "events"
    sent: dict[str, str] = {}
    for turn in range(2):
        server = start("collect", events=str(folder), port=0, keep="hashes")
        (reducer,) = children(server.process.pid)
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            image = picture(1000 * turn + len(sent))
            headers = {**EVENT, "Ce-Id": f"{turn}-{len(sent)}"}
            assert server.post("/", encoded_request(image), headers)[0] == 200
            sent[headers["Ce-Id"]] = hashlib.sha256(image).hexdigest()
        if also_the_reducer:
            os.kill(reducer, signal.SIGKILL)
        server.process.kill()
        server.process.wait()
    server = start("collect", events=str(folder), port=0, keep="hashes")
    server.get("/healthz")
    assert server.stop() == 0
    deadline = time.monotonic() + 20
    while list((folder / ".raw").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    kept = {line["headers"]["ce-id"]: line["request"]["samples"] for line in lines(folder)}
    assert kept == {name: [sample] for name, sample in sent.items()}
    assert len(sent) > 50
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert all(path.name.endswith(".events.jsonl") for path in files)
    assert all(b"body_b64" not in path.read_bytes() for path in files)


def test_a_reducer_that_died_is_started_again(start: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    server = start("collect", events=str(folder), port=0, keep="hashes")
    (reducer,) = children(server.process.pid)
    os.kill(reducer, signal.SIGKILL)
    assert server.post("/", encoded_request(picture(1)), EVENT)[0] == 200
    assert len(wait_for_lines(folder, 1)) == 1
    assert children(server.process.pid) != [reducer]


def test_a_full_spool_refuses_events_until_there_is_room(start: Starter, tmp_path: Path) -> None:
    server = start(
        "collect", events=str(tmp_path / "e"), port=0, keep="hashes", max_spool_bytes=100_000
    )
    (reducer,) = children(server.process.pid)
    os.kill(reducer, signal.SIGSTOP)
    assert server.post("/", b"x" * 90_000, EVENT)[0] == 200
    time.sleep(0.5)
    assert server.post("/", b"x" * 20_000, EVENT)[0] == 503
    os.kill(reducer, signal.SIGCONT)
    deadline = time.monotonic() + 20
    while server.post("/", b"x" * 20_000, EVENT)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_event_that_kills_its_reader_is_given_up_and_still_counted(tmp_path: Path) -> None:
    from visionloop.serving import raw_spool
    from visionloop.serving.pixels import Pixels
    from visionloop.serving.reducing import reduce_folder
    from visionloop.serving.segment_writer import SegmentWriter

    raw = raw_spool.make_private(tmp_path / ".raw")
    head = {"received_at": "", "headers": {"ce-type": EVENT["Ce-Type"]}}
    record = b"".join(raw_spool.pack(head, [encoded_request(picture(1))]))
    (raw / "20260101.raw").write_bytes(record + record[:-1])
    for _ in range(5):  # five readers that die before they are done
        (path,) = raw_spool.segments(raw)
        with raw_spool.claim(path) as held:
            assert held is not None
            assert not held.hopeless
    writer = SegmentWriter(tmp_path)
    assert reduce_folder(raw, writer, Pixels(1.0))
    writer.close()
    (line,) = lines(tmp_path)  # the second record is cut: it was never acknowledged
    assert line["request"]["problem"] == "request_decoder_failed"
    assert not raw_spool.segments(raw)


def test_chunked_bodies_count_as_load_too(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0, max_queued_bytes=50_000)
    slow = socket.create_connection(("127.0.0.1", server.ports["http"]))
    slow.sendall(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"afc8\r\n" + b"x" * 45_000 + b"\r\n"
    )  # fmt: skip
    time.sleep(0.3)
    assert server.post("/", b"x" * 10_000, EVENT)[0] == 503
    slow.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n0\r\n\r\n")
    assert b" 503 " in slow.recv(1000)
    slow.close()
    assert server.post("/", b"x" * 10_000, EVENT)[0] == 200


def test_a_harvest_waits_for_what_was_acknowledged_and_says_what_it_missed(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from visionloop.serving import raw_spool
    from visionloop.stages import harvest

    raw = raw_spool.make_private(tmp_path / ".raw")
    (raw / "a.raw").touch()
    monkeypatch.setattr(harvest, "_SETTLE_SECONDS", 0.1)
    harvest._settle(str(tmp_path))
    assert "1 segments of acknowledged events are not reduced" in capsys.readouterr().err
    monkeypatch.setattr(harvest, "_SETTLE_SECONDS", 30)
    timer = threading.Timer(0.3, lambda: (raw / "a.raw").unlink())
    timer.start()
    began = time.monotonic()
    harvest._settle(str(tmp_path))
    assert 0.2 < time.monotonic() - began < 20
    assert capsys.readouterr().err == ""
