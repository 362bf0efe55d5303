"""Segments on their way from a collector's spool to a bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.servers import storage_emulator
from visionloop.lake.storage import open_storage
from visionloop.serving.uploader import Uploader

EVENTS = "gs://bucket/lake/events"
NAME = "20261122T120000.000000Z-collector-0-1-00.events.jsonl"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a Cloud Storage without the bucket."""
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield address


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """Return a closed segment in a spool."""
    path = tmp_path / NAME
    path.write_bytes(b'{"received_at":"2026-11-22T12:00:00Z"}\n')
    return path


def make_bucket(address: str) -> None:
    requests.post(f"{address}/storage/v1/b", json={"name": "bucket"}, timeout=10)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bucket_that_is_away_for_long_gets_the_segments_when_it_is_back(
    cloud: str, segment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = 0

    def often_refused() -> bool:
        nonlocal refused
        refused += capfd.readouterr().err.count("collect: ")
        return refused >= 20

    uploader = Uploader(EVENTS, segment.parent, longest_pause=0.01)
    try:
        wait_for(often_refused)
        assert segment.exists()
        assert uploader.waiting == 1
        make_bucket(cloud)
        wait_for(lambda: uploader.waiting == 0)
    finally:
        uploader.close()
    assert not segment.exists()
    assert open_storage(EVENTS).read(f"{EVENTS}/{NAME}").startswith(b'{"received_at"')


def test_a_collector_that_ends_leaves_to_the_next_what_no_bucket_takes(
    cloud: str, segment: Path
) -> None:
    began = time.monotonic()
    Uploader(EVENTS, segment.parent).close()
    assert time.monotonic() - began < 10
    assert segment.exists()
    make_bucket(cloud)
    Uploader(EVENTS, segment.parent).close()
    assert not segment.exists()


def test_a_segment_that_cannot_be_read_keeps_no_other_waiting(
    cloud: str, segment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_bucket(cloud)
    unreadable = segment.with_name("20260101T000000.000000Z-collector-0-1-00.events.jsonl")
    unreadable.mkdir()
    uploader = Uploader(EVENTS, segment.parent, longest_pause=0.01)
    try:
        wait_for(lambda: not segment.exists())
        later = segment.with_name(NAME.replace("2026", "2027"))
        later.write_bytes(b"{}\n")
        uploader.add(later)
        wait_for(lambda: not later.exists())
        assert uploader.waiting == 1
    finally:
        uploader.close()
    assert f"{unreadable.name} cannot be read" in capfd.readouterr().err


def test_whatever_a_storage_raises_the_segment_is_offered_again(
    cloud: str, segment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(cloud)
    storage = type(open_storage(EVENTS))
    write, failures = storage.write, [1, 1]

    def broken(self: object, *given: object) -> None:
        if failures:
            failures.pop()
            raise ValueError("no storage error at all")
        write(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "write", broken)
    uploader = Uploader(EVENTS, segment.parent, longest_pause=0.01)
    try:
        wait_for(lambda: not segment.exists())
    finally:
        uploader.close()
    assert not failures
