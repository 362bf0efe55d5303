"""The listing of a folder: in the order of its URIs, whatever lies in it, and no more in memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.lake import walking
from visionloop.lake.storage import FileStorage, local_path, normalise

NAMES = st.text(
    st.sampled_from(["a", "b", "Z", "ü", " ", "-", ".", "%", "#", "0", "~"]), min_size=1, max_size=4
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=12))
def test_files_come_in_the_order_of_their_uris(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("walk")
    made = set()
    for parts in paths:
        place = root.joinpath(*parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"x")
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            continue
        made.add(normalise(place))
    found = [info.uri for info in FileStorage().list(str(root))]
    assert found == sorted(made)


def test_a_folder_with_more_names_than_are_sorted_in_memory_is_listed_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        (tmp_path / f"{number * 7 % 60:02d} ü.png").write_bytes(b"x")
    (tmp_path / "30").mkdir()
    (tmp_path / "30" / "inside.png").write_bytes(b"x")
    whole = list(FileStorage().list(str(tmp_path)))
    for most in (1, 7, 60, 61, 62):
        monkeypatch.setattr(walking, "IN_MEMORY", most)
        assert list(FileStorage().list(str(tmp_path))) == whole


def test_a_name_that_is_no_utf8_is_listed_and_read(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(b"picture")
    [info] = FileStorage().list(str(tmp_path))
    assert info.uri.endswith("/caf%E9.png")
    assert FileStorage().read(info.uri) == b"picture"
    assert normalise(local_path(info.uri)) == info.uri


def test_a_link_back_up_ends_and_a_pipe_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    names = [local_path(info.uri).name for info in FileStorage().list(str(tmp_path))]
    assert names == ["1.png", "lost.png"]
    below = [local_path(info.uri).name for info in FileStorage().list(str(tmp_path / "a"))]
    assert below == ["1.png"]


def listed_at_peak(folder: Path, folders: int, files: int) -> float:
    """List so many files in each of so many folders; returns the peak of its memory in bytes."""
    import tracemalloc

    for number in range(folders):
        place = folder / f"{number:02d}"
        place.mkdir()
        first = place
        for name in range(files):
            path = place / f"{name:06d}.png"
            # A link takes a third of the time of a file; a file may have some 65,000 of them.
            if name % 50_000:
                os.link(first, path)
            else:
                first = path
                first.touch()
    tracemalloc.start()
    try:
        assert sum(1 for _ in FileStorage().list(str(folder))) == folders * files
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_listing_takes_the_memory_of_one_folders_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "IN_MEMORY", 500)
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    small = listed_at_peak(few, 1, 1_000)
    assert listed_at_peak(many, 4, 4_000) < 2 * small


@pytest.mark.soak
def test_a_listing_of_a_million_files_streams(tmp_path: Path) -> None:
    began = time.process_time()
    peak = listed_at_peak(tmp_path, 10, 100_000)
    print(f"1,000,000 files: {peak / 1e6:.1f} MB, {time.process_time() - began:.0f} s of processor")
    assert peak < 30e6
