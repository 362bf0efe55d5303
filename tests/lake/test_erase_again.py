"""An erased sample that comes again stays out; lakes in buckets and on PostgreSQL; the scan."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import servers
from tests.lake.erasable import erase_all, exchange, identity, picture, small, vector
from tests.media.pictures import encoded, photograph
from visionloop.config import load_config
from visionloop.lake import Lake
from visionloop.lake.backup import backup
from visionloop.lake.checking import check
from visionloop.lake.erasing.scanning import Scanner
from visionloop.lake.erasing.tombstones import Tombstones
from visionloop.lake.erasing.traces import BYTES, ID, URI, Traces
from visionloop.lake.restore import restore
from visionloop.lake.storage import FileInfo, FileStorage, name_of, open_storage
from visionloop.media.inspect import sample_id_of
from visionloop.media.intake import count_new
from visionloop.media.known import COLUMNS, Known
from visionloop.stages.harvest import harvest
from visionloop.stages.ingest import ingest

NAME = identity(0)


@pytest.mark.parametrize("copy", [True, False])
def test_an_ingest_leaves_out_what_was_erased(tmp_path: Path, copy: bool) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(photograph(40, 32, number)))
    config = json.dumps(
        {
            "name": "test",
            "lake": str(tmp_path / "lake"),
            "sources": [{"uri": str(folder), "copy": copy}],
        }
    )
    assert ingest(config=config).n_new == 3
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    rows = lake.read("files").to_pylist()
    gone = next(row["sample_id"] for row in rows if row["uri"].endswith("/1.png"))
    done = erase_all(lake, gone)
    assert done.proof is not None and done.proof.clean
    assert list(done.originals) == [f"file://{folder}/1.png"]
    # The same bytes under their own name and another one, and a picture that is new.
    (folder / "again.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "9.png").write_bytes(encoded(photograph(40, 32, 9)))
    told = ingest(config=config)
    assert (told.n_files, told.n_new, told.n_skipped) == (5, 1, 4)
    lake = Lake.open(lake.uri, loop="test")
    assert sorted(row["uri"][-5:] for row in lake.read("files").to_pylist()) == [
        "0.png"[-5:],
        "2.png",
        "9.png",
    ]
    assert gone not in lake.read("samples")["sample_id"].to_pylist()
    again = erase_all(lake, gone)
    assert again.proof is not None and again.proof.clean and again.tables == {}
    assert [found for found in check(lake) if found.broken] == []


def test_a_file_that_holds_what_was_erased_is_read_once_and_then_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(photograph(40, 32, number)))
    settings = {"name": "test", "lake": str(tmp_path / "lake"), "sources": [{"uri": str(folder)}]}
    config = json.dumps(settings)
    ingest(config=config)
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    rows = lake.read("files").to_pylist()
    gone = next(row["sample_id"] for row in rows if row["uri"].endswith("/1.png"))
    read: list[str] = []
    original = FileStorage.read_listed

    def noted(self: FileStorage, info: FileInfo) -> bytes:
        read.append(name_of(info.uri))
        return original(self, info)

    monkeypatch.setattr(FileStorage, "read_listed", noted)

    def ingested() -> tuple[list[str], int]:
        read.clear()
        told = ingest(config=config)
        assert (told.n_files, told.n_new) == (len(list(folder.iterdir())), 0)
        known = Known.read(
            lake.batches("files", columns=COLUMNS), erased=Tombstones.of(lake), skipped_too=True
        )
        return sorted(read), count_new(load_config(config).sources, known)

    assert erase_all(lake, gone).proof is not None
    assert ingested() == ([], 0), "where it lay is known, and a watch sees nothing new"
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    assert ingested() == (["copy.png"], 0)
    assert ingested() == ([], 0)
    # Of another generation nobody knows what it holds.
    os.utime(folder / "1.png", ns=(1, 1))
    assert ingested() == (["1.png"], 0)
    assert ingested() == ([], 0)
    assert [row["uri"][-5:] for row in lake.read("files").to_pylist()] == ["0.png", "2.png"]
    assert gone not in lake.read("samples")["sample_id"].to_pylist()
    again = erase_all(lake, gone)
    assert again.proof is not None and again.proof.clean
    assert [found for found in check(lake) if found.broken] == []
    # Other bytes at the place are a picture of their own.
    (folder / "1.png").write_bytes(encoded(photograph(40, 32, 7)))
    assert ingest(config=config).n_new == 1


def test_a_stage_at_work_is_not_refused_when_an_ingest_meets_what_was_erased_before(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(encoded(photograph(40, 32, number)))
    settings = {"name": "test", "lake": str(tmp_path / "lake"), "sources": [{"uri": str(folder)}]}
    ingest(config=json.dumps(settings))
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    erase_all(lake, sample_id_of((folder / "1.png").read_bytes()))
    held = Tombstones.of(lake)
    with Lake.open(lake.uri, loop="test").run(stage="infer") as run:
        (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
        ingest(config=json.dumps(settings))
        assert len(Tombstones.of(lake).files) == len(held.files) + 1
        run.append("predictions", pa.table({"sample_id": ["x"], "model_id": ["m"]}))
        run.commit()


def test_a_harvest_rejects_requests_that_carry_what_was_erased(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    events = tmp_path / "lake" / "events"
    events.mkdir(parents=True)
    config = json.dumps({"name": "test", "lake": str(tmp_path / "lake")})
    (events / "a.events.jsonl").write_bytes(b"".join([*exchange(0), *exchange(1)]))
    harvest(config=config)
    assert erase_all(lake, NAME).proof is not None
    (events / "b.events.jsonl").write_bytes(b"".join([*exchange(0), *exchange(2)]))
    harvest(config=config)
    lake = Lake.open(lake.uri, loop="test")
    held = lake.read("confidences")["sample_id"].to_pylist()
    assert NAME not in held and {identity(1), identity(2)} <= set(held)
    rows = lake.read("harvest_events").to_pylist()
    assert [row["event_id"] for row in rows if row["reason"] == "erased"] == ["e0"]


def test_a_backup_from_after_knows_what_was_erased(tmp_path: Path) -> None:
    lake = small(tmp_path)
    erase_all(lake, NAME)
    backup(Lake.open(lake.uri, loop="test"), str(tmp_path / "backup"))
    again, _ = restore(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert NAME in Tombstones.of(again) and identity(1) not in Tombstones.of(again)
    done = erase_all(again, NAME)
    assert done.proof is not None and done.proof.clean and done.tables == {}


@pytest.mark.postgres
def test_a_lake_in_a_bucket_with_a_catalog_in_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.postgresql_programs() is None:
        pytest.skip("PostgreSQL's programs are not installed")
    with servers.storage_emulator() as address, servers.postgresql() as catalog:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage as gcs

        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
        gcs.Client("p", credentials=anonymous).create_bucket("lake")
        lake = small("gs://lake", catalog=catalog)
        lake.storage.write(
            lake.path("events", "a.events.jsonl"), b"".join(exchange(0) + exchange(1))
        )
        done = erase_all(lake, NAME)
        assert done.proof is not None and done.proof.clean
        assert done.proof.catalog_rows > 0 and done.proof.files > 10
        assert sum(one.lines for one in done.events) == 2
        assert lake.read("files")["sample_id"].to_pylist() == [identity(1)]
        for info in lake.storage.list(lake.uri):
            data = lake.storage.read(info.uri)
            assert NAME[:12].encode() not in data and vector(0).tobytes() not in data
            assert NAME not in info.uri


def _zipped(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * 100 + data)
    return packed.getvalue()


def _parquet(column: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"a": column}), sink, compression="zstd", write_statistics=False,
    )  # fmt: skip
    return bytes(sink.getvalue().to_pybytes())


TRACES = Traces(
    frozenset([NAME]), frozenset(["file:///a/my%20photo.jpg"]), frozenset([vector(0).tobytes()])
)
RAW = bytes.fromhex(NAME)
FILL = [f"{n:064x}" for n in range(300)]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (f"a {NAME} b".encode(), ID),
        (NAME.upper().encode(), ID),
        (NAME[:16].encode(), ID),  # a bound in a manifest
        (b"\xff" + RAW, ID),
        (b"x" + vector(0).tobytes(), BYTES),
        (b'{"uri": "file:///a/my%20photo.jpg"}', URI),
        (b"/a/my photo.jpg,training", URI),
        (gzip.compress(NAME.encode()), ID),
        (gzip.compress(NAME.encode())[:-8], ID),  # torn: what is there unpacks
        (_zipped(vector(0).tobytes()), BYTES),
        (_parquet(pa.array([*FILL, NAME])), ID),
        (_parquet(pa.array([*FILL, NAME]).dictionary_encode()), ID),
        (_parquet(pa.array([[{"b": NAME}]])), ID),
        (_parquet(pa.array([RAW, b"\0" * 32] * 50, pa.binary(32))), ID),
        (_parquet(pa.array([vector(0).tobytes()] * 50, pa.binary(32))), BYTES),
        (picture(0), ID),  # its SHA-256 is the id
        (b"/a/my photo.jpg.json", None),
        (b"/b/a/my photo.jpg", None),
        (NAME[1:].encode(), None),
        (_parquet(pa.array(FILL)), None),
        (b"\x1f\x8b no gzip", None),
    ],
)
def test_the_scan_finds_it_however_it_is_written(
    tmp_path: Path, data: bytes, kind: str | None
) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(data)
    storage = open_storage(str(path))
    (info,) = storage.list(str(path))
    found = Scanner(TRACES).file(storage, info)
    assert found == ({kind} if kind else set())


def test_a_file_is_read_in_pieces_and_nothing_is_lost_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionloop.lake.erasing.scanning.PIECE", 1000)
    path = tmp_path / "large.bin"
    storage = open_storage(str(path))
    for start in (0, 960, 990, 999, 1000, 2500):
        path.write_bytes(b"." * start + NAME.encode() + b"." * 3000)
        (info,) = storage.list(str(path))
        assert Scanner(TRACES).file(storage, info) == {ID}, start
