"""A source that is to be copied later is copied then, known images and all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import tar
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.identity import is_sample
from visionloop.lake.storage import open_storage
from visionloop.stages.ingest import ingest


class Metrics:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.values[metric] = value


def test_copying_that_is_switched_on_later_copies_what_is_known(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.jpg").write_bytes(encoded(photograph(40, 32, number), "JPEG"))
    tar(source / "a.tar", {"x.png": encoded(photograph(40, 32, 9))})

    def settings(copy: bool) -> str:
        one = {"uri": str(source), "kind": "tar", "copy": copy}
        told = {"name": "test", "lake": str(tmp_path / "lake"), "sources": [one]}
        return json.dumps(told | {"holdout": {"fraction": 0.0}})

    assert ingest(config=settings(False)).n_new == 4
    (source / "0.jpg").write_bytes(b"overwritten")
    metrics = Metrics()
    ingest(config=settings(True), metrics=metrics)
    assert (metrics.values["n_copied"], metrics.values["n_not_copied"]) == (3, 1)
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    shutil.rmtree(source)
    rows = lake.read("samples").to_pylist()
    kept = [row for row in rows if row["uri"].startswith(lake.path("media"))]
    assert len(kept) == 3 and len(rows) == 4
    for row in kept:
        assert is_sample(row["sample_id"], open_storage(row["uri"]).read(row["uri"]))
        assert "/in/" in row["source_uri"]
    assert [found for found in check(lake) if found.broken] == []
