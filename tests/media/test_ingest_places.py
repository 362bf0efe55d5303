"""Files that go, come back, move and change: marked, never forgotten, and samples follow them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.media.test_ingest import Loop, picture
from visionloop.lake import storage
from visionloop.lake.storage import FileStorage, name_of, normalise


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def states(loop: Loop) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(loop.rows("files"), key=lambda r: (r["uri"], r["generation"])):
        found.setdefault(name_of(row["uri"]), []).append((row["state"], row["reason"]))
    return found


def missing(loop: Loop) -> list[str]:
    places = {r["sample_id"]: name_of(r["uri"]) for r in loop.rows("samples")}
    return sorted(places[f["subject"]] for f in loop.rows("flags") if f["kind"] == "media_missing")


def test_a_file_that_is_gone_is_marked_and_its_sample_flagged_until_it_is_back(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put("a.png", picture(1))
    gone = loop.put("it's gone.png", picture(2))
    bad = loop.put("bad.png", b"no picture")
    loop.ingest()
    held, when = gone.read_bytes(), gone.stat().st_mtime_ns
    bad_when = bad.stat().st_mtime_ns
    gone.unlink()
    bad.unlink()
    assert loop.ingest()[2:6] == (1, 0, 0, 1)
    assert states(loop) == {
        "a.png": [("ok", "")],
        "bad.png": [("removed", "not_an_image")],
        "it's gone.png": [("removed", "gone")],
    }
    assert missing(loop) == ["it's gone.png"]
    assert loop.metrics.metrics["n_removed"] == 2
    assert loop.metrics.metrics["n_media_missing"] == 1
    before = loop.lake.version()
    loop.ingest()
    assert missing(loop) == ["it's gone.png"], "it is flagged once"
    assert loop.lake.version() == before, "nothing is written anew"
    gone.write_bytes(held)
    os.utime(gone, ns=(when, when))
    bad.write_bytes(b"no picture")
    os.utime(bad, ns=(bad_when, bad_when))
    read: list[str] = []
    original = FileStorage.read
    monkeypatch.setattr(
        FileStorage, "read", lambda self, uri: read.append(uri) or original(self, uri)
    )
    assert loop.ingest()[2:6] == (3, 0, 0, 3)
    assert not [uri for uri in read if "/source/" in uri], "the same file needs no second reading"
    assert states(loop) == {
        "a.png": [("ok", "")],
        "bad.png": [("unreadable", "not_an_image")],
        "it's gone.png": [("ok", "")],
    }
    assert missing(loop) == [] and len(loop.rows("samples")) == 2


def test_a_file_that_comes_back_rewritten_is_verified_and_no_longer_missing(loop: Loop) -> None:
    loop.put("a.png", picture(1))
    gone = loop.put("b.png", picture(2))
    loop.ingest()
    gone.unlink()
    loop.ingest()
    assert missing(loop) == ["b.png"]
    gone.write_bytes(picture(2))
    os.utime(gone, ns=(5, 5))
    assert loop.ingest()[2:6] == (2, 0, 0, 2)
    assert missing(loop) == []
    assert states(loop)["b.png"] == [("removed", "gone"), ("ok", "")] or states(loop)["b.png"] == [
        ("ok", ""),
        ("removed", "gone"),
    ]


def test_a_file_that_was_moved_takes_its_sample_along(loop: Loop) -> None:
    path = loop.put("a.png", picture(1))
    loop.ingest()
    [before] = loop.rows("samples")
    (loop.source / "new place").mkdir()
    path.rename(loop.source / "new place" / "z.png")
    loop.ingest()
    [after] = loop.rows("samples")
    assert after["uri"] == normalise(loop.source / "new place" / "z.png")
    assert after["source_uri"] == before["source_uri"]
    assert after["split"] == before["split"] and after["ingested_at"] == before["ingested_at"]
    assert missing(loop) == [] and loop.metrics.metrics["n_moved"] == 1
    assert states(loop) == {"a.png": [("removed", "gone")], "z.png": [("ok", "")]}


def test_a_copy_that_is_known_takes_the_place_of_the_first_file(loop: Loop) -> None:
    first = loop.put("a.png", picture(1))
    loop.put("b.png", picture(1))
    loop.put("c.png", picture(2))
    loop.ingest()
    first.unlink()
    loop.ingest()
    assert {name_of(r["uri"]) for r in loop.rows("samples")} == {"b.png", "c.png"}
    assert missing(loop) == []


def test_an_overwritten_file_leaves_its_old_sample_without_a_place(loop: Loop) -> None:
    path = loop.put("a.png", picture(1))
    loop.ingest()
    path.write_bytes(picture(2))
    os.utime(path, ns=(10**18, 10**18))
    assert loop.ingest()[2:6] == (1, 1, 0, 0)
    assert sorted(states(loop)["a.png"]) == [("ok", ""), ("removed", "replaced")]
    old = [f["subject"] for f in loop.rows("flags") if f["kind"] == "media_missing"]
    assert len(old) == 1 and len(loop.rows("samples")) == 2


def test_a_copied_image_is_never_missing(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.settings["sources"][0]["copy"] = True
    path = loop.put("a.png", picture(1))
    loop.ingest()
    path.unlink()
    loop.ingest()
    assert states(loop)["a.png"] == [("removed", "gone")]
    assert missing(loop) == []


def test_a_source_that_is_no_longer_named_or_fails_to_list_marks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.png").write_bytes(picture(2))
    loop.put("a.png", picture(1))
    loop.settings["sources"].append({"uri": str(other)})
    loop.ingest()
    (other / "b.png").unlink()
    loop.settings["sources"] = loop.settings["sources"][:1]
    loop.ingest()
    assert states(loop)["b.png"] == [("ok", "")]
    loop.settings["sources"].append({"uri": str(other)})
    original = FileStorage.list

    def fails(self: FileStorage, prefix: str) -> Any:
        if prefix.endswith("/other"):
            raise storage.StorageError("cannot list: Input/output error", where=prefix)
        return original(self, prefix)

    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "list", fails)
        with pytest.raises(storage.StorageError):
            loop.ingest()
    assert states(loop)["b.png"] == [("ok", "")]
    loop.ingest()
    assert states(loop)["b.png"] == [("removed", "gone")]


def test_a_sidecar_that_changes_or_comes_late_is_read_and_its_image_is_not(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put("a.png", picture(1))
    sidecar = loop.put("a.json", {"camera": "dock", "iso": 100})
    loop.put("b.png", picture(2))
    loop.put("copy of a.png", picture(1))
    loop.ingest()
    read: list[str] = []
    original = FileStorage.read
    monkeypatch.setattr(
        FileStorage, "read", lambda self, uri: read.append(uri) or original(self, uri)
    )
    sidecar.write_text('{"camera": "roof", "weather": "fog"}')
    os.utime(sidecar, ns=(10**18, 10**18))
    loop.put("b.json", {"camera": "yard"})
    loop.put("copy of a.json", {"camera": "nobody asks a copy"})
    assert loop.ingest()[2:6] == (3, 0, 0, 3)
    mine = sorted(name_of(uri) for uri in read if "/source/" in uri)
    assert mine == ["a.json", "b.json", "copy of a.json"]
    rows = {r["camera"]: r for r in loop.rows("metadata")}
    assert set(rows) == {"roof", "yard"}
    assert rows["roof"]["weather"] == "fog" and rows["roof"]["iso"] is None
    assert loop.metrics.metrics["n_renewed_metadata"] == 2
    read.clear()
    loop.ingest()
    assert not [uri for uri in read if "/source/" in uri]


def test_a_sample_without_a_place_is_never_selected(loop: Loop) -> None:
    from visionloop.lake import Lake
    from visionloop.selection.config import SelectionConfig
    from visionloop.selection.eligibility import eligible
    from visionloop.selection.material import read_material
    from visionloop.stages.infer import infer

    paths = [loop.put(f"{number}.png", picture(number)) for number in range(8)]
    loop.settings["holdout"] = {"fraction": 0}
    loop.ingest()
    infer(config=json.dumps(loop.settings))
    paths[3].unlink()
    loop.ingest()
    opened: Lake = loop.lake
    for flags in (("near_duplicate",), ()):
        config = SelectionConfig(exclude_flags=flags)
        found = read_material(opened, config)
        left = eligible(
            found.pool,
            config,
            labelled=found.labelled,
            holdout=found.holdout,
            taken=found.taken,
            excluded=found.excluded,
        )
        assert len(left.rows) == 7 and left.removed["flagged media_missing"] == 1
