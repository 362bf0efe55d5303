"""A lake that lies in its own source is no source of images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.media.pictures import encoded, photograph
from visionloop.lake import Lake
from visionloop.lake.storage import local_path
from visionloop.media.sources.folder import below_root
from visionloop.stages.ingest import ingest
from visionloop.stages.list_files import list_files


@pytest.mark.parametrize("by_link", [False, True], ids=["as it is", "reached by a link"])
def test_files_of_a_lake_in_its_own_source_are_not_counted(tmp_path: Path, by_link: bool) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.jpg").write_bytes(encoded(photograph(40, 32, number), "JPEG"))
    (tmp_path / "link").symlink_to(source)
    root = (tmp_path / "link" if by_link else source) / "lake"
    told = {
        "name": "test",
        "lake": str(root),
        "sources": [{"uri": str(source), "copy": True}],
        "holdout": {"fraction": 0.0},
    }
    config = json.dumps(told)
    assert ingest(config=config)[2:7] == (3, 3, 0, 0, 0)
    lake = Lake.open(str(root), loop="test")
    copies = [local_path(uri) for uri in lake.read("samples")["uri"].to_pylist()]
    assert all("lake/media" in str(path) and path.exists() for path in copies)
    assert list_files(config=config).n_files == 0
    assert ingest(config=config)[2:7] == (3, 0, 0, 3, 0)
    assert lake.read("files").num_rows == 3


def test_a_folder_is_told_below_a_root_and_nowhere_else(tmp_path: Path) -> None:
    assert below_root("gs://b/set", "gs://b/set/lake") == "gs://b/set/lake/"
    assert below_root("gs://b/set", "gs://b/sets") == ""
    assert below_root("gs://b/set", f"file://{tmp_path}") == ""
    assert below_root(f"file://{tmp_path}/a", str(tmp_path)) == ""
    assert (
        below_root(f"file://{tmp_path}", f"{tmp_path}/my lake") == f"file://{tmp_path}/my%20lake/"
    )
