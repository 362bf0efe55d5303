"""Videos as sources: which frames, under which ids, as which bytes, and what damage costs."""

from __future__ import annotations

import hashlib
import io
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import held, make_bucket, moving, names, source_of, tar, video
from tests.servers import storage_emulator
from visionloop.errors import InputError, UnreadableMedia
from visionloop.lake.identity import is_sample
from visionloop.lake.storage import normalise, open_storage
from visionloop.media.inspect import inspect
from visionloop.media.sources import CONTAINER, HIDDEN, MEDIA, Member

CODECS = {
    ".mp4": "libx264",
    ".mkv": "libx264",
    ".ts": "libx264",
    ".avi": "mpeg4",
    ".webm": "libvpx-vp9",
    ".mov": "mjpeg",
}


def frames_of(path: Path, **choice: Any) -> list[Member]:
    return held(source_of(path, video=choice))


def indexes(found: list[Member]) -> list[int]:
    return [one.entry.values["video_frame"] for one in found if not one.unreadable]


def pixels(member: Member) -> NDArray[np.uint8]:
    assert member.data is not None
    return np.asarray(Image.open(io.BytesIO(member.data)))


def closest(member: Member, of: int) -> int:
    """Return which frame of the moving picture a sample shows."""
    shown = pixels(member).astype(float)
    return int(np.argmin([np.abs(shown - moving(index)).mean() for index in range(of)]))


@pytest.mark.parametrize("ending", CODECS)
def test_frames_at_an_interval_are_those_that_are_shown_then(tmp_path: Path, ending: str) -> None:
    path = video(tmp_path / f"clip{ending}", 40, codec=CODECS[ending])
    found = frames_of(path, every=0.4)
    assert indexes(found) == [0, 10, 20, 30]
    assert [closest(one, 40) for one in found] == [0, 10, 20, 30]
    assert [one.entry.values["video_seconds"] for one in found] == pytest.approx([0, 0.4, 0.8, 1.2])
    assert {one.entry.values["video"] for one in found} == {normalise(path)}
    assert indexes(frames_of(path, every=100)) == [0]
    assert indexes(frames_of(path, every=0.001)) == list(range(40))


