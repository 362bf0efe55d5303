"""Cloud Storage in trouble, over real HTTP: what an emulator does not show."""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.bucket_stub import PAGE, Bucket, bucket_stub
from visionloop.lake.storage import (
    FileInfo,
    GoogleCloudStorage,
    ObjectChanged,
    StorageError,
    reading,
)

DATA = bytes(range(256)) * 4000


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with bucket_stub() as (address, held):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("VISIONLOOP_STORAGE_TIMEOUT", "20")
        yield held


@pytest.fixture
def storage(bucket: Bucket) -> GoogleCloudStorage:
    return GoogleCloudStorage()


def the_only(storage: GoogleCloudStorage, uri: str) -> FileInfo:
    (info,) = storage.list(uri)
    return info


class Names:
    """A hundred thousand names that are not in memory."""

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, span: slice) -> list[str]:
        return [f"in/{i:06}.jpg" for i in range(*span.indices(len(self)))]


def test_a_listing_of_100_000_objects_streams(bucket: Bucket, storage: GoogleCloudStorage) -> None:
    bucket.names = Names()  # type: ignore[assignment]
    listed = storage.list("gs://photos/in")
    assert next(listed).uri == "gs://photos/in/000000.jpg"
    assert bucket.count("list") == 1
    assert len(list(islice(listed, PAGE))) == PAGE and bucket.count("list") == 2
    last = ""
    for i, info in enumerate(listed, start=PAGE + 1):
        assert info.uri > last
        last = info.uri
        assert bucket.count("list") == i // PAGE + 1  # no page is asked for before its turn
    assert (i, bucket.count("list")) == (99_999, 100)


