"""What a file is and where its picture ends, told from the bytes alone."""

from __future__ import annotations

import io
import zipfile

import pytest

from tests.media.pictures import encoded, photograph
from visionloop.media.inspect import inspect
from visionloop.media.sniff import jpeg_end, picture_end, png_fault


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as held:
        held.writestr("run.sh", "echo no photograph")
    return buffer.getvalue()


TAILS = {
    "zip": archive(),
    "html": b"\n<!DOCTYPE html><html><script>alert(1)</script></html>",
    "php": b"<?php system($_GET[0]); ?>",
    "pdf": b"%PDF-1.7\n%%EOF",
    "rar": b"Rar!\x1a\x07\x01\x00 more",
    "7z": b"7z\xbc\xaf\x27\x1c and more",
    "program": b"\x7fELF\x02\x01\x01",
    "video": b"\x00\x00\x00\x18ftypmp42" + b"\x01\x02" * 50,
    "padding": bytes(5000),
    "unknown": b"SEFT and other words of a maker",
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_what_follows_a_picture_is_named(form: str, tail: str) -> None:
    data = encoded(photograph(), form)
    assert picture_end(data) == len(data)
    assert inspect(data).attached == ""
    assert picture_end(data + TAILS[tail]) == len(data)
    assert inspect(data + TAILS[tail]).attached == tail


def test_an_archive_is_found_behind_much_else_and_before_a_second_end_marker() -> None:
    data = encoded(photograph(), "JPEG")
    assert inspect(data + b"words " * 40_000 + archive()).attached == "zip"
    hidden = data + archive() + b"\xff\xd9"  # as if the picture ended here
    assert inspect(hidden).attached == "zip"


def test_end_markers_inside_the_header_are_none() -> None:
    small = encoded(photograph(32, 32), "JPEG")
    block = b"Exif\x00\x00" + b"MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00" + small
    data = encoded(photograph(), "JPEG")
    told = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    assert jpeg_end(told) == len(told)
    assert inspect(told).attached == ""
    assert jpeg_end(told[:-2]) == 0


def test_the_damaged_chunk_of_a_png_is_named() -> None:
    data = encoded(photograph())
    assert png_fault(data) is None
    chunk = data.index(b"IDAT") - 4
    damaged = bytearray(data)
    damaged[chunk + 30] ^= 1
    assert png_fault(bytes(damaged)) == chunk
    assert png_fault(data[:-20]) == chunk
    assert png_fault(data[: chunk + 4]) == chunk
    assert png_fault(b"GIF89a") is None
