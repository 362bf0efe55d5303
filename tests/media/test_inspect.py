"""Inspection: identity, size, time and quality of real pictures from one decoding."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from tests.media.pictures import encoded, photograph, photographs
from visionloop.errors import UnreadableMedia
from visionloop.media.fingerprint import as_words, distances
from visionloop.media.inspect import Inspection, inspect


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def bits(left: Inspection, right: Inspection) -> int:
    return int(distances(as_words([left.fingerprint]), as_words([right.fingerprint]))[0, 0])


def exif(**tags: str) -> Image.Exif:
    numbers = {"original": 0x9003, "offset": 0x9011, "fraction": 0x9291}
    found = Image.Exif()
    details = found.get_ifd(0x8769)
    for name, value in tags.items():
        if name == "changed":
            found[0x0132] = value
        else:
            details[numbers[name]] = value
    return found


def test_a_sample_is_named_by_the_sha256_of_its_bytes() -> None:
    data = encoded(photograph())
    found = inspect(data)
    assert found.sample_id == hashlib.sha256(data).hexdigest()
    assert (found.width, found.height, found.format) == (96, 64, "PNG")


def test_width_and_height_are_those_of_the_upright_picture() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    found = inspect(encoded(photograph(2048, 1024), "JPEG", exif=turned))
    assert (found.width, found.height) == (1024, 2048)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"original": "2026:03:02 08:12:33"}, datetime(2026, 3, 2, 8, 12, 33, tzinfo=UTC)),
        (
            {"original": "2026:03:02 08:12:33", "offset": "+02:00"},
            datetime(2026, 3, 2, 6, 12, 33, tzinfo=UTC),
        ),
        (
            {"original": "2026:03:02 23:30:00", "offset": "-05:30", "fraction": "25"},
            datetime(2026, 3, 3, 5, 0, 0, 250_000, tzinfo=UTC),
        ),
        ({"changed": "2025:12:31 00:00:01"}, datetime(2025, 12, 31, 0, 0, 1, tzinfo=UTC)),
        ({"original": "0000:00:00 00:00:00"}, None),
        ({"original": "yesterday"}, None),
        ({}, None),
    ],
)
def test_the_time_of_capture_is_exifs_in_utc(
    tags: dict[str, str], expected: datetime | None
) -> None:
    assert inspect(encoded(photograph(), "JPEG", exif=exif(**tags))).captured_at == expected


def test_unreadable_bytes_raise_with_a_reason(shared: Path) -> None:
    data = photographs(shared, every=100)[0]
    with pytest.raises(UnreadableMedia) as caught:
        inspect(data[:-100])
    assert caught.value.reason == "truncated"


def test_blur_lowers_sharpness_and_darkness_lowers_brightness_but_not_sharpness(
    shared: Path,
) -> None:
    for data in photographs(shared, every=40):
        image = opened(data)
        before = inspect(encoded(image, "PNG"))
        radius = 4 * min(image.size) / 256
        blurred = inspect(encoded(image.filter(ImageFilter.GaussianBlur(radius)), "PNG"))
        assert blurred.sharpness < before.sharpness / 5
        dark = inspect(encoded(ImageEnhance.Brightness(image).enhance(0.25), "PNG"))
        assert dark.brightness < before.brightness / 3
        assert dark.contrast < before.contrast / 3
        assert 0.7 < dark.sharpness / before.sharpness < 1.4


def test_measures_of_a_photograph_and_of_its_large_copy_agree(shared: Path) -> None:
    for data in photographs(shared, every=60):
        image = opened(data)
        small = inspect(encoded(image, "PNG"))
        # Decoded at a reduced scale, as a camera's original would be.
        large = inspect(encoded(image.resize((image.width * 3, image.height * 3)), "JPEG"))
        assert abs(small.brightness - large.brightness) < 0.02
        assert abs(small.contrast - large.contrast) < 0.02
        assert 0.6 < large.sharpness / small.sharpness < 1.6
        assert bits(small, large) <= 4


def test_flat_and_tiny_pictures_have_no_sharpness_and_do_no_harm() -> None:
    for size in ((1, 1), (2, 300), (300, 300), (1, 4000)):
        found = inspect(encoded(Image.new("RGB", size, (9, 9, 9))))
        assert (found.sharpness, found.contrast) == (0.0, 0.0)
        assert abs(found.brightness - 9 / 255) < 1e-6
        assert len(found.fingerprint) == 32


def test_inspection_is_the_same_every_time() -> None:
    data = encoded(photograph(500, 400), "JPEG")
    assert inspect(data) == inspect(data)


def test_measures_stay_in_their_ranges_for_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = inspect(encoded(Image.fromarray(noise)))
    assert 0.3 < found.sharpness < 0.5
    assert 0 <= found.brightness <= 1
    assert 0 <= found.contrast <= 0.5
