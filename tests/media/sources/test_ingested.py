"""Every kind of source through the stages: counts add up, nothing is read twice, and it is used."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import tar, video
from tests.media.sources.test_annotated import coco
from tests.serving.test_logged_images import line, v1
from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.identity import is_sample
from visionloop.lake.storage import normalise, open_storage
from visionloop.media.pieces import Pieces
from visionloop.media.sources import containers, list_file
from visionloop.serving import logged_images
from visionloop.stages.infer import infer
from visionloop.stages.ingest import IngestOutputs, ingest

PICTURES = [encoded(photograph(seed=seed), "JPEG") for seed in range(12)]


class Loop:
    """A loop with some sources."""

    def __init__(self, folder: Path, *sources: dict[str, Any], **settings: Any) -> None:
        self.lake = folder / "lake"
        self.config = {"name": "test", "lake": str(self.lake), "sources": list(sources)} | settings

    def ingest(self) -> IngestOutputs:
        found = ingest(config=json.dumps(self.config), run_id="run")
        parts = found.n_new + found.n_duplicates + found.n_unreadable + found.n_skipped
        assert found.n_files == parts
        return found

    def rows(self, table: str) -> list[dict[str, Any]]:
        return Lake.open(str(self.lake), loop="test").read(table).to_pylist()

    def told(self) -> dict[str, str]:
        """Return what the lake says of each file, by the end of its URI."""
        return {
            row["uri"].rpartition("/")[2]: row["reason"] or row["state"]
            for row in self.rows("files")
        }

    def whole(self) -> None:
        """Assert that the lake is in order and that each sample's bytes are those of its id."""
        lake = Lake.open(str(self.lake), loop="test")
        assert [one for one in check(lake) if one.state != "ok"] == []
        for row in self.rows("samples"):
            assert is_sample(row["sample_id"], open_storage(row["uri"]).read(row["uri"]))


def test_a_tar_is_ingested_used_and_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "cat/1.jpg": PICTURES[0],
        "cat/1.json": b'{"weather": "rain"}',
        "cat/1.cls": b"cat",
        "2.jpg": PICTURES[1],
        "copy.jpg": PICTURES[0],
        "../out.jpg": PICTURES[2],
        "text.md": b"no image",
    }
    path = tar(tmp_path / "set" / "000.tar", files)
    tar(tmp_path / "set" / "001.tar.gz", {"3.jpg": PICTURES[3]}, "w:gz")
    (tmp_path / "set" / "loose.jpg").write_bytes(PICTURES[4])
    loop = Loop(tmp_path, {"uri": str(tmp_path / "set"), "kind": "tar", "labels": "source"})
    found = loop.ingest()
    assert (found.n_files, found.n_new, found.n_duplicates, found.n_unreadable) == (7, 4, 1, 2)
    assert loop.told() == {
        "1.jpg": "ok",
        "2.jpg": "ok",
        "copy.jpg": "ok",
        f"%2E%2E%2Fout.jpg?offset={_offset(path, PICTURES[2])}": "unsafe_name",
        "text.md": "not_an_image",
        "000.tar": "container",
        "3.jpg": "ok",
        "001.tar.gz": "container",
        "loose.jpg": "ok",
    }
    weather = {row["sample_id"]: row.get("weather") for row in loop.rows("metadata")}
    ids = {row["source_uri"].rpartition("/")[2]: row["sample_id"] for row in loop.rows("samples")}
    assert weather == {ids["1.jpg"]: "rain"}
    assert {row["sample_id"]: row["label"] for row in loop.rows("labels")} == {ids["1.jpg"]: "cat"}
    loop.whole()
    infer(config=json.dumps(loop.config))
    assert (
        len(Lake.open(str(loop.lake), loop="test").read("flags", where="kind == 'unreadable'")) == 0
    )

    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("an archive that has not changed was opened")

    with monkeypatch.context() as patched:
        patched.setattr(containers, "tar_members", opened)
        again = loop.ingest()
    assert (again.n_files, again.n_skipped, again.n_new) == (7, 7, 0)
    tar(path, {"2.jpg": PICTURES[1], "5.jpg": PICTURES[5]})
    third = loop.ingest()
    assert third.n_new == 1 and third.n_unreadable == 0
    removed = {
        row["uri"].rpartition("/")[2] for row in loop.rows("files") if row["state"] == "removed"
    }
    assert {"copy.jpg", "text.md", "1.jpg"} <= removed


def _offset(path: Path, data: bytes) -> int:
    return path.read_bytes().index(data)