def test_a_frames_id_is_made_of_the_videos_bytes_and_its_index(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    found = frames_of(path, every=1)
    expected = [hashlib.sha256(f"{content}:{index}".encode()).hexdigest() for index in (0, 25)]
    assert [one.sample_id for one in found] == expected
    assert all(one.keep for one in found)
    # The same frames by another choice, from a copy elsewhere.
    copy = tmp_path / "elsewhere" / "other name.mp4"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    again = {one.sample_id: one.data for one in frames_of(copy, every=0.2)}
    assert all(again[one.sample_id] == one.data for one in found)


def test_a_frames_bytes_say_which_frame_they_are(tmp_path: Path) -> None:
    first, second = frames_of(video(tmp_path / "clip.mp4"), every=1)
    assert first.data and second.data
    assert is_sample(first.sample_id, first.data) and is_sample(second.sample_id, second.data)
    assert not is_sample(first.sample_id, second.data)
    changed = bytearray(first.data)
    changed[-40] ^= 1
    assert not is_sample(first.sample_id, bytes(changed))
    found = inspect(first.data)
    assert (found.format, found.width, found.height) == ("JPEG", 160, 96)
    with Image.open(io.BytesIO(first.data)) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_scenes_begin_where_the_picture_changes_at_once(tmp_path: Path) -> None:
    def film(index: int) -> NDArray[np.uint8]:
        shot = np.asarray(photograph(160, 96, seed=index // 15)).copy()
        shot[:, :, 0] = np.clip(shot[:, :, 0].astype(int) + index % 15, 0, 255)  # it brightens
        return shot

    path = video(tmp_path / "film.mp4", 60, film)
    assert indexes(frames_of(path, scenes=0.1)) == [0, 15, 30, 45]
    assert indexes(frames_of(path, scenes=0.9)) == [0]
    still = video(tmp_path / "still.mp4", 20, lambda index: film(0))
    assert indexes(frames_of(still, scenes=0.02)) == [0]


def test_frames_are_taken_by_the_names_that_lightly_gives_them(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    video(root / "clip.mp4", 30)
    video(root / "street" / "a-b-1.mkv", 30)
    video(root / "unasked.mp4", 5)
    (root / "photo.jpg").write_bytes(encoded(photograph(), "JPEG"))
    asked = ["clip-07-mp4.png", "clip-29-mp4.png", "clip-30-mp4.png", "a-b-1-003-mkv.png"]
    wrong = ["lost-000-mp4.png", "no frame at all"]
    listed = tmp_path / "frames.txt"
    listed.write_text("# chosen elsewhere\n\n" + "\n".join(asked + wrong) + "\n")
    source = source_of(root, video={"frames": str(listed)})
    found = held(source)
    assert names(found) == ["00000007.jpg", "00000029.jpg", "00000030.jpg", "00000003.jpg"]
    assert [one.unreadable for one in found] == ["", "", "no_such_frame", ""]
    assert closest(found[0], 30) == 7 and closest(found[3], 30) == 3
    entries = list(source.entries())
    assert [one.info.uri for one in entries] == sorted(one.info.uri for one in entries)
    assert {
        name: (one.role, one.reason) for name, one in zip(names(entries), entries, strict=True)
    } == {
        "clip.mp4": (CONTAINER, ""),
        "a-b-1.mkv": (CONTAINER, ""),
        "unasked.mp4": (HIDDEN, ""),
        "photo.jpg": (MEDIA, ""),
        "lost-000-mp4.png": (MEDIA, "no_such_video"),
        "no%20frame%20at%20all": (MEDIA, "bad_frame_name"),
    }


def test_other_choices_are_other_generations(tmp_path: Path) -> None:
    video(tmp_path / "videos" / "clip.mp4", 10)
    listed = tmp_path / "frames.txt"
    seen = set()
    for choice in ({"every": 1}, {"every": 2}, {"scenes": 0.1}):
        (entry,) = source_of(tmp_path / "videos", video=choice).entries()
        seen.add(entry.info.generation)
    for text in (
        "clip-1-mp4.png",
        "clip-1-mp4.png\nclip-2-mp4.png",
        "clip-2-mp4.png\nclip-1-mp4.png",
    ):
        listed.write_text(text)
        (entry,) = source_of(tmp_path / "videos", video={"frames": str(listed)}).entries()
        seen.add(entry.info.generation)
    assert len(seen) == 5


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_a_video_is_turned_as_its_container_asks(tmp_path: Path, degrees: int, turns: int) -> None:
    path = video(tmp_path / "clip.mp4", 2, rotation=degrees)
    (frame,) = frames_of(path, every=1)
    shown = pixels(frame).astype(float)
    expected = np.rot90(moving(0), turns).astype(float)
    assert shown.shape == expected.shape and np.abs(shown - expected).mean() < 4


def test_a_telephone_held_upright_says_so_as_iso_does(tmp_path: Path) -> None:
    # ISO/IEC 14496-12: what such a telephone writes, a quarter clockwise, is (0 1 / -1 0).
    content = video(tmp_path / "clip.mp4", 2, rotation=-90).read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    matrix = np.frombuffer(content[place : place + 20], ">i4")
    assert matrix[[0, 1, 3, 4]].tolist() == [0, 0x10000, -0x10000, 0]


def test_the_time_of_capture_is_that_of_the_container_and_the_frame(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", created="2026-05-01T10:00:00Z")
    began = datetime(2026, 5, 1, 10, tzinfo=UTC)
    found = frames_of(path, every=1)
    assert [one.captured_at for one in found] == [began, began + timedelta(seconds=1)]
    without = video(tmp_path / "other.mp4", 3, created="1904-01-01T00:00:00Z")
    assert [one.captured_at for one in frames_of(without, every=1)] == [None]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".webm"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_video_keeps_the_frames_before_the_cut(
    tmp_path: Path, ending: str, share: float
) -> None:
    options = {"movflags": "faststart"} if ending == ".mp4" else {}

    def film(index: int) -> NDArray[np.uint8]:
        return np.asarray(photograph(160, 96, seed=index))

    path = video(tmp_path / f"clip{ending}", 60, film, CODECS[ending], **options)
    whole = {one.sample_id: one for one in frames_of(path, every=0.04)}
    shown = {one.entry.values["video_frame"]: one for one in whole.values()}
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    *good, damage = frames_of(path, every=0.04)
    assert damage.unreadable == "truncated" and "byte" in damage.detail
    assert damage.entry.info.uri == f"{normalise(path)}!/?damaged"
    assert indexes(good) == list(range(len(good))) and len(good) < 60
    assert all(np.array_equal(pixels(one), pixels(shown[n])) for n, one in enumerate(good))


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4").read_bytes()
    cases = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"not a video at all, " * 40, "corrupt"),
        "headless.mp4": (whole[: len(whole) // 2], "truncated"),
        "junk.mkv": (b"\x1aE\xdf\xa3" + bytes(400), "corrupt"),
    }
    for name, (content, reason) in cases.items():
        path = tmp_path / "cases" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        (damage,) = frames_of(path, every=1)
        assert (name, damage.unreadable, damage.data) == (name, reason, None)


def test_damage_in_the_middle_ends_a_video_where_the_decoder_stops(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mkv", 60)
    whole = frames_of(path, every=0.04)
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 60] = bytes(byte ^ 0x5A for byte in content[middle : middle + 60])
    path.write_bytes(content)
    *good, damage = frames_of(path, every=0.04)
    assert damage.unreadable == "corrupt" and "byte" in damage.detail
    assert 0 < len(good) < 60
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(good, whole, strict=False))


def test_the_frames_are_the_same_however_often_they_are_read(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", 60)
    source = source_of(path, video={"every": 0.1})
    (entry,) = source.entries()
    every = list(source.members(entry))
    assert list(source.members(entry)) == every
    assert list(source.members(entry, 7)) == every[7:]


def test_a_videos_sidecar_speaks_for_its_frames(tmp_path: Path) -> None:
    video(tmp_path / "clip.mp4", 3)
    (tmp_path / "clip.mp4.json").write_text('{"camera": "A"}')
    (frame,) = held(source_of(tmp_path, video={"every": 1}))
    assert names(list(source_of(tmp_path).entries())) == ["clip.mp4", "clip.mp4.json"]
    assert [info.uri for info in frame.entry.sidecars] == [normalise(tmp_path / "clip.mp4.json")]


@pytest.mark.parametrize(
    ("video_", "told"),
    [
        ({}, "none of them"),
        ({"every": 1, "scenes": 0.1}, "`every` and `scenes`"),
        ({"every": 0}, "greater than 0"),
        ({"scenes": 1.5}, "less than 1"),
    ],
)
def test_one_way_to_choose_is_named(video_: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        source_of("videos", video=video_)


def test_a_list_without_a_name_is_refused(tmp_path: Path) -> None:
    video(tmp_path / "videos" / "clip.mp4", 2)
    listed = tmp_path / "frames.txt"
    listed.write_text("# nothing yet\n")
    with pytest.raises(InputError, match="names no frame"):
        list(source_of(tmp_path / "videos", video={"frames": str(listed)}).entries())


def test_a_video_in_a_bucket_has_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "clip.mp4")
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        make_bucket(address, "films")
        open_storage("gs://films").write("gs://films/may/clip.mp4", path.read_bytes())
        there = held(source_of("gs://films/may", video={"every": 1}))
    here = frames_of(path, every=1)
    assert [one.data for one in there] == [one.data for one in here]
    assert there[0].entry.info.uri == "gs://films/may/clip.mp4!/00000000.jpg"


def test_what_a_source_does_not_open_says_how_it_is_opened(tmp_path: Path) -> None:
    for path, told in (
        (video(tmp_path / "clip.mp4", 2), "its source needs `video`"),
        (tar(tmp_path / "a.tar", {"1.jpg": b"x"}), "its source needs `kind: tar`"),
    ):
        with pytest.raises(UnreadableMedia) as caught:
            inspect(path.read_bytes())
        assert caught.value.reason == "unsupported" and told in caught.value.detail


def test_a_codec_that_nothing_decodes_is_told(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mkv", 3)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    (damage,) = frames_of(path, every=1)
    assert damage.unreadable == "unsupported" and "no decoder" in damage.detail


@pytest.mark.parametrize("ending", CODECS)
def test_no_damage_stops_the_reading_of_other_files(tmp_path: Path, ending: str) -> None:
    whole = video(tmp_path / f"whole{ending}", 12, codec=CODECS[ending]).read_bytes()
    rng = random.Random(7)
    path = tmp_path / f"clip{ending}"
    for _ in range(30):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        place = rng.randrange(len(content))
        content[place : place + rng.randint(0, 50)] = rng.randbytes(rng.randint(0, 50))
        path.write_bytes(content)
        found = frames_of(path, every=0.04)
        good = [one for one in found if not one.unreadable]
        assert [bool(one.unreadable) for one in found[:-1]] == [False] * len(found[:-1])
        assert indexes(good) == list(range(len(good)))


def test_the_frames_are_the_same_on_one_processor_and_on_all(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", 30)
    everywhere = os.sched_getaffinity(0)
    on_all = [one.data for one in frames_of(path, every=0.2)]
    try:
        os.sched_setaffinity(0, {min(everywhere)})
        assert [one.data for one in frames_of(path, every=0.2)] == on_all
    finally:
        os.sched_setaffinity(0, everywhere)
