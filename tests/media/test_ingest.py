"""The stage `ingest` on real files: everything that was found is counted, once."""
# Over 400 lines: one stage, whose faults share the folder that they are set in.

from __future__ import annotations

import io
import json
import os
import tarfile
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.media.pictures import encoded, photograph, photographs
from tests.servers import storage_emulator
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.labeling.answers import latest_labels
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.lake.storage import FileStorage, StorageError, join, normalise
from visionloop.stages.ingest import IngestOutputs, ingest
from visionloop.stages.monitor import monitor


class Saved:
    """An artifact, as a pipeline hands it to a stage."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.uri = str(path)
        self.metadata: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.metrics[metric] = value


class Loop:
    """A loop with one source, and what its lake holds."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = {
            "name": "test",
            "lake": str(folder / "lake"),
            "sources": [{"uri": str(self.source)}],
        } | settings

    def put(self, name: str, data: bytes | str | dict[str, Any]) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, dict):
            data = json.dumps(data)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def ingest(self, **arguments: Any) -> IngestOutputs:
        self.metrics = Saved(self.folder / "metrics")
        self.page = Saved(self.folder / "page.md")
        self.files = Saved(self.folder / "files.parquet")
        found = ingest(
            config=json.dumps(self.settings),
            run_id="run",
            metrics=self.metrics,
            page=self.page,
            files=self.files,
            **arguments,
        )
        counted = self.metrics.metrics
        assert counted["n_files"] == (
            counted["n_new"]
            + counted["n_duplicates"]
            + counted["n_unreadable"]
            + counted["n_skipped"]
        )
        assert found.n_files == counted["n_files"]
        return found

    @property
    def lake(self) -> Lake:
        return Lake.open(self.settings["lake"], loop="test")

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.lake.read(table).to_pylist()


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def picture(seed: int = 0) -> bytes:
    return encoded(photograph(64, 48, seed))


