"""Bytes by URI, on a disk and in a bucket; the lake on each."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.servers import postgresql, postgresql_programs, storage_emulator
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.lake.storage import (
    StorageError,
    join,
    local_path,
    name_of,
    normalise,
    open_storage,
)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with storage_emulator() as address:
        body = b'{"name": "photos"}'
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p", body, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request).read()
        before = os.environ.get("STORAGE_EMULATOR_HOST")
        os.environ["STORAGE_EMULATOR_HOST"] = address
        yield address
        if before is None:
            del os.environ["STORAGE_EMULATOR_HOST"]


@pytest.fixture(params=["file", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return normalise(tmp_path / "a folder, with & signs %41")
    request.getfixturevalue("emulator")
    return f"gs://photos/{tmp_path.name}"


def test_what_was_written_is_listed_read_and_deleted(root: str) -> None:
    storage = open_storage(root)
    names = ["b.png", "sub/a.png", "sub/ü #1?.png"]
    for name in names:
        storage.write(join(root, *name.split("/")), name.encode())
    listed = list(storage.list(root))
    assert [info.uri for info in listed] == sorted(join(root, *n.split("/")) for n in names)
    assert {name_of(info.uri) for info in listed} == {"b.png", "a.png", "ü #1?.png"}
    assert [info.size for info in listed] == [len(storage.read(info.uri)) for info in listed]
    assert all(info.generation for info in listed)
    assert storage.exists(listed[0].uri) and storage.exists(join(root, "sub"))
    storage.delete(listed[0].uri)
    storage.delete(listed[0].uri)
    assert not storage.exists(listed[0].uri)


def test_a_prefix_names_a_folder_and_not_the_beginning_of_a_name(root: str) -> None:
    storage = open_storage(root)
    storage.write(join(root, "cat", "1.png"), b"1")
    storage.write(join(root, "cats", "2.png"), b"2")
    assert [name_of(info.uri) for info in storage.list(join(root, "cat"))] == ["1.png"]


def test_the_generation_changes_with_the_bytes(root: str) -> None:
    storage, uri = open_storage(root), join(root, "x.png")
    storage.write(uri, b"first")
    (before,) = storage.list(uri)
    storage.write(uri, b"other")
    (after,) = storage.list(uri)
    assert before.size == after.size and before.generation != after.generation
    assert storage.read(uri) == b"other"


def test_many_are_read_in_order_and_a_missing_one_is_an_error_not_an_end(root: str) -> None:
    storage = open_storage(root)
    for i in range(30):
        storage.write(join(root, f"{i:02}.bin"), bytes([i]))
    uris = [join(root, f"{i:02}.bin") for i in range(30)]
    uris.insert(7, join(root, "gone.bin"))
    read = list(storage.read_many(uris))
    assert [uri for uri, _ in read] == uris
    assert isinstance(read[7][1], StorageError)
    assert [data for _, data in read if isinstance(data, bytes)] == [bytes([i]) for i in range(30)]


def test_folders_go_up_and_come_down_whole(root: str, tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "model.onnx").write_bytes(b"onnx")
    (source / "deep" / "card.json").write_bytes(b"{}")
    storage = open_storage(root)
    storage.upload(source, join(root, "models", "m1"))
    down = storage.download(join(root, "models", "m1"), tmp_path / "down")
    assert (down / "model.onnx").read_bytes() == b"onnx"
    assert (down / "deep" / "card.json").read_bytes() == b"{}"


def test_a_folder_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"No such file.*{tmp_path}/nowhere"):
        list(open_storage("x").list(str(tmp_path / "nowhere")))


def test_a_pipe_is_no_file_and_a_link_that_leads_nowhere_is_listed_and_cannot_be_read(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    storage = open_storage(str(tmp_path))
    (found,) = storage.list(str(tmp_path))
    assert name_of(found.uri) == "lost.png"
    with pytest.raises(StorageError, match="No such file"):
        storage.read(found.uri)


def test_links_that_go_round_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a")
    (tmp_path / "photos" / "up").symlink_to(tmp_path)
    (tmp_path / "photos" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    listed = [name_of(info.uri) for info in open_storage("x").list(str(tmp_path))]
    assert listed == ["a.png", "lost.png"]


def test_uris_have_one_form(tmp_path: Path) -> None:
    assert normalise("/a/../b c") == "file:///b%20c"
    assert local_path("file:///b%20c") == Path("/b c")
    assert normalise("gs://bucket/x/") == "gs://bucket/x"
    for wrong in ("file://host/a", "ftp://x/y", ""):
        with pytest.raises(InputError):
            normalise(wrong)


def use(lake: Lake) -> None:
    """Write, read, fail half way, resume."""
    vectors = np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)
    opened = lake.rounds.open("run")
    with lake.run(stage="ingest", round_id=opened.round_id) as run:
        run.append("files", pa.table({"uri": ["a", "b"]}))
        run.append_embeddings("pixels", list("abcde"), vectors)
        run.commit()
    with pytest.raises(RuntimeError), lake.run(stage="ingest") as run:
        run.append("files", pa.table({"uri": ["lost"]}))
        raise RuntimeError
    with lake.run(stage="select") as run:
        run.append("files", pa.table({"uri": ["c"]}))
        run.replace("selections", pa.table({"sample_id": ["a"]}), "round_id == '0000'")
        run.commit()
    assert sorted(lake.read("files")["uri"].to_pylist()) == ["a", "b", "c"]
    assert np.array_equal(lake.embeddings("pixels")[1], vectors)
    assert lake.rounds.get("0000").run_id == "run"  # type: ignore[union-attr]


def test_a_file_below_a_folder_with_the_name_of_a_tar_is_no_member_of_one(tmp_path: Path) -> None:
    place = tmp_path / "d.tar!" / "in.jpg"
    place.parent.mkdir()
    place.write_bytes(b"bytes")
    (info,) = open_storage(str(tmp_path)).list(str(tmp_path))
    assert "!/" not in info.uri and normalise(info.uri) == info.uri
    assert local_path(info.uri) == place
    assert open_storage(info.uri).read(info.uri) == b"bytes"


def test_a_lake_lives_in_a_folder_with_an_awkward_name(tmp_path: Path) -> None:
    folder = tmp_path / "my photos, 50%20 off"
    use(Lake.open(str(folder), loop="test"))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_lake_lives_in_a_bucket(emulator: str, tmp_path: Path) -> None:
    lake = Lake.open(
        f"gs://photos/{tmp_path.name}/lake", catalog=f"sqlite:///{tmp_path}/c.db", loop="test"
    )
    use(lake)
    assert any("/test/files/data/" in info.uri for info in lake.storage.list(lake.uri))


@pytest.mark.skipif(postgresql_programs() is None, reason="PostgreSQL's server is not installed")
def test_a_lake_has_its_catalog_in_postgresql(tmp_path: Path) -> None:
    with postgresql() as address:
        use(Lake.open(str(tmp_path), catalog=address, loop="test"))
        assert not (tmp_path / "catalog.sqlite").exists()
