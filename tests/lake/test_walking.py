"""The listing of a folder: in the order of its URIs, whatever lies in it, and no more in memory."""

from __future__ import annotations

import os
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


@pytest.mark.soak
def test_a_listing_of_a_million_files_streams(tmp_path: Path) -> None:
    import tracemalloc

    for folder in range(10):
        place = tmp_path / f"{folder:02d}"
        place.mkdir()
        first = place / "first"
        first.touch()
        for number in range(100_000):
            os.link(first, place / f"{number:06d}.png") if number % 60_000 else (
                place / f"{number:06d}.png"
            ).touch()
    tracemalloc.start()
    assert sum(1 for _ in FileStorage().list(str(tmp_path))) == 1_000_010
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
