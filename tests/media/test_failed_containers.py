"""A container whose reading fails half-way leaves no half of itself in the lake."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.media.ingests import settings
from tests.media.pictures import encoded, photograph
from tests.media.sources.making import tar
from visionloop.lake import Lake
from visionloop.lake.archive_storage import Archive
from visionloop.lake.checking import check
from visionloop.lake.storage import StorageError
from visionloop.media import orders, pieces
from visionloop.stages.ingest import ingest


@pytest.mark.parametrize("alone", [True, False], ids=["a piece of its own", "among others"])
def test_members_of_a_container_that_could_not_be_read_to_its_end_come_in_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    monkeypatch.setattr(pieces, "ROWS", 3)
    if alone:
        monkeypatch.setattr(orders, "SMALL", 0)
    folder = tmp_path / "tars"
    for name, first in (("a", 0), ("b", 8)):
        files = {f"{n}.png": encoded(photograph(40, 32, n)) for n in range(first, first + 8)}
        tar(folder / f"{name}.tar", files)
    source = {"uri": str(folder), "kind": "tar"}
    plain = {"fraction": 0.2, "min_samples": 2}
    config = settings(folder, "lake", sources=[source], classes=[], holdout=plain)
    read, reads = Archive.read, Counter[str]()

    def fails(self: Archive, *place: Any) -> bytes:
        reads["all"] += 1
        if reads["all"] == 6:
            raise StorageError("cannot read: Input/output error", where="a.tar")
        return read(self, *place)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "read", fails)
        found = ingest(config=config)
    assert (found.n_files, found.n_new, found.n_skipped) == (9, 8, 1)
    lake = Lake.open(json.loads(config)["lake"], loop="test")
    (skipped,) = (row for row in lake.read("files").to_pylist() if row["state"] == "skipped")
    assert skipped["uri"].endswith("a.tar") and skipped["reason"] == "cannot_read"

    found = ingest(config=config)
    assert (found.n_files, found.n_new) == (16, 8)
    assert ingest(config=config)[2:4] == (16, 0)
    rows = lake.read("files").to_pylist()
    assert Counter(row["state"] for row in rows if row["state"] != "skipped")["removed"] == 0
    several = Counter((r["uri"], r["generation"]) for r in rows if r["state"] == "ok")
    assert len(several) == 16 and set(several.values()) == {1}
    assert [finding for finding in check(lake) if finding.broken] == []