def test_every_file_gets_a_row_whatever_it_is(loop: Loop) -> None:
    whole = picture()
    loop.put("a.png", whole)
    loop.put("b/copy of a, ü #1 %41.png", whole)
    loop.put("cut.png", whole[: len(whole) // 2])
    loop.put("empty.jpg", b"")
    loop.put("words.png", "not a picture")
    loop.put("film.mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(50))
    loop.put("README", "read me")
    loop.put("a.png.json", {"camera": "x"})
    loop.put(".hidden.png", whole)
    found = loop.ingest()
    assert found[2:6] == (7, 1, 5, 0)
    assert loop.metrics.metrics["n_duplicates"] == 1
    files = {Path(row["uri"]).name: row for row in loop.rows("files")}
    assert {name: (row["state"], row["reason"]) for name, row in files.items()} == {
        "a.png": ("ok", ""),
        "copy%20of%20a%2C%20%C3%BC%20%231%20%2541.png": ("ok", ""),
        "cut.png": ("unreadable", "truncated"),
        "empty.jpg": ("unreadable", "empty"),
        "words.png": ("unreadable", "not_an_image"),
        "film.mp4": ("unreadable", "unsupported"),
        "README": ("unreadable", "not_an_image"),
    }
    assert len({row["sample_id"] for row in files.values() if row["state"] == "ok"}) == 1
    assert all(row["sample_id"] is None for row in files.values() if row["state"] != "ok")
    assert files["cut.png"]["size"] == len(whole) // 2
    assert [row["uri"] for row in loop.rows("samples")] == [normalise(loop.source / "a.png")]
    page = Path(loop.page.path).read_text()
    assert "7 files = 1 new samples + 1 exact copies + 5 unreadable + 0 skipped" in page
    assert "1 sidecars" in page and "1 hidden" in page
    assert pq.read_table(loop.files.path)["outcome"].to_pylist().count("unreadable") == 5


def test_real_photographs_come_in_whole(loop: Loop, shared: Path) -> None:
    pictures = photographs(shared, every=20)
    for i, data in enumerate(pictures):
        loop.put(f"{i:03d}.jpg", data)
        loop.put(f"cut {i:03d}.jpg", data[: int(len(data) * (i + 1) / (len(pictures) + 1))])
    found = loop.ingest()
    assert (found.n_new, found.n_unreadable) == (len(pictures), len(pictures))
    for row, data in zip(
        sorted(loop.rows("samples"), key=lambda r: r["uri"]), pictures, strict=True
    ):
        image = Image.open(io.BytesIO(data))
        assert sorted((row["width"], row["height"])) == sorted(image.size)
        assert len(row["fingerprint"]) == 32 and row["sharpness"] > 0


def test_a_second_ingest_reads_only_what_is_new_or_changed(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put("a.png", picture(1))
    changed = loop.put("b.png", picture(2))
    loop.put("bad.png", b"no picture")
    loop.ingest()
    reads: list[str] = []
    original = FileStorage.read
    monkeypatch.setattr(
        FileStorage, "read", lambda self, uri: reads.append(uri) or original(self, uri)
    )
    assert loop.ingest()[2:6] == (3, 0, 0, 3)
    assert not [uri for uri in reads if "/source/" in uri]
    changed.write_bytes(picture(3))
    loop.put("c.png", picture(4))
    assert loop.ingest()[2:6] == (4, 2, 0, 2)
    assert sorted(Path(uri).name for uri in reads if "/source/" in uri) == ["b.png", "c.png"]
    generations = [row["generation"] for row in loop.rows("files") if row["uri"].endswith("/b.png")]
    assert len(set(generations)) == 2
    assert len(loop.rows("samples")) == 4


def test_a_touched_file_with_the_same_bytes_is_neither_new_nor_a_copy(loop: Loop) -> None:
    path = loop.put("a.png", picture())
    loop.ingest()
    os.utime(path, ns=(1, 1))
    assert loop.ingest()[2:6] == (1, 0, 0, 1)
    assert loop.metrics.metrics["n_duplicates"] == 0
    assert len(loop.rows("files")) == 2 and len(loop.rows("samples")) == 1


def test_a_file_that_vanishes_is_counted_and_tried_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put("a.png", picture(1))
    path = loop.put("b.png", picture(2))
    original = FileStorage.read

    def vanish(self: FileStorage, uri: str) -> bytes:
        if uri == normalise(path):
            path.unlink(missing_ok=True)
        return original(self, uri)

    monkeypatch.setattr(FileStorage, "read", vanish)
    assert loop.ingest()[2:6] == (2, 1, 0, 1)
    assert [(r["state"], r["reason"]) for r in loop.rows("files") if "b.png" in r["uri"]] == [
        ("skipped", "vanished")
    ]
    monkeypatch.setattr(FileStorage, "read", original)
    path.write_bytes(picture(2))
    assert loop.ingest()[2:6] == (2, 1, 0, 1)


def test_a_file_that_may_not_be_read_is_counted_and_tried_again(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put("a.png", picture(1))
    loop.put("locked.png", picture(2))
    original = FileStorage.read

    def refuse(self: FileStorage, uri: str) -> bytes:  # root may read everything
        if "locked" in uri:
            raise StorageError("cannot read: Permission denied", where=uri)
        return original(self, uri)

    monkeypatch.setattr(FileStorage, "read", refuse)
    assert loop.ingest()[2:6] == (2, 1, 0, 1)
    assert [r["reason"] for r in loop.rows("files") if r["state"] == "skipped"] == ["cannot_read"]
    alone = Loop(tmp_path / "alone")
    alone.put("locked.png", picture(2))
    with pytest.raises(InputError) as raised:
        alone.ingest()
    assert "1 cannot_read" in raised.value.what and "right to read" in raised.value.remedy
    monkeypatch.setattr(FileStorage, "read", original)
    assert loop.ingest()[2:6] == (2, 1, 0, 1)
    assert len(loop.rows("samples")) == 2


def test_metadata_lands_in_typed_columns_and_gives_the_time_of_capture(loop: Loop) -> None:
    loop.put("a.png", picture(1))
    loop.put("a.json", {"camera": "dock", "captured_at": "2026-03-02T08:00:00Z", "s": {"iso": 9}})
    loop.put("b.png", picture(2))
    loop.put("b.png.json", "{broken")
    loop.put("c.png", picture(3))
    loop.ingest()
    samples = {Path(r["uri"]).name: r for r in loop.rows("samples")}
    metadata = {r["sample_id"]: r for r in loop.rows("metadata")}
    a = metadata[samples["a.png"]["sample_id"]]
    assert (a["camera"], a["s_iso"]) == ("dock", 9.0)
    assert samples["a.png"]["captured_at"].isoformat() == "2026-03-02T08:00:00+00:00"
    assert metadata[samples["b.png"]["sample_id"]]["raw"] == "{broken"
    assert samples["c.png"]["sample_id"] not in metadata
    flags = loop.rows("flags")
    assert [(f["kind"], f["stage"], f["subject"]) for f in flags] == [
        ("bad_sidecar", "ingest", samples["b.png"]["sample_id"])
    ]
    assert loop.metrics.metrics["n_bad_sidecar"] == 1
    loop.put("d.png", picture(4))
    loop.put("d.json", {"s": {"iso": "auto"}, "weather": "fog"})
    loop.ingest()
    d = next(r for r in loop.rows("metadata") if r["weather"] == "fog")
    assert d["s_iso"] is None and json.loads(d["raw"])["s"]["iso"] == "auto"
    assert sorted(f["kind"] for f in loop.rows("flags")) == ["bad_sidecar", "metadata_conflict"]


@pytest.mark.parametrize("broken", ["{broken", "[1, 2]"])
def test_a_broken_sidecar_is_told_once_also_when_the_monitor_has_looked(
    tmp_path: Path, broken: str
) -> None:
    loop = Loop(tmp_path)
    loop.put("a.png", picture())
    loop.put("a.json", broken)
    loop.ingest()
    monitor(config=json.dumps(loop.settings))
    of_sample = [flag["kind"] for flag in loop.rows("flags") if flag["subject_type"] == "sample"]
    assert of_sample == ["bad_sidecar"]


def test_a_repaired_sidecar_takes_its_flag_back_and_a_broken_one_keeps_it(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    for number, name in enumerate(["a", "b", "c"]):
        loop.put(f"{name}.png", picture(number))
        sidecar = loop.put(f"{name}.png.json", "{broken")
        os.utime(sidecar, ns=(10**18, 10**18))
    loop.ingest()
    loop.put("a.png.json", {"camera": "dock"})
    loop.put("b.png.json", "{broken otherwise")
    loop.ingest()
    names = {row["sample_id"]: Path(row["uri"]).name for row in loop.rows("samples")}
    stand = {(names[flag["subject"]], flag["kind"]) for flag in loop.rows("flags")}
    assert stand == {("b.png", "bad_sidecar"), ("c.png", "bad_sidecar")}
    assert len(loop.rows("flags")) == 2
    assert [row["camera"] for row in loop.rows("metadata") if row["camera"]] == ["dock"]


def test_sidecars_are_left_alone_where_the_source_says_so(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.settings["sources"][0]["metadata"] = "none"
    loop.put("a.png", picture())
    loop.put("a.json", {"camera": "dock"})
    assert loop.ingest().n_files == 1
    assert loop.rows("metadata") == []


def test_labels_come_from_folders(tmp_path: Path) -> None:
    loop = Loop(tmp_path, classes=["cat", "dog"])
    loop.settings["sources"][0]["labels"] = "folder"
    loop.put("cat/1.png", picture(1))
    loop.put("dog/2.png", picture(2))
    loop.put("dog/1 again.png", picture(1))
    loop.ingest()
    names = {r["sample_id"]: Path(r["uri"]).name for r in loop.rows("samples")}
    labels = {names[r["sample_id"]]: r["label"] for r in loop.rows("labels")}
    assert labels == {"1.png": "cat", "2.png": "dog"}
    assert [f["kind"] for f in loop.rows("flags")] == ["label_conflict"]
    loop.put("dgo/3.png", picture(3))
    with pytest.raises(InputError, match="did you mean `dog`"):
        loop.ingest()
    assert len(loop.rows("samples")) == 2  # nothing was stored


def test_labels_come_from_a_table_beside_the_images(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    table = loop.put("labels.csv", "file,label\na.png,cat\nlost.png,dog\n")
    loop.settings["sources"][0]["labels"] = str(table)
    loop.put("a.png", picture(1))
    loop.put("b.png", picture(2))
    assert loop.ingest().n_files == 2  # the table is no media
    assert [r["label"] for r in loop.rows("labels")] == ["cat"]
    assert loop.rows("labels")[0]["origin"] == "import"
    assert loop.metrics.metrics["n_unknown_labels"] == 1
    table.write_text("file,label\na.png,cat\nb.png,dog\n")
    loop.ingest()
    assert sorted(r["label"] for r in loop.rows("labels")) == ["cat", "dog"]


def test_what_people_disagree_about_gets_no_label_of_the_table_that_they_doubt(
    tmp_path: Path,
) -> None:
    loop = Loop(tmp_path)
    table = loop.put("labels.csv", "file,label\na.png,cat\n")
    loop.settings["sources"][0]["labels"] = str(table)
    loop.put("a.png", picture(1))
    loop.ingest()
    (row,) = loop.rows("labels")
    lake = Lake.open(loop.settings["lake"], loop="test")
    with lake.run(stage="collect_labels") as run:
        told = {**row, "label": None, "origin": "conflict", "annotator": "ann", "n_annotations": 2}
        told["created_at"] += timedelta(seconds=1)
        run.append("labels", pa.Table.from_pylist([told], schema=arrow_schema("labels")))
        run.commit()
    loop.put("b.png", picture(2))
    loop.ingest()
    rows = loop.rows("labels")
    assert len(rows) == 2 and latest_labels(rows) == {}


def test_the_holdout_is_drawn_once_and_frozen(tmp_path: Path) -> None:
    loop = Loop(tmp_path, holdout={"fraction": 0.25, "min_samples": 8, "group_by": "Camera"})
    for i in range(40):
        loop.put(f"{i}.png", picture(i))
        loop.put(f"{i}.json", {"camera": f"cam{i % 10}"})
    loop.ingest()
    first = {r["sample_id"]: (r["split"], r["group_key"]) for r in loop.rows("samples")}
    held = {group for split, group in first.values() if split == "holdout"}
    assert sum(split == "holdout" for split, _ in first.values()) == 8
    assert not held & {group for split, group in first.values() if split == "pool"}
    for i in range(40, 80):
        loop.put(f"{i}.png", picture(i))
        loop.put(f"{i}.json", {"camera": f"cam{i % 20}"})
    loop.ingest()
    after = {r["sample_id"]: (r["split"], r["group_key"]) for r in loop.rows("samples")}
    assert {k: after[k] for k in first} == first
    later = [value for key, value in after.items() if key not in first]
    assert {split for split, group in later if group in held} == {"reserved"}
    assert {split for split, group in later if group not in held} == {"pool"}


def test_a_trickle_fills_the_holdout_and_what_was_selected_from_stays(tmp_path: Path) -> None:
    loop = Loop(tmp_path, holdout={"fraction": 0.25, "min_samples": 6})

    def held_after(first: int, end: int) -> set[str]:
        for i in range(first, end):
            loop.put(f"{i}.png", picture(i))
        loop.ingest()
        return {r["sample_id"] for r in loop.rows("samples") if r["split"] == "holdout"}

    assert held_after(0, 1) == set()
    early = held_after(1, 12)
    assert len(early) == 3
    assert held_after(12, 12) == early
    pool = [r for r in loop.rows("samples") if r["split"] == "pool"]
    with loop.lake.run(stage="select") as run:
        run.append("selections", pa.table({"sample_id": [pool[0]["sample_id"]], "rank": [0]}))
        run.commit()
    later = held_after(12, 20)
    assert early < later and len(later) == 5
    assert not later & {r["sample_id"] for r in pool}
    full = held_after(20, 28)
    assert later < full and len(full) == 7
    assert held_after(28, 40) == full
    assert len(loop.rows("samples")) == len({r["sample_id"] for r in loop.rows("samples")}) == 40


def test_a_holdout_that_could_never_be_frozen_is_refused() -> None:
    with pytest.raises(InputError, match=r"max_samples` 20 is less than `min_samples` 50"):
        load_config(json.dumps({"lake": "lake", "holdout": {"max_samples": 20}}))


def test_bytes_are_copied_where_the_source_says_so(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.settings["sources"][0]["copy"] = True
    loop.put("a.png", picture(1))
    loop.put("again.png", picture(1))
    loop.put("b.jpg", encoded(photograph(seed=2), "JPEG"))
    loop.ingest()
    lake = loop.lake
    for sample_id, uri in lake.media().items():
        assert uri.startswith(lake.path("media")) and sample_id in uri
        import hashlib

        assert hashlib.sha256(lake.storage.read(uri)).hexdigest() == sample_id
    assert len(lake.media()) == 2
    assert {Path(r["source_uri"]).name for r in loop.rows("samples")} == {"a.png", "b.jpg"}
    assert all(r["uri"].startswith(normalise(loop.source)) for r in loop.rows("files"))


def test_two_sources_that_overlap_count_each_file_once(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.put("sub/a.png", picture(1))
    loop.put("b.png", picture(2))
    loop.settings["sources"] = [{"uri": str(loop.source / "sub")}, {"uri": str(loop.source)}]
    assert loop.ingest()[2:6] == (2, 2, 0, 0)
    assert sorted(Path(r["source"]).name for r in loop.rows("samples")) == ["source", "sub"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sources": []}, "names no source"),
        ({"sources": [{"uri": "/no/such/folder"}]}, "'/no/such/folder' does not exist"),
        ({"sources": [{"uri": "s3://bucket/x"}]}, "use a path, file://"),
    ],
)
def test_a_source_that_cannot_be_is_named(loop: Loop, change: dict[str, Any], told: str) -> None:
    loop.settings |= change
    with pytest.raises(InputError, match=told) as caught:
        loop.ingest(open_round=True)
    assert caught.value.remedy
    assert loop.lake.rounds.current() is None  # a wrong configuration opens no round


def test_a_source_without_any_readable_image_is_an_error_that_stays(loop: Loop) -> None:
    with pytest.raises(InputError, match="hold no images"):
        loop.ingest()
    loop.put("a.txt", "words")
    loop.put("b.png", b"")
    for _ in range(2):  # files that the lake knows to be unreadable do not become readable
        with pytest.raises(InputError, match="none of the 2 files can be read"):
            loop.ingest()
    assert [r["state"] for r in loop.rows("files")] == ["unreadable"] * 2
    loop.put("c.png", picture())
    assert loop.ingest()[2:6] == (3, 1, 0, 2)


def test_of_a_folder_of_nothing_but_archives_the_error_says_how_to_name_them(loop: Loop) -> None:
    with tarfile.open(loop.source / "photos.tar", "w") as archive:
        archive.add(loop.put("a.txt", "words"))
    (loop.source / "a.txt").unlink()
    with pytest.raises(InputError) as raised:
        loop.ingest()
    assert "1 unsupported" in raised.value.what and "`kind: tar`" in raised.value.remedy
    assert "right to read" not in raised.value.remedy


def test_an_empty_delivery_to_a_lake_with_samples_is_no_error(loop: Loop) -> None:
    path = loop.put("a.png", picture())
    loop.ingest()
    path.unlink()
    assert loop.ingest()[2:6] == (0, 0, 0, 0)


def test_a_round_is_opened_and_resumed(loop: Loop) -> None:
    loop.put("a.png", picture(1))
    assert loop.ingest(open_round=True).round_id == "0000"
    assert loop.ingest(open_round=True).round_id == "0000"
    held = loop.lake.rounds.current()
    assert held is not None and held.counts["new"] == 1  # as if it had run once
    assert {r["round_id"] for r in loop.rows("samples")} == {"0000"}


def test_an_ingest_from_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(tmp_path)
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p",
            b'{"name": "cameras"}',
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request).read()
        from visionloop.lake.storage import open_storage

        root = "gs://cameras/march"
        storage = open_storage(root)
        storage.write(join(root, "a b#1.png"), picture(1))
        storage.write(join(root, "a b#1.png.json"), b'{"camera": "dock"}')
        storage.write(join(root, "bad.png"), b"")
        loop.settings["sources"] = [{"uri": root}]
        assert loop.ingest()[2:6] == (2, 1, 1, 0)
        assert loop.ingest()[2:6] == (2, 0, 0, 2)
        assert loop.rows("samples")[0]["uri"] == "gs://cameras/march/a b#1.png"
        assert loop.rows("metadata")[0]["camera"] == "dock"
        loop.settings["sources"] = [{"uri": "gs://cameras/april"}]
        with pytest.raises(InputError, match="april' does not exist"):
            loop.ingest()
