"""A collector that is killed, cut off from its lake, told wrong times, or fed garbage."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.serving.conftest import Server, Starter, picture
from tests.serving.test_collector import children, encoded_request
from tests.serving.test_collector_room import refused
from visionloop.lake import Lake
from visionloop.stages.harvest import HarvestOutputs, harvest

ANSWER = b'{"predictions": [[0.25, 0.75]]}'


def posting(server: Server, stop: threading.Event, acknowledged: list[str], name: str) -> None:
    """Post a request and its response, one pair after the other; note what is acknowledged."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=10)
    body = encoded_request(picture(1, size=64))
    number = 0
    while not stop.is_set():
        for kind, data in (("request", body), ("response", ANSWER)):
            headers = {
                "Ce-Id": f"{name}-{number}",
                "Ce-Type": f"org.kubeflow.serving.inference.{kind}",
                "Ce-Time": datetime.now(UTC).isoformat(),
                "Content-Type": "application/json",
            }
            try:
                connection.request("POST", "/", body=data, headers=headers)
                reply = connection.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException):
                return
            if reply.status == 200:
                acknowledged.append(f"{name}-{number} {kind}")
        number += 1


def into_the_lake(folder: Path) -> HarvestOutputs:
    return harvest(config=json.dumps({"lake": str(folder.parent), "name": "test"}))


def killed_under_load(start: Starter, folder: Path, keep: str, kills: int, seed: int) -> None:
    """Kill collectors at random moments, with a harvest between two, and look at the lake."""
    chance = random.Random(seed)
    acknowledged: list[str] = []
    for turn in range(kills):
        server = start("collect", events=str(folder), port=0, keep=keep, max_segment_bytes=200_000)
        reducers = children(server.process.pid)
        stop = threading.Event()
        clients = [
            threading.Thread(target=posting, args=(server, stop, acknowledged, f"{turn}-{n}"))
            for n in range(4)
        ]
        for client in clients:
            client.start()
        time.sleep(chance.uniform(0.05, 0.6))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        stop.set()
        for client in clients:
            client.join()
        for reducer in reducers if chance.random() < 0.5 else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(reducer, signal.SIGKILL)
        if chance.random() < 0.3 and acknowledged:
            into_the_lake(folder)
    # With hashes, what a killed one left is reduced by the next.
    server = start("collect", events=str(folder), port=0, keep=keep)
    assert server.stop() == 0
    into_the_lake(folder)
    assert into_the_lake(folder).n_events == 0
    lake = Lake.open(str(folder.parent), loop="test")
    rows = lake.read("harvest_events").to_pylist()
    once = Counter(
        f"{row['event_id']} {row['kind']}" for row in rows if row["state"] != "duplicate"
    )
    assert len(acknowledged) > 10 * kills
    assert set(acknowledged) <= set(once)
    assert set(once.values()) == {1}
    pairs = {line.split()[0] for line in acknowledged if line.endswith(" response")}
    confidences = Counter(row["event_id"] for row in lake.read("confidences").to_pylist())
    assert pairs <= set(confidences)
    assert set(confidences.values()) == {1}


@pytest.mark.parametrize("keep", ["bodies", "hashes"])
def test_everything_acknowledged_is_in_the_lake_once_after_kills_under_load(
    start: Starter, tmp_path: Path, keep: str
) -> None:
    killed_under_load(start, tmp_path / "lake" / "events", keep, kills=3, seed=7)


@pytest.mark.soak
@pytest.mark.parametrize("keep", ["bodies", "hashes"])
def test_everything_acknowledged_is_in_the_lake_once_after_fifty_kills(
    start: Starter, tmp_path: Path, keep: str
) -> None:
    seed = time.time_ns() % 100_000
    print(f"seed {seed}")
    killed_under_load(start, tmp_path / "lake" / "events", keep, kills=50, seed=seed)


