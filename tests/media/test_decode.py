"""Decoding: every picture upright in RGB, everything else a stable reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from tests.media.pictures import FORMATS, encoded, photograph, photographs
from visionloop.errors import UnreadableMedia
from visionloop.media.budget import Budget
from visionloop.media.decode import REASONS, decode, decode_rgb

# pytest shows the warnings that the decoder silences in production.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(UnreadableMedia) as caught:
        decode_rgb(data, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_rgb_of_its_size(name: str) -> None:
    form, options = FORMATS[name]
    pixels = decode_rgb(encoded(photograph(96, 64), form, **options))
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(photograph(96, 64))).mean() < 20


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_is_never_taken_for_a_picture(name: str) -> None:
    form, options = FORMATS[name]
    data = encoded(photograph(48, 32), form, **options)
    step = max(1, len(data) // 400)
    cuts = {*range(1, len(data), step), *range(max(1, len(data) - 24), len(data))}
    reasons = [reason(data[:cut]) for cut in sorted(cuts)]
    assert set(reasons) <= {"truncated", "not_an_image", "corrupt", "unsupported"}
    assert reasons.count("truncated") > 0.9 * len(reasons)


def test_real_photographs_cut_at_every_tenth_byte_are_unreadable(shared: Path) -> None:
    for data in sorted(photographs(shared), key=len)[:2]:
        for cut in range(0, len(data), 10):
            expected = {"empty"} if cut == 0 else {"truncated"}
            assert reason(data[:cut]) in expected | ({"not_an_image"} if cut < 3 else set())


def test_real_photographs_all_decode(shared: Path) -> None:
    for data in photographs(shared, every=12):
        assert decode_rgb(data).ndim == 3


def test_a_jpeg_whose_second_half_was_lost_to_zeros_is_truncated(shared: Path) -> None:
    data = photographs(shared, every=100)[0]
    assert reason(data[: len(data) // 2] + bytes(len(data) - len(data) // 2)) == "truncated"


def test_data_after_the_end_of_a_picture_does_no_harm() -> None:
    for form in ("JPEG", "PNG"):
        data = encoded(photograph(), form)
        assert np.array_equal(decode_rgb(data + b"\xff\xda trailer" * 50), decode_rgb(data))


def test_a_png_with_a_damaged_byte_is_corrupt() -> None:
    data = bytearray(encoded(photograph()))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) in ("corrupt", "truncated")
    text_chunk = bytearray(encoded(photograph(), pnginfo=_text("hello")))
    at = bytes(text_chunk).index(b"hello")
    text_chunk[at] ^= 0x01  # pixels are whole, but a checksum tells that bytes changed
    assert reason(bytes(text_chunk)) == "corrupt"


def _text(text: str) -> object:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", text)
    return info


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"just some words, named photo.png by mistake", "not_an_image"),
        (b"%PDF-1.4\n%%EOF", "not_an_image"),
        (b"<html><body>404 Not Found</body></html>", "not_an_image"),
        (bytes(1000), "not_an_image"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "unsupported"),
        (b"\x1aE\xdf\xa3" + bytes(100), "unsupported"),
        (b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(100), "unsupported"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), "unsupported"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(200) + b"\xff\xd9", "corrupt"),
    ],
)
def test_each_kind_of_other_bytes_has_its_reason(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = bytearray(encoded(photograph(64, 64)))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    assert reason(bytes(bomb)) == "too_large"
    assert reason(encoded(photograph(64, 64)), max_pixels=64 * 64 - 1) == "too_large"
    assert decode_rgb(encoded(photograph(64, 64)), max_pixels=64 * 64).shape == (64, 64, 3)


def test_truncation_is_noticed_although_another_module_told_pillow_to_hide_it() -> None:
    data = encoded(photograph(), "JPEG")
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        assert reason(data[: len(data) // 2]) == "truncated"
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_upright_by_its_exif(orientation: int, form: str) -> None:
    upright = photograph(96, 64)
    # How a camera that was held so would have stored it: the inverse of what a viewer does.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(stored, form, exif=exif))
    assert (decoded.width, decoded.height) == (96, 64)
    difference = np.abs(np.asarray(decoded.image).astype(int) - np.asarray(upright))
    assert difference.mean() < 8


def test_broken_exif_does_not_make_a_picture_unreadable() -> None:
    data = encoded(photograph(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff nonsense")
    assert decode_rgb(data).shape == (64, 96, 3)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_rgb(encoded(clear)) == 255).all()
    half = decode_rgb(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert abs(int(half[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert tuple(decode_rgb(encoded(palette))[0, 0]) == (10, 200, 30)
    assert (decode_rgb(encoded(palette, transparency=1)) == 255).all()


def test_grey_cmyk_and_sixteen_bit_pictures_keep_their_brightness() -> None:
    assert tuple(decode_rgb(encoded(Image.new("L", (4, 4), 77)))[0, 0]) == (77, 77, 77)
    assert tuple(decode_rgb(encoded(Image.new("1", (4, 4), 1)))[0, 0]) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 77 * 256 + 13, np.uint16))
    for form in ("PNG", "TIFF"):
        assert tuple(decode_rgb(encoded(deep, form))[0, 0]) == (77, 77, 77)
    cmyk = decode_rgb(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert cmyk[8, 8, 0] > 200 > 60 > cmyk[8, 8, 1]


def test_a_draft_reads_a_photograph_to_its_end_at_a_smaller_size(shared: Path) -> None:
    original = Image.open(io.BytesIO(photographs(shared, every=100)[0]))
    data = encoded(original.resize((2000, 1500)), "JPEG")
    decoded = decode(data, draft=256)
    assert min(decoded.image.size) >= 256
    assert max(decoded.image.size) < 1000
    assert (decoded.width, decoded.height) == (2000, 1500)
    for share in (0.5, 0.9, 0.999):
        with pytest.raises(UnreadableMedia, match="truncated"):
            decode(data[: int(len(data) * share)], draft=256)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
@example(b"\xff\xd8\xff")
@example(b"GIF89a")
@example(b"BM" + bytes(20))
def test_random_bytes_never_do_anything_but_decode_or_say_why(data: bytes) -> None:
    try:
        assert decode_rgb(data).ndim == 3
    except UnreadableMedia as error:
        assert error.reason in REASONS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_damaged_files_never_do_anything_but_decode_or_say_why(
    name: str, draw: st.DataObject
) -> None:
    form, options = FORMATS[name]
    data = bytearray(encoded(photograph(24, 16), form, **options))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        assert decode_rgb(bytes(data)).ndim == 3
    except UnreadableMedia as error:
        assert error.reason in REASONS


def test_conversions_in_strips_change_no_pixel() -> None:
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 256, (1100, 1500, 4), dtype=np.uint8))
    white = Image.new("RGBA", wide.size, "white")
    assert np.array_equal(
        decode_rgb(encoded(wide)), np.asarray(Image.alpha_composite(white, wide).convert("RGB"))
    )
    values = rng.normal(5, 100, (1100, 1500)).astype(np.float32)
    scaled = (values.astype(np.float64) - values.min()) * (
        255.0 / (float(values.max()) - float(values.min()))
    )
    got = decode_rgb(encoded(Image.fromarray(values), "TIFF"))
    assert np.array_equal(got[:, :, 0], np.round(scaled).astype(np.uint8))


def test_a_picture_beyond_the_memory_is_too_large_and_ends_nothing() -> None:
    program = """