def test_a_page_that_fails_is_asked_for_again_and_nothing_comes_twice(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    for i in range(PAGE + 5):
        bucket.put(f"in/{i:04}", b"x")
    bucket.trouble["list"] = [429, "reset"]
    listed = [info.uri for info in storage.list("gs://photos/in")]
    assert listed == [f"gs://photos/in/{i:04}" for i in range(PAGE + 5)]


def test_a_listing_does_not_go_through_what_begins_with_the_same_letters(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    for name in ("cat", "cat-old/1", "cat/", "cat/2", "cats"):
        bucket.put(name, b"" if name.endswith("/") else b"x")
    assert [i.uri for i in storage.list("gs://photos/cat")] == [
        "gs://photos/cat",
        "gs://photos/cat/2",
    ]
    bucket.put("empty/", b"")
    assert storage.exists("gs://photos/cat-old") and not storage.exists("gs://photos/empty")
    assert not storage.exists("gs://photos/ca")


@pytest.mark.parametrize("trouble", [429, 503, 500, "reset", "cut", "short", "wrong"])
def test_what_goes_wrong_once_is_read_again(
    bucket: Bucket, storage: GoogleCloudStorage, trouble: int | str
) -> None:
    bucket.put("a.tif", DATA)
    bucket.trouble["media"] = [trouble]
    assert storage.read("gs://photos/a.tif") == DATA
    assert bucket.count("media") == 2
    bucket.trouble["media"] = [trouble]
    if trouble not in ("short", "wrong"):  # of a part there is no checksum
        assert storage.read_range("gs://photos/a.tif", 100, 5000) == DATA[100:5100]


def test_a_broken_download_goes_on_where_it_broke(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    bucket.put("a.tif", DATA)
    bucket.trouble["media"] = ["cut"]
    assert storage.read("gs://photos/a.tif") == DATA
    assert bucket.ranges == [f"bytes={len(DATA) // 2}-"]


def test_an_object_overwritten_while_a_download_is_broken_is_not_put_together_of_two(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    bucket.put("a.tif", DATA)
    bucket.trouble["media"] = ["cut"]
    info = the_only(storage, "gs://photos/a.tif")
    bucket.replaced = {"a.tif": DATA[::-1]}
    assert storage.read(info.uri) == DATA[::-1]
    bucket.trouble["media"] = ["cut"]
    bucket.replaced = {"a.tif": DATA}
    with pytest.raises(ObjectChanged):
        storage.read_listed(the_only(storage, info.uri))


def test_bytes_that_stay_wrong_are_an_error(bucket: Bucket, storage: GoogleCloudStorage) -> None:
    bucket.put("a.tif", DATA, crc32c="AAAAAA==")
    with pytest.raises(StorageError, match="checksum"):
        storage.read("gs://photos/a.tif")


def test_a_bucket_that_never_answers_is_given_up_in_time(
    bucket: Bucket, storage: GoogleCloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_STORAGE_TIMEOUT", "2")
    bucket.trouble = {"media": [503] * 99, "list": [429] * 99}
    begun = time.monotonic()
    with pytest.raises(StorageError, match="503"):
        storage.read("gs://photos/a.tif")
    with pytest.raises(StorageError, match="429"):
        list(storage.list("gs://photos"))
    assert time.monotonic() - begun < 10
    assert bucket.count("media") > 1 and bucket.count("list") > 1


def test_only_the_generation_that_was_listed_is_read(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    bucket.put("a.jpg", b"first")
    info = the_only(storage, "gs://photos/a.jpg")
    assert storage.read_listed(info) == b"first"
    bucket.put("a.jpg", b"other")
    assert storage.read("gs://photos/a.jpg") == b"other"
    with pytest.raises(ObjectChanged, match="overwritten"):
        storage.read_listed(info)
    with pytest.raises(ObjectChanged):
        storage.read_range(info.uri, 0, 2, info.generation)
    again = the_only(storage, info.uri)
    assert int(again.generation) > int(info.generation)
    assert storage.read_listed(again) == b"other"


def test_what_is_stored_packed_is_read_as_what_it_is_and_its_ranges_as_it_is_stored(
    bucket: Bucket, storage: GoogleCloudStorage, tmp_path: Path
) -> None:
    packed = gzip.compress(DATA)
    bucket.put("in/a.csv", packed, encoding="gzip")
    assert storage.read("gs://photos/in/a.csv") == DATA
    assert storage.read_range("gs://photos/in/a.csv", 2, 9) == packed[2:11]
    assert (storage.download("gs://photos/in", tmp_path) / "a.csv").read_bytes() == DATA
    bucket.put("in/cut.csv", packed[:-9], encoding="gzip")
    with pytest.raises(StorageError, match="ends early"):
        storage.read("gs://photos/in/cut.csv")
    bucket.put("in/plain.csv", DATA, encoding="gzip")
    with pytest.raises(StorageError, match="Content-Encoding"):
        storage.read("gs://photos/in/plain.csv")


AWKWARD = [
    "ü ñ 猫.jpg",
    "a b.jpg",
    "50%20.jpg",
    "#1?x=2.jpg",
    "a//b.jpg",
    "/first.jpg",
    "a\\b&+.jpg",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_is_listed_read_written_and_removed(
    bucket: Bucket, storage: GoogleCloudStorage, name: str
) -> None:
    bucket.put(name, name.encode())
    info = the_only(storage, "gs://photos")
    assert info.uri == f"gs://photos/{name}"
    assert storage.read_listed(info) == name.encode()
    storage.write(info.uri, b"new")
    assert {name: b"new"} == {n: held.data for n, held in bucket.objects.items()}
    storage.delete(info.uri)
    assert bucket.objects == {} and not storage.exists(info.uri)


@pytest.mark.parametrize("name", ["in/../../out.jpg", "in//a.jpg", "in/full/"])
def test_a_name_that_leads_out_of_the_folder_is_not_downloaded(
    bucket: Bucket, storage: GoogleCloudStorage, tmp_path: Path, name: str
) -> None:
    bucket.put(name, b"x")
    with pytest.raises(StorageError, match="no path of a file"):
        storage.download("gs://photos/in", tmp_path / "a" / "b")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("trouble", [503, "reset", "half"])
def test_a_large_upload_goes_on_with_the_part_that_failed(
    bucket: Bucket, storage: GoogleCloudStorage, tmp_path: Path, trouble: int | str
) -> None:
    (tmp_path / "up").mkdir()
    data = os.urandom(1 << 20) * 40
    (tmp_path / "up" / "model.onnx").write_bytes(data)
    bucket.trouble["part"] = [trouble]
    storage.upload(tmp_path / "up", "gs://photos/models/m")
    stored = bucket.objects["models/m/model.onnx"].data
    assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
    # Three parts of at most 16 MiB, and one of them again, or its other half with what follows.
    asked = [bucket.count(what) for what in ("upload", "part", "how far")]
    assert asked == [1, 3 if trouble == "half" else 4, 1]
    down = storage.download("gs://photos/models", tmp_path / "down")
    assert (down / "m" / "model.onnx").read_bytes() == data


def test_an_upload_that_was_stored_but_not_answered_is_not_sent_again(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    bucket.trouble["stored"] = ["reset"]
    data = os.urandom(1 << 20) * 20
    storage.write("gs://photos/large", data)
    assert bucket.objects["large"].data == data
    assert (bucket.count("part"), bucket.count("how far")) == (2, 1)


def test_errors_say_what_is_missing_and_what_to_do(
    bucket: Bucket, storage: GoogleCloudStorage
) -> None:
    bucket.put("a.jpg", b"x")
    bucket.trouble = {"media": [403], "upload": [403], "list": [403], "delete": [403]}
    uri = "gs://photos/a.jpg"
    with pytest.raises(StorageError, match=r"storage.objects.get") as refused:
        storage.read(uri)
    assert "gs://photos --role roles/storage.objectViewer" in refused.value.remedy
    with pytest.raises(StorageError, match=r"storage.objects.create and storage.objects.delete"):
        storage.write(uri, b"y")
    with pytest.raises(StorageError, match=r"storage.objects.list"):
        list(storage.list("gs://photos"))
    with pytest.raises(StorageError, match=r"storage.objects.delete"):
        storage.delete(uri)
    with pytest.raises(StorageError, match="no such object"):
        storage.read("gs://photos/gone.jpg")
    with pytest.raises(StorageError, match="no bucket 'elsewhere'"):
        list(storage.list("gs://elsewhere/in"))


def test_what_is_read_ahead_is_bounded_by_its_bytes(
    bucket: Bucket, storage: GoogleCloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AHEAD_BYTES", 3 * len(DATA))
    for i in range(40):
        bucket.put(f"{i:02}.tif", DATA)
    read = storage.read_many((f"gs://photos/{i:02}.tif" for i in range(40)), threads=2)
    next(read)
    time.sleep(0.5)  # as long as it takes a reader that does not wait to read them all
    assert bucket.count("media") <= 1 + 3 + 2
    assert sum(data == DATA for _, data in read) == 39


def test_who_stops_reading_many_is_not_kept_waiting(
    bucket: Bucket, storage: GoogleCloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AHEAD_BYTES", 1)
    for i in range(40):
        bucket.put(f"{i:02}.tif", DATA)
    read = storage.read_many((f"gs://photos/{i:02}.tif" for i in range(40)), threads=4)
    next(read)
    read.close()  # type: ignore[attr-defined]
    assert bucket.count("media") < 40
