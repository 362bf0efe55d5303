"""Lists as sources: text, CSV and Parquet, relative or absolute, with what else they say."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import held, make_bucket, source_of, tar, video
from tests.servers import storage_emulator
from visionloop.errors import InputError
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.storage import GoogleCloudStorage, normalise, open_storage
from visionloop.media.sources import MEDIA, REPEATED, Entry, named
from visionloop.media.sources.named import looked_up

PICTURE = encoded(photograph(), "JPEG")


def entries(path: Path | str, **settings: object) -> list[Entry]:
    return list(source_of(path, **settings).entries())


def put(path: Path, data: bytes = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_text_names_one_image_a_line(tmp_path: Path) -> None:
    near = put(tmp_path / "lists" / "near" / "a b.jpg")
    far = put(tmp_path / "far" / "ü%41.jpg")
    gone = tmp_path / "far" / "gone.jpg"
    listed = put(
        tmp_path / "lists" / "images.txt",
        f"# images\r\n\r\nnear/a b.jpg\r\n{far}\n../far/gone.jpg\n{normalise(far)}\n".encode(),
    )
    found = entries(listed)
    assert [(e.info.uri, e.role, e.reason) for e in found] == [
        (normalise(far), MEDIA, ""),
        (normalise(far), REPEATED, ""),
        (normalise(gone), MEDIA, "missing"),
        (normalise(near), MEDIA, ""),
    ]
    assert found[0].info == next(open_storage(str(far)).list(str(far)))
    assert source_of(listed).storage.read(found[3].info.uri) == PICTURE


def test_a_tables_other_columns_are_metadata(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        put(tmp_path / name)
    listed = put(
        tmp_path / "images.csv",
        b"weather;File;Label;iso;taken;night\nrain;1.jpg;cat;400;2026-05-01;true\n;2.jpg;;;;false\n",
    )
    first, second = entries(listed, labels="source")
    assert (first.label, second.label) == ("cat", "")
    taken = "2026-05-01"
    assert first.values == {"weather": "rain", "iso": 400, "taken": taken, "night": True}
    assert second.values == {"night": False}
    plain = entries(listed, metadata="none")
    assert [(e.values, e.label) for e in plain] == [({}, ""), ({}, "")]
    assert entries(listed)[0].values["Label"] == "cat"  # nobody said that it is the label


def test_no_cell_of_a_csv_is_taken_for_anything_but_what_is_written(tmp_path: Path) -> None:
    for name in ("007", "010", "1e5"):
        put(tmp_path / name)
    rows = "file,label,serial,n,night,land\n007,010,007,1,true,NA\n010,true,12,2.5,False,null\n"
    listed = put(tmp_path / "i.csv", f"\ufeff{rows}1e5,NA,1e5,,,\n".encode())
    found = entries(listed, labels="source")
    assert [(e.info.uri.rpartition("/")[2], e.label, e.reason) for e in found] == [
        ("007", "010", ""),
        ("010", "true", ""),
        ("1e5", "NA", ""),
    ]
    assert [e.values for e in found] == [
        {"serial": "007", "n": 1, "night": True, "land": "NA"},
        {"serial": "12", "n": 2.5, "night": False, "land": "null"},
        {"serial": "1e5"},
    ]


def test_bytes_of_a_parquet_table_are_text_where_they_name_a_file_or_a_label(
    tmp_path: Path,
) -> None:
    put(tmp_path / "ü.jpg")
    table = pa.table({"file": ["ü.jpg".encode()], "label": [b"cat"], "hash": [b"\xff\x00"]})
    pq.write_table(table, tmp_path / "i.parquet")
    (found,) = entries(tmp_path / "i.parquet", labels="source")
    assert (found.reason, found.label, found.values) == ("", "cat", {"hash": "ff00"})


def test_a_parquet_table_keeps_its_types(tmp_path: Path) -> None:
    put(tmp_path / "1.jpg")
    moment = datetime(2026, 5, 1, 10, tzinfo=UTC)
    row = {
        "uri": ["1.jpg"],
        "at": [moment],
        "day": [date(2026, 5, 1)],
        "n": [3],
        "share": [float("nan")],
        "tags": [["a", "b"]],
        "place": [{"city": "Bern"}],
    }
    pq.write_table(pa.table(row), tmp_path / "images.parquet")
    (found,) = entries(tmp_path / "images.parquet")
    assert found.values == {
        "at": moment.isoformat(),
        "day": "2026-05-01",
        "n": 3,
        "tags": ["a", "b"],
        "place": {"city": "Bern"},
    }


def test_the_first_of_repeated_lines_speaks(tmp_path: Path) -> None:
    put(tmp_path / "1.jpg")
    listed = put(tmp_path / "i.csv", b"file,n\n1.jpg,1\n./1.jpg,2\nx/../1.jpg,3\n")
    found = entries(listed)
    assert [e.role for e in found] == [MEDIA, REPEATED, REPEATED]
    assert found[0].values == {"n": 1}


def test_a_list_may_name_members_of_tars_and_videos(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"1.jpg": PICTURE, "2.jpg": PICTURE})
    video(tmp_path / "clip.mp4", 3)
    listed = put(tmp_path / "i.csv", b"file,camera\na.tar!/2.jpg,A\nclip.mp4,B\na.tar!/9.jpg,C\n")
    source = source_of(listed, video={"every": 1})
    member, absent, _ = source.entries()
    assert source.storage.read(member.info.uri) == PICTURE and absent.reason == "missing"
    (frame,) = held(source)
    assert frame.entry.values["camera"] == "B" and frame.entry.values["video_frame"] == 0


def test_a_list_may_lie_in_a_bucket_and_name_other_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = put(tmp_path / "1.jpg")
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        make_bucket(address, "photos")
        storage = open_storage("gs://photos")
        storage.write("gs://photos/set/2 #.jpg", PICTURE)
        text = f"2 #.jpg\n{normalise(local)}\ngs://photos/none.jpg\n2 #.jp\n"
        storage.write("gs://photos/set/list.txt", text.encode())
        source = source_of("gs://photos/set/list.txt")
        found = list(source.entries())
        assert [(e.info.uri, e.reason) for e in found] == [
            (normalise(local), ""),
            ("gs://photos/none.jpg", "missing"),
            ("gs://photos/set/2 #.jp", "missing"),  # the beginning of a name is no name
            ("gs://photos/set/2 #.jpg", ""),
        ]
        assert [source.storage.read(e.info.uri) for e in (found[0], found[3])] == [PICTURE] * 2


def test_many_objects_of_a_folder_are_found_in_its_listing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        make_bucket(address, "photos")
        storage = open_storage("gs://photos")
        for n in range(120):
            storage.write(f"gs://photos/many/{n:04d}.jpg", b"x")
        storage.write("gs://photos/few/1.jpg", b"x")
        asked: list[str] = []
        real = GoogleCloudStorage.list
        monkeypatch.setattr(
            GoogleCloudStorage,
            "list",
            lambda self, prefix: (asked.append(prefix), real(self, prefix))[1],
        )
        many = [f"gs://photos/many/{n:04d}.jpg" for n in range(0, 240, 2)]
        uris = ["gs://photos/few/1.jpg", "gs://photos/few/2.jpg", *many, many[-1], "gs://photos/z"]
        found = list(looked_up(uris, Anywhere()))
        assert [uri for uri, _ in found] == uris
        there = {"gs://photos/few/1.jpg", *many[:60]}
        assert {uri for uri, info in found if info} == there
        assert all(info is None or info.uri == uri for uri, info in found)
        assert sorted(asked) == [
            "gs://photos/few/1.jpg",
            "gs://photos/few/2.jpg",
            "gs://photos/many",
            "gs://photos/z",
        ]
        # Too many others between those that are named: each is asked for by itself.
        asked.clear()
        monkeypatch.setattr(named, "_OTHERS", 0.1)
        assert list(looked_up(uris, Anywhere())) == found
        assert len(asked) > 100


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"name,label\n1.jpg,cat\n", "no column of URIs, but name, label"),
        ("a.csv", b"file,label\n1.jpg\n2.jpg,a,b\n", "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", "file,label\n1.jpg,Kätzchen\n".encode("latin-1"), "cannot be read: 'utf-8'"),
        ("a.csv", "file,label\nü.jpg,cat\n".encode("latin-1"), "cannot be read: 'utf-8'"),
        ("a.csv", "file,label\n1.jpg,cat\n".encode("utf-16"), "cannot be read: 'utf-8'"),
        ("a.csv", b"file,n,n\n1.jpg,1,2\n", "the column 'n' stands twice"),
        ("a.parquet", b"no parquet", "cannot be read"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.csv", b"file,label\n1.jpg,cat\n,dog\n", "row 2 names no image"),
        ("a.txt", b"1.jpg\ns3://bucket/2.jpg\n", "row 2: storage scheme 's3'"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    put(tmp_path / "1.jpg")
    with pytest.raises(InputError, match=told) as caught:
        entries(put(tmp_path / name, content))
    assert caught.value.remedy and str(tmp_path) in caught.value.where


def test_many_lines_are_listed_in_the_order_of_their_uris(tmp_path: Path) -> None:
    listed = put(tmp_path / "i.txt", "\n".join(f"x/{n}.jpg" for n in range(3_000)).encode())
    found = entries(listed)
    assert len(found) == 3_000 and {e.reason for e in found} == {"missing"}
    assert [e.info.uri for e in found] == sorted(e.info.uri for e in found)