import io, resource, sys
from PIL import Image
from visionloop.errors import UnreadableMedia
from visionloop.media.inspect import inspect
bomb = sys.stdin.buffer.read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 250_000_000, resource.RLIM_INFINITY))
try:
    inspect(bomb)
except UnreadableMedia as error:
    print(error.reason, error.detail)
"""
    bomb = encoded(Image.new("P", (13000, 13000)), transparency=0, compress_level=9)
    answer = subprocess.run(
        [sys.executable, "-c", program], input=bomb, capture_output=True, check=True
    )
    assert answer.stdout.decode() == "too_large more than there is memory for\n"


def test_large_pictures_are_decoded_one_at_a_time_and_small_ones_together() -> None:
    budget = Budget(100)
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def decode_one(pixels: int) -> None:
        with budget.share() as share:
            share.take(pixels)
            with lock:
                inside.append(pixels)
                most.append(sum(inside))
            time.sleep(0.01)
            with lock:
                inside.remove(pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode_one, [30, 60, 500, 10, 100, 20, 30, 40, 30, 500] * 3))
    assert max(most) == 500  # larger than the whole budget: alone
    assert sorted({n for n in most if n != 500})[-1] <= 100
    assert len([n for n in most if n in (90, 100, 80, 70, 60)]) > 3


def test_room_is_given_in_the_order_of_asking() -> None:
    budget = Budget(10)
    budget.take(8)
    got: list[str] = []

    def ask(name: str, amount: int) -> threading.Thread:
        def take() -> None:
            budget.take(amount)
            got.append(name)
            budget.give(amount)

        thread = threading.Thread(target=take)
        thread.start()
        time.sleep(0.05)
        return thread

    threads = [ask("large", 10), ask("small", 1)]
    assert not got  # the small one would fit, and for ever others like it before the large one
    budget.give(8)
    for thread in threads:
        thread.join(10)
    assert got == ["large", "small"]


def test_the_pixels_reserved_are_those_in_memory() -> None:
    def reserved(form: str, **options: Any) -> int:
        asked: list[int] = []
        decode(encoded(photograph(512, 512), form, **options), draft=64, reserve=asked.append)
        (pixels,) = asked
        return pixels

    assert reserved("PNG") == 512 * 512
    assert reserved("JPEG") == 64 * 64
    assert reserved("JPEG", progressive=True) == 512 * 512


def test_an_ingest_of_large_pictures_holds_few_of_them_at_a_time(tmp_path: Path) -> None:
    program = """
import resource, sys
from visionloop.media.reading import examine
from visionloop.media.sources import open_source
from visionloop.source_config import SourceConfig
source = open_source(SourceConfig(uri=sys.argv[1]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
states = [found.state for found in examine(source, source.entries())]
assert states == ["ok"] * 8, states
print(peak() - before)
"""
    data = encoded(Image.new("P", (5000, 4000)), transparency=0)
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(data)
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    # 20 million pixels are 100 MB and more: three are within the budget, all eight were 0.8 GB.
    assert int(answer.stdout) < 550_000_000
