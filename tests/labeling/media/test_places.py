"""Where samples lie: one reads a new version while the others go on; errors are not hidden."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from visionloop.errors import VisionloopError
from visionloop.labeling.media import places
from visionloop.labeling.media.places import Places
from visionloop.lake import Lake


def sample(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def put(lake: Lake, *numbers: int) -> None:
    ids = [sample(n) for n in numbers]
    with lake.run(stage="ingest", round_id="0000") as run:
        run.append(
            "samples", pa.table({"sample_id": ids, "uri": [f"file:///{n}" for n in numbers]})
        )
        run.append("label_requests", pa.table({"sample_id": ids[:1]}))
        run.commit()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.0)


def test_samples_are_found_whether_they_were_asked_about_or_not(
    tmp_path: Path, at_once: None
) -> None:
    lake = Lake.open(str(tmp_path / "lake"), loop="loop")
    put(lake, 1, 2)
    found = Places(str(tmp_path / "lake"))
    assert [found.find(sample(n)) for n in (1, 2, 3)] == ["file:///1", "file:///2", None]
    put(lake, 3)
    assert found.find(sample(3)) == "file:///3" and found.loops() == 1


def test_what_was_forgotten_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_LOOKED_UP", 1)
    put(Lake.open(str(tmp_path / "lake"), loop="loop"), 1, 2, 3)
    found = Places(str(tmp_path / "lake"))
    for n in (2, 3, 2, 2, 3):
        assert found.find(sample(n)) == f"file:///{n}"


def test_only_one_waits_for_a_new_version(
    tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.open(str(tmp_path / "lake"), loop="loop")
    put(lake, 1)
    found = Places(str(tmp_path / "lake"))
    assert found.find(sample(1)) == "file:///1"
    reading, goes_on = threading.Event(), threading.Event()
    asked = found._asked

    def slow(versions: dict[str, str]) -> dict[str, str]:
        reading.set()
        assert goes_on.wait(30)
        return asked(versions)

    monkeypatch.setattr(found, "_asked", slow)
    put(lake, 2)
    other = threading.Thread(target=found.find, args=(sample(2),))
    other.start()
    try:
        assert reading.wait(30)
        assert found.find(sample(1)) == "file:///1"
    finally:
        goes_on.set()
        other.join(30)
    assert found.find(sample(2)) == "file:///2"


def test_a_catalog_that_is_away_is_asked_once_and_everybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(Lake.open(str(tmp_path / "lake"), loop="loop"), 1)
    calls: list[str] = []

    def away(*given: object, **named: object) -> list[str]:
        calls.append("loops")
        raise VisionloopError("the catalog is away")

    found = Places(str(tmp_path / "lake"))
    with monkeypatch.context() as patched:
        patched.setattr(Lake, "loops", away)
        for _ in range(3):
            with pytest.raises(VisionloopError, match="the catalog is away"):
                found.find(sample(1))
        assert len(calls) == 1
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.0)
    assert found.find(sample(1)) == "file:///1"