def test_videos_are_ingested_used_and_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "videos"
    video(folder / "clip.mp4", 50, created="2026-05-01T10:00:00Z", rotation=90)
    (folder / "clip.mp4.json").write_text('{"camera": "A"}')
    whole = video(tmp_path / "whole.mkv", 60).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "photo.jpg").write_bytes(PICTURES[0])
    (folder / "no.mp4").write_bytes(b"no video" * 100)
    loop = Loop(
        tmp_path,
        {"uri": str(folder), "video": {"every": 0.4}},
        holdout={"group_by": "video", "min_samples": 1},
    )
    found = loop.ingest()
    samples = loop.rows("samples")
    cut = [row for row in samples if "cut.mkv" in row["source_uri"]]
    assert 0 < len(cut) < 6
    assert (found.n_files, found.n_new, found.n_unreadable) == (
        5 + 1 + len(cut) + 2,
        6 + len(cut),
        2,
    )
    clip = sorted(
        (row for row in samples if "clip.mp4" in row["source_uri"]),
        key=lambda row: row["source_uri"],
    )
    assert [(row["width"], row["height"]) for row in clip] == [(96, 160)] * 5
    assert clip[2]["captured_at"].isoformat() == "2026-05-01T10:00:00.800000+00:00"
    assert {row["group_key"] for row in clip} == {normalise(folder / "clip.mp4")}
    assert len({row["split"] for row in clip}) == 1  # a video lies on one side of the holdout
    metadata = {row["sample_id"]: row for row in loop.rows("metadata")}
    told = metadata[clip[2]["sample_id"]]
    assert (told["camera"], told["video_frame"], told["video_seconds"]) == ("A", 20, 0.8)
    loop.whole()
    infer(config=json.dumps(loop.config))
    assert not [row for row in loop.rows("flags") if row["kind"] == "unreadable"]

    def decoded(*_: Any, **__: Any) -> Any:
        raise AssertionError("a video that has not changed was decoded")

    with monkeypatch.context() as patched:
        patched.setattr(containers, "frames", decoded)
        again = loop.ingest()
    assert (again.n_files, again.n_new, again.n_skipped) == (found.n_files, 0, found.n_files)
    # Read in another way: the frames that both ways share keep their ids.
    loop.config["sources"][0]["video"] = {"every": 0.8}
    third = loop.ingest()
    assert third.n_new == 0 and len(loop.rows("samples")) == len(samples)
    loop.whole()


