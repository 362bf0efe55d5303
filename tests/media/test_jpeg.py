"""JPEG: read to the last byte at a reduced scale, damage found and located, no more refused."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.pictures import encoded, photograph, photographs
from visionloop.errors import UnreadableMedia
from visionloop.media import decode as decoding
from visionloop.media import jpeg
from visionloop.media.decode import decode, decode_rgb
from visionloop.media.inspect import inspect

KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "baseline": lambda image: encoded(image, "JPEG", quality=90),
    "progressive": lambda image: encoded(image, "JPEG", quality=90, progressive=True),
    "no subsampling": lambda image: encoded(image, "JPEG", subsampling=0),
    "restart markers": lambda image: encoded(image, "JPEG", restart_marker_blocks=4),
    "grey": lambda image: encoded(image.convert("L"), "JPEG"),
    "grey progressive": lambda image: encoded(image.convert("L"), "JPEG", progressive=True),
    "cmyk": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "rgb stored": lambda image: encoded(image, "JPEG", keep_rgb=True),
    "with a profile": lambda image: encoded(image, "JPEG", icc_profile=b"profile" * 20_000),
    "with a comment": lambda image: encoded(
        image, "JPEG", comment=b"\xff\xd9 not the end \xff\xda"
    ),
}


def busy(width: int = 640, height: int = 480) -> Image.Image:
    """Return a picture with so much detail that damage in it shows."""
    rng = np.random.Generator(np.random.PCG64(3))
    noisy = np.asarray(photograph(width, height)) + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.uint8(np.clip(noisy, 0, 255)))


def fault(data: bytes) -> UnreadableMedia:
    with pytest.raises(UnreadableMedia) as caught:
        inspect(data)
    return caught.value


def opens_with_pillow(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_reduced_decoding_notices_a_cut_at_any_place(kind: str) -> None:
    data = KINDS[kind](busy())
    assert inspect(data).width == 640
    cuts = {*range(4, len(data), max(1, len(data) // 60)), *range(len(data) - 12, len(data))}
    for cut in cuts:
        found = fault(data[:cut])
        assert (found.reason, found.offset) == ("truncated", cut), (cut, found.detail)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart markers", "grey", "cmyk"])
def test_damaged_bytes_are_found_and_located_where_pillow_sees_nothing(kind: str) -> None:
    data = KINDS[kind](busy())
    start = jpeg.header(data).scan + 700  # type: ignore[union-attr]
    found, unseen = [], 0
    for place in range(start, len(data) - 700, len(data) // 9):
        damaged = data[:place] + bytes(range(256)) * 2 + data[place + 512 :]
        error = fault(damaged)
        assert error.reason == "corrupt" and error.offset is not None
        found.append(place - 16 <= error.offset <= place + 512 + 64)
        unseen += opens_with_pillow(damaged)
    assert len(found) > 5
    # A decoder that lost its place may go on for a while before it notices.
    assert sum(found) >= 0.7 * len(found)
    assert unseen > 0


def test_zeros_in_the_middle_of_a_file_are_found(shared: Path) -> None:
    found = []
    for data in photographs(shared, every=30):
        for place in range(len(data) // 4, len(data) - 900, len(data) // 5):
            lost = data[:place] + bytes(600) + data[place + 600 :]
            try:
                inspect(lost)
            except UnreadableMedia as error:
                found.append(error.reason == "corrupt")
            else:
                found.append(False)  # where zeros stand for as many blocks as were lost
    assert sum(found) >= 0.85 * len(found)


def test_filling_bytes_before_the_end_marker_do_no_harm() -> None:
    data = KINDS["baseline"](busy())
    for padding in (bytes(200), b"\xff" * 9, b"ab"):
        padded = inspect(data[:-2] + padding + data[-2:])
        assert padded.thumbnail == inspect(data).thumbnail
    junk = np.random.Generator(np.random.PCG64(0)).integers(1, 255, 300, dtype=np.uint8).tobytes()
    assert fault(data[:-2] + junk + data[-2:]).reason == "corrupt"


@pytest.mark.parametrize("kind", KINDS)
def test_both_decoders_say_the_same_of_a_file(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2026:03:02 08:12:33"
    for image in (busy(801, 603), photograph(37, 21), busy(520, 481)):
        data = KINDS[kind](image)
        told = data[:2] + b"\xff\xe1" + _segment(exif.tobytes()) + data[2:]
        ours = inspect(told)
        cut = fault(told[: len(told) * 2 // 3])
        with monkeypatch.context() as patched:
            patched.setattr(decoding.jpeg, "header", lambda data: None)
            pillows = inspect(told)
            assert fault(told[: len(told) * 2 // 3]).reason == cut.reason == "truncated"
        for name in ("sample_id", "width", "height", "format", "color_mode", "captured_at"):
            assert getattr(ours, name) == getattr(pillows, name), name
        # Pillow has no reduced CMYK: both are of the whole picture, reduced in two ways.
        tolerance = 0.02 if kind == "cmyk" else 1e-6
        for name in ("brightness", "contrast", "saturation"):
            assert getattr(ours, name) == pytest.approx(getattr(pillows, name), abs=tolerance)
        assert ours.width == image.height and ours.captured_at is not None


def _segment(block: bytes) -> bytes:
    return (len(block) + 2).to_bytes(2, "big") + block


def test_full_size_pixels_are_those_of_pillow(shared: Path) -> None:
    for data in [*photographs(shared, every=80), *(make(busy()) for make in KINDS.values())]:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        exif = Image.open(io.BytesIO(data)).getexif()
        if exif.get(0x0112, 1) == 1:
            assert np.array_equal(decode_rgb(data), expected)


def test_what_the_fast_decoder_objects_to_without_damage_is_left_to_pillow() -> None:
    data = bytearray(KINDS["baseline"](busy()))
    data[data.index(b"JFIF\x00") + 5] = 7  # a revision that nobody knows
    asked: list[int] = []
    found = decode(bytes(data), draft=200, reserve=asked.append)
    assert (found.width, found.height, len(asked)) == (640, 480, 1)


def test_a_jpeg_of_several_pictures_is_the_first_of_them() -> None:
    buffer = io.BytesIO()
    busy().save(buffer, "MPO", save_all=True, append_images=[photograph(64, 48)])
    found = inspect(buffer.getvalue())
    assert (found.format, found.width, found.attached) == ("JPEG", 640, "image")


def test_a_file_of_a_thousand_scans_is_refused_before_it_is_decoded() -> None:
    data = KINDS["progressive"](Image.new("RGB", (4000, 4000)))
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 1000 + data[-2:]
    began = time.process_time()
    found = fault(bomb)
    assert (found.reason, found.detail[-5:]) == ("too_large", "scans")
    assert time.process_time() - began < 1
    assert inspect(data).width == 4000


def test_a_reduction_keeps_at_least_the_pixels_asked_for() -> None:
    head = jpeg.header(encoded(Image.new("L", (1920, 1080)), "JPEG"))
    assert head is not None
    assert [head.reduction(side) for side in (0, 135, 136, 230, 271, 540, 541)] == [
        1,
        8,
        4,
        4,
        2,
        2,
        1,
    ]
