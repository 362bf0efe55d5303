"""Tars as sources: members by ranges of bytes, WebDataset's siblings, damage, hostile names."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import held, make_bucket, names, source_of, tar
from tests.servers import storage_emulator
from visionloop.errors import InputError
from visionloop.lake.archive_storage import Archive
from visionloop.lake.archives import Damage, Member
from visionloop.lake.storage import (
    FileStorage,
    StorageError,
    local_path,
    name_of,
    normalise,
    open_storage,
)
from visionloop.media.sources import CONTAINER, MEDIA

PICTURES = [encoded(photograph(seed=seed), "JPEG") for seed in range(4)]


def opened(path: Path) -> Archive:
    storage = FileStorage()
    return Archive(next(storage.list(str(path))), storage)


def test_members_are_read_by_their_uris_wherever_they_are_wanted(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "my data" / "a.tar", {"./x/1.jpg": PICTURES[0], "ü & %41 ?.jpg": PICTURES[1]}
    )
    members = held(source_of(path))
    assert [one.data for one in members] == PICTURES[:2]
    for member, data in zip(members, PICTURES, strict=False):
        uri = member.entry.info.uri
        assert uri.startswith(normalise(path) + "!/") and normalise(uri) == uri
        assert open_storage(uri).read(uri) == data
        assert open_storage(uri).read_range(uri, 10, 20) == data[10:30]
        assert open_storage(uri).exists(uri)
        assert member.entry.info.generation == str(path.stat().st_mtime_ns)
    assert name_of(members[1].entry.info.uri) == "ü & %41 ?.jpg"
    absent = f"{normalise(path)}!/x/2.jpg"
    assert not open_storage(absent).exists(absent)
    with pytest.raises(StorageError, match="no member"):
        open_storage(absent).read(absent)
    with pytest.raises(InputError, match="only read"):
        open_storage(absent).write(absent, b"")


def test_a_tar_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"1.jpg": PICTURES[0]})
    uri = held(source_of(path))[0].entry.info.uri
    assert open_storage(uri).read(uri) == PICTURES[0]
    tar(path, {"0.jpg": PICTURES[1], "1.jpg": PICTURES[2]})
    assert open_storage(uri).read(uri) == PICTURES[2]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_form_of_tar_is_read(tmp_path: Path, form: int) -> None:
    name = "folder/" * 12 + "a picture.jpg"
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(PICTURES[0])
        archive.addfile(info, io.BytesIO(PICTURES[0]))
    (member,) = held(source_of(tmp_path / "a.tar"))
    assert member.data == PICTURES[0]
    assert local_path(member.entry.info.uri) == tmp_path / "a.tar!" / name


def test_webdataset_siblings_are_metadata_and_labels(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "000.tar",
        {
            "d/1.jpg": PICTURES[0],
            "2.cls": b"dog",  # before its image, and far from it
            "d/1.json": b'{"weather": "rain"}',
            "d/1.cls": b"cat\n",
            "1.cls": b"another folder's",
            "d/1.txt": b"a cat in the rain",
            "2.png": PICTURES[1],
            "d/1.seg.png": PICTURES[2],
            "alone.json": b"{}",
            "__MACOSX/d/._1.jpg": b"left behind",
        },
    )
    found = held(source_of(path, labels="source"))
    assert names(found) == ["1.jpg", "1.cls", "2.png", "1.seg.png", "alone.json"]
    first, _, second, third, _ = found
    assert (first.entry.label, second.entry.label, third.entry.label) == ("cat", "dog", "cat")
    assert first.entry.values == {"caption": "a cat in the rain"} and not second.entry.values
    (sidecar,) = first.entry.sidecars
    storage = source_of(path).storage
    assert json.loads(storage.read(sidecar.uri)) == {"weather": "rain"}
    plain = held(source_of(path, metadata="none"))
    assert not any(m.entry.label or m.entry.values or m.entry.sidecars for m in plain)


def test_folders_in_a_tar_are_classes(tmp_path: Path) -> None:
    path = tar(tmp_path / "set" / "a.tar", {"cat/1.jpg": PICTURES[0], "2.jpg": PICTURES[1]})
    found = held(source_of(path, labels="folder"))
    assert [one.entry.label for one in found] == ["cat", "set"]


def test_a_folder_of_tars_and_braces_list_the_same(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        tar(tmp_path / f"{number:03d}.tar", {f"{number}.jpg": PICTURES[number]})
    (tmp_path / "loose.jpg").write_bytes(PICTURES[2])
    folder = list(source_of(tmp_path, kind="tar").entries())
    assert [e.role for e in folder] == [CONTAINER] * 3 + [MEDIA]
    braces = list(source_of(f"{tmp_path}/{{000..003}}.tar").entries())
    assert names(braces) == ["000.tar", "001.tar", "002.tar", "003.tar"]
    assert [e.reason for e in braces] == ["", "", "missing", ""]
    assert [e.info for e in braces if not e.reason] == [e.info for e in folder[:3]]
    assert [e.role for e in source_of(tmp_path).entries()] == [MEDIA] * 4  # not asked to open them


@pytest.mark.parametrize(
    "pattern", ["{3..1}.tar", "{a}.tar", "{,b}.tar", "{a,b.tar", "{0..9999999}.tar"]
)
def test_a_pattern_that_means_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="pattern cannot be read"):
        source_of(f"{tmp_path}/{pattern}", kind="tar")


def test_hostile_members_are_counted_and_never_lead_outside(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(PICTURES[3])
    path = tmp_path / "in" / "a.tar"
    tar(
        path,
        {
            name: PICTURES[0]
            for name in ("../secret.jpg", "/etc/passwd", "a/../../b", "c\\d", "ok.jpg")
        },
    )
    with tarfile.open(path, "a") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "link.jpg"),
            (tarfile.LNKTYPE, "hard.jpg"),
            (tarfile.FIFOTYPE, "pipe"),
            (tarfile.CHRTYPE, "device"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(outside)
            archive.addfile(info)
        info = tarfile.TarInfo("ok.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"new"))
    found = held(source_of(path))
    assert [m.unreadable for m in found] == ["unsafe_name"] * 4 + [""] + ["not_a_file"] * 4 + [
        "same_name"
    ]
    assert [m.data for m in found if not m.unreadable] == [PICTURES[0]]
    uris = [m.entry.info.uri for m in found]
    assert len(set(uris)) == len(uris)
    for uri in uris:
        assert ".." not in uri and local_path(uri.partition("!/")[0]) == path
    for name in ("../../secret.jpg", "../secret.jpg", "link.jpg"):
        with pytest.raises(StorageError):
            open_storage(f"{normalise(path)}!/{name}").read(f"{normalise(path)}!/{name}")


def test_a_cut_tar_keeps_what_comes_before_the_cut(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", {f"{n}.jpg": PICTURES[n] for n in range(4)})
    data = whole.read_bytes()
    ends = [m.offset + m.size for m in opened(whole) if isinstance(m, Member)]
    path = tmp_path / "cut.tar"
    for size in [*range(0, ends[-1] + 600, 171), *ends, *(end - 1 for end in ends)]:
        path.write_bytes(data[:size])
        good = [m for m in held(source_of(path)) if not m.unreadable]
        bad = [m for m in held(source_of(path)) if m.unreadable]
        assert [m.data for m in good] == PICTURES[: sum(end <= size for end in ends)]
        # With its end marker, a block of zeros, a tar is whole.
        is_whole = size >= -(-ends[-1] // 512) * 512 + 512
        assert bool(bad) is not is_whole
        assert {m.unreadable for m in bad} <= {"truncated", "empty"}
        assert all("byte" in m.detail or "offset" in m.detail for m in bad)


def test_a_broken_header_is_damage_and_not_the_end(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {f"{n}.jpg": PICTURES[n] for n in range(3)})
    second = [m for m in opened(path) if isinstance(m, Member)][1]
    data = bytearray(path.read_bytes())
    data[second.offset - 512 : second.offset] = b"\xff" * 512
    path.write_bytes(data)
    good, damage = held(source_of(path))
    assert good.data == PICTURES[0]
    assert damage.unreadable == "corrupt" and str(second.offset - 512) in damage.detail


def test_a_compressed_tar_is_read_as_far_as_it_unpacks_and_kept_in_the_lake(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", {f"{n}.jpg": PICTURES[n] for n in range(4)}, "w:gz")
    found = held(source_of(path))
    assert [m.data for m in found] == PICTURES and all(m.keep for m in found)
    uri = found[2].entry.info.uri
    assert open_storage(uri).read(uri) == PICTURES[2]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = held(source_of(path))
    good = [m for m in found if not m.unreadable]
    assert good and [m.data for m in good] == PICTURES[: len(good)]
    assert {m.unreadable for m in found[len(good) :]} == {"truncated"}
    (tmp_path / "b.tgz").write_bytes(b"\x1f\x8b\x08 no gzip")
    assert [m.unreadable for m in held(source_of(tmp_path / "b.tgz"))] == ["corrupt"]


def test_members_that_an_earlier_run_has_read_are_left_out(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {f"{n}.jpg": PICTURES[n] for n in range(4)})
    path.write_bytes(path.read_bytes()[:-9000])
    source = source_of(path)
    (entry,) = source.entries()
    every = list(source.members(entry))
    for skip in range(len(every) + 1):
        assert list(source.members(entry, skip)) == every[skip:]


def test_memory_does_not_grow_with_what_the_members_hold(tmp_path: Path) -> None:
    block = bytes(1 << 20)
    path = tar(tmp_path / "a.tar", {f"{n}.jpg": block for n in range(40)})
    source = source_of(path)
    (entry,) = source.entries()
    tracemalloc.start()
    n = sum(len(member.data or b"") for member in source.members(entry))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 40 << 20 and peak < 4 << 20


def test_no_more_than_two_temporary_files_are_held(tmp_path: Path) -> None:
    for number in range(6):
        tar(tmp_path / f"{number}.tar.gz", {"1.jpg": PICTURES[0]}, "w:gz")
    source = source_of(tmp_path, kind="tar")
    before = _deleted_files()
    for entry in source.entries():
        assert len(list(source.members(entry))) == 1
        assert _deleted_files() - before <= 2


def _deleted_files() -> int:
    """Return how many files this process has open that have no name any more."""
    return sum("deleted" in os.readlink(link) for link in _open_files())


def _open_files() -> list[str]:
    folder = f"/proc/{os.getpid()}/fd"
    return [path for name in os.listdir(folder) if os.path.lexists(path := f"{folder}/{name}")]


def test_a_tar_in_a_bucket_is_read_by_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{n}.jpg": PICTURES[n] for n in range(4)} | {"0.json": b'{"a": 1}'}
    data = tar(tmp_path / "a.tar", files).read_bytes()
    packed = tar(tmp_path / "b.tar.gz", files, "w:gz").read_bytes()
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        make_bucket(address, "photos")
        uri = "gs://photos/set/a #1.tar"
        open_storage(uri).write(uri, data)
        open_storage(uri).write("gs://photos/set/b.tar.gz", packed)
        found = held(source_of("gs://photos/set", kind="tar"))
        assert [m.data for m in found] == PICTURES * 2
        member = found[2].entry.info.uri
        assert member == f"{uri}!/2.jpg"
        assert open_storage(member).read(member) == PICTURES[2]
        assert [m.data for m in held(source_of(uri))] == PICTURES


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_byte_that_is_changed_stops_the_reading(tmp_path: Path, data: st.DataObject) -> None:
    path = tar(tmp_path / "a.tar", {"1.jpg": b"x" * 700, "2.jpg": b"y" * 300, "é" * 60: b"z" * 9})
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, 6000), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for item in opened(path):
        assert isinstance(item, Damage) or item.reason or item.offset + item.size <= len(content)
