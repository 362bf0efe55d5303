"""A file that was overwritten is read again, also where its time was set back."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import tar
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.media.inspect import sample_id_of
from visionloop.stages.ingest import ingest

A, B, C = (encoded(photograph(40 + 8 * seed, 32, seed)) for seed in range(3))
THEN = 1_700_000_000


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    os.utime(path, (THEN, THEN))
    return path


def test_a_file_of_another_size_with_the_same_time_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    place = write(tmp_path / "in" / "a.png", A)
    write(tmp_path / "in" / "b.png", C)
    told = {
        "name": "test",
        "lake": str(tmp_path / "lake"),
        "sources": [{"uri": str(tmp_path / "in")}],
        "holdout": {"fraction": 0.0},
    }
    config = json.dumps(told)
    assert ingest(config=config)[2:7] == (2, 2, 0, 0, 0)
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    write(place, B)
    assert ingest(config=config)[2:7] == (2, 1, 0, 1, 0)
    for _ in range(2):
        assert ingest(config=config)[2:7] == (2, 0, 0, 2, 0)
        live = {r["uri"]: r for r in lake.read("files").to_pylist() if r["state"] == "ok"}
        assert len(live) == 2 and live[place.as_uri()]["sample_id"] == sample_id_of(B)
    assert [found for found in check(lake) if found.broken] == []
    write(place, A)
    assert ingest(config=config)[2:7] == (2, 0, 0, 2, 0)
    rows = lake.read("files").to_pylist()
    assert {r["sample_id"] for r in rows if r["state"] == "ok"} == {
        sample_id_of(A),
        sample_id_of(C),
    }
    assert [found for found in check(lake) if found.broken] == []


def test_a_tar_that_was_built_anew_with_the_same_time_is_opened_again(tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(photograph(96, 80, number)) for number in range(6)}
    place = tar(tmp_path / "a.tar", dict(list(files.items())[:3]))
    os.utime(place, (THEN, THEN))
    size = place.stat().st_size
    told = {
        "name": "test",
        "lake": str(tmp_path / "lake"),
        "sources": [{"uri": str(place)}],
        "holdout": {"fraction": 0.0},
    }
    config = json.dumps(told)
    assert ingest(config=config)[2:4] == (3, 3)
    tar(place, files)
    os.utime(place, (THEN, THEN))
    assert place.stat().st_size > size
    assert ingest(config=config)[2:4] == (6, 3)
    assert ingest(config=config)[2:4] == (6, 0)