def lake_away(
    start: Starter, tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Let the bucket be away until the spool is full, and for so long at least."""
    import requests

    from tests.servers import storage_emulator
    from visionloop.serving.segments import Position, Reader, find

    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        server = start(
            "collect",
            events="gs://bucket/lake/events",
            port=0,
            spool=str(tmp_path / "spool"),
            keep=keep,
            max_segment_seconds=0.2,
            max_spool_bytes=400_000,
        )
        headers = {"Ce-Type": "org.kubeflow.serving.inference.response"}

        def post(number: int) -> int:
            return server.post("/", b"x" * 30_000, {**headers, "Ce-Id": f"{number}"})[0]

        def until(condition: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 40
            while not condition():
                assert time.monotonic() < deadline
                time.sleep(0.05)

        # There is no bucket yet: whatever is acknowledged waits, and no more than there is room.
        number, acknowledged = 0, set[str]()
        back = time.monotonic() + seconds
        while refused(server).get("spool_full", 0) < 3 or time.monotonic() < back:
            if post(number) == 200:
                acknowledged.add(f"{number}")
            number += 1
            assert number < 60 + 20 * seconds
            time.sleep(0.05)
        assert len(acknowledged) > 4
        requests.post(f"{address}/storage/v1/b", json={"name": "bucket"}, timeout=10)
        until(lambda: post(1000) == 200)
        assert server.stop() == 0
        assert not list((tmp_path / "spool").glob("*.events.jsonl"))
        events: Counter[str] = Counter()
        told: Counter[str] = Counter()
        for info in find("gs://bucket/lake/events"):
            reader = Reader(info, Position())
            events.update(event.event_id for event in reader.events())
            told += reader.refused
        assert events == dict.fromkeys(acknowledged | {"1000"}, 1)
        assert told["spool_full"] >= 3


@pytest.mark.parametrize("keep", ["bodies", "hashes"])
def test_while_the_lake_is_away_events_are_spooled_until_the_spool_is_full_then_they_drain(
    start: Starter, tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake_away(start, tmp_path, keep, monkeypatch, seconds=0)


@pytest.mark.soak
@pytest.mark.parametrize("keep", ["bodies", "hashes"])
def test_a_lake_that_is_away_for_a_minute_gets_all_that_was_acknowledged(
    start: Starter, tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake_away(start, tmp_path, keep, monkeypatch, seconds=60)


def test_clocks_that_differ_or_are_years_off_lose_nothing(start: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "lake" / "events"
    server = start("collect", events=str(folder), port=0, keep="hashes")
    now = datetime.now(UTC)
    # Between the two events of an inference, for each: the request's clock and the response's.
    skews = [(0.0, 0.0), (-50.0, 50.0), (50.0, -50.0), (3000.0, 3000.5), (-(10.0**9), -(10.0**9))]
    for number, (asked, answered) in enumerate(skews):
        for kind, body, skew in (
            ("request", encoded_request(picture(number)), asked),
            ("response", ANSWER, answered),
        ):
            headers = {
                "Ce-Id": f"{number}",
                "Ce-Type": f"org.kubeflow.serving.inference.{kind}",
                "Ce-Time": (now + timedelta(seconds=skew)).isoformat(),
            }
            assert server.post("/", body, headers)[0] == 200
    assert server.post("/", ANSWER, {**headers, "Ce-Id": "odd", "Ce-Time": "yesterday"})[0] == 200
    assert server.stop() == 0
    outputs = into_the_lake(folder)
    assert (outputs.n_events, outputs.n_confidences) == (11, 6)
    rows = Lake.open(str(folder.parent), loop="test").read("confidences").to_pylist()
    assert Counter(row["event_id"] for row in rows) == Counter(["0", "1", "2", "3", "4", "odd"])
    # A year that cannot be is not believed: then it is when the collector got it.
    for row in rows:
        assert abs(row["occurred_at"] - now) < timedelta(hours=1)