def test_a_list_is_ingested_with_what_it_says(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(PICTURES[number])
    (tmp_path / "copy.jpg").write_bytes(PICTURES[0])
    (tmp_path / "broken.jpg").write_bytes(PICTURES[3][:-100])
    listed = tmp_path / "list.csv"
    rows = ["0.jpg,cat,rain", "1.jpg,dog,sun", "1.jpg,dog,sun", "gone.jpg,,", "copy.jpg,cat,"]
    listed.write_text("\n".join(["file,label,weather", *rows, "broken.jpg,,"]))
    loop = Loop(tmp_path, {"uri": str(listed), "labels": "source"})
    found = loop.ingest()
    assert (found.n_files, found.n_new, found.n_duplicates) == (5, 2, 1)
    assert (found.n_unreadable, found.n_skipped) == (1, 1)
    assert loop.told()["gone.jpg"] == "missing"
    assert Counter(row["label"] for row in loop.rows("labels")) == {"cat": 1, "dog": 1}
    assert {row["weather"] for row in loop.rows("metadata")} == {"rain", "sun"}
    loop.whole()
    (tmp_path / "gone.jpg").write_bytes(PICTURES[4])
    listed.write_text(listed.read_text() + "\n2.jpg,bird,snow\n")
    assert loop.ingest().n_new == 2


def test_logged_requests_are_ingested_under_the_ids_of_confidences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events"
    events.mkdir()
    segment = events / "a.events.jsonl"
    hashed = line(b"", body_sha256="0" * 64, request={"samples": ["1" * 64], "tensors": [None]})
    segment.write_bytes(line(v1(PICTURES[0], PICTURES[1])) + hashed + line(PICTURES[0]))
    loop = Loop(tmp_path, {"uri": str(events), "kind": "events"})
    found = loop.ingest()
    assert (found.n_files, found.n_new, found.n_duplicates, found.n_unreadable) == (4, 2, 1, 1)
    assert loop.told()["00000002-0"] == "no_pixels"
    assert {row["endpoint"] for row in loop.rows("metadata")} == {"clothing"}
    assert all(row["uri"].startswith(normalise(loop.lake)) for row in loop.rows("samples"))
    loop.whole()

    def read(*_: Any, **__: Any) -> Any:
        raise AssertionError("a file of events that has not changed was read")

    with monkeypatch.context() as patched:
        patched.setattr(logged_images, "Reader", read)
        assert loop.ingest().n_skipped == 4
    with segment.open("ab") as file:
        file.write(line(v1(PICTURES[2])))
    grown = loop.ingest()
    assert grown.n_new == 1 and len(loop.rows("samples")) == 3
    loop.whole()


def test_an_annotated_set_is_ingested_with_its_boxes(tmp_path: Path) -> None:
    loop = Loop(tmp_path, {"uri": str(coco(tmp_path / "cells")), "format": "coco"})
    found = loop.ingest()
    assert (found.n_files, found.n_new, found.n_skipped) == (3, 2, 1)
    (row,) = [row for row in loop.rows("labels") if row["boxes"]]
    assert (row["task"], row["label"]) == ("detection", None)
    assert [box["label"] for box in row["boxes"]] == ["cell"]
    loop.whole()
    # A copy of an image brings nothing that is known already.
    set_ = tmp_path / "cells" / "set.json"
    set_.write_text(set_.read_text().replace("images/3.jpg", "images/1 copy.jpg"))
    picture = tmp_path / "cells" / "images" / "1.jpg"
    (picture.parent / "1 copy.jpg").write_bytes(picture.read_bytes())
    n = len(loop.rows("labels"))
    assert loop.ingest().n_duplicates == 1 and len(loop.rows("labels")) == n


def test_a_number_is_the_place_of_a_class_where_classes_are_named(tmp_path: Path) -> None:
    files = {"1.jpg": PICTURES[0], "1.cls": b"1", "2.jpg": PICTURES[1], "2.cls": b"cat"}
    source = {"uri": str(tar(tmp_path / "a.tar", files)), "labels": "source"}
    named = Loop(tmp_path / "named", source, classes=["cat", "dog"])
    named.ingest()
    assert Counter(row["label"] for row in named.rows("labels")) == {"dog": 1, "cat": 1}
    learnt = Loop(tmp_path / "learnt", source)
    learnt.ingest()
    assert Counter(row["label"] for row in learnt.rows("labels")) == {"1": 1, "cat": 1}
    with pytest.raises(InputError, match="classes of imported labels"):
        Loop(tmp_path / "few", source, classes=["cat"]).ingest()


def test_many_small_containers_are_kept_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        tar(tmp_path / "set" / f"{number}.tar", {f"{number}.jpg": PICTURES[number % 12]})
    written = []
    real = Pieces._put
    monkeypatch.setattr(
        Pieces, "_put", lambda self, name, table: (written.append(name), real(self, name, table))[1]
    )
    loop = Loop(tmp_path, {"uri": str(tmp_path / "set"), "kind": "tar"})
    found = loop.ingest()
    assert (found.n_files, found.n_new, found.n_duplicates) == (40, 12, 28)
    assert len(written) <= 4
    assert loop.ingest().n_skipped == 40
    loop.whole()


def test_a_list_is_read_once_an_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0.jpg").write_bytes(PICTURES[0])
    (tmp_path / "list.txt").write_text("0.jpg\n")
    reads = []
    real = list_file.ListSource._read
    monkeypatch.setattr(
        list_file.ListSource, "_read", lambda self: (reads.append(1), real(self))[1]
    )
    Loop(tmp_path, {"uri": str(tmp_path / "list.txt")}).ingest()
    assert len(reads) == 1


def test_the_command_takes_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar(tmp_path / "a-0.tar", {"1.jpg": PICTURES[0], "1.cls": b"cat"})
    video(tmp_path / "films" / "clip.mp4", 26)
    coco(tmp_path / "cells")
    lake = str(tmp_path / "lake")
    counted = []
    for options in (
        ["--source", str(tmp_path / "a-{0..1}.tar"), "--labels", "source"],
        ["--source", str(tmp_path / "films"), "--every", "0.5"],
        ["--source", str(tmp_path / "cells"), "--format", "coco"],
    ):
        assert main(["ingest", "--lake", lake, "--loop", "test", "--json", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        counted.append((found["n_files"], found["n_new"], found["n_skipped"]))
    assert counted == [(2, 1, 1), (3, 3, 0), (3, 2, 1)]
    assert main(["ingest", "--lake", lake, "--scenes", "0.1"]) == 2
    assert "--scenes describe a --source" in capsys.readouterr().err
    assert main(["ingest", "--lake", lake, "--source", str(tmp_path), "--scenes", "7"]) == 2
    assert "scenes" in capsys.readouterr().err
