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
from visionloop.media.inspect import THUMBNAIL_SIDE, Inspection, inspect
from visionloop.media.measures import measures


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


def test_a_thumbnail_is_small_upright_and_of_the_same_picture(shared: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for data in photographs(shared, every=80):
        image = opened(data)
        for width, height in ((1920, 1080), (640, 480), (161, 400), (90, 2000)):
            large = image.resize((width, height))
            for form in ("JPEG", "PNG"):
                small = opened(inspect(encoded(large, form, exif=turned)).thumbnail)
                assert 80 <= max(small.size) <= THUMBNAIL_SIDE
                expected = large.transpose(Image.Transpose.ROTATE_270).resize(small.size)
                assert small.width / small.height == pytest.approx(height / width, rel=0.2)
                difference = np.asarray(small).astype(int) - np.asarray(expected)
                assert np.abs(difference).mean() < 12


def test_a_thumbnail_of_few_pixels_keeps_each_of_them() -> None:
    for mode in ("RGB", "L"):
        picture = photograph(64, 40).convert(mode)
        small = Image.open(io.BytesIO(inspect(encoded(picture)).thumbnail))
        assert (small.format, small.mode) == ("PNG", mode)
        assert np.array_equal(np.asarray(small), np.asarray(picture))
    assert Image.open(io.BytesIO(inspect(encoded(photograph(72, 40))).thumbnail)).format == "JPEG"


def test_equal_pixels_in_other_bytes_have_one_key_and_other_pixels_another() -> None:
    picture = photograph(1200, 900)
    data = encoded(picture, "JPEG")
    commented = data[:2] + b"\xff\xfe\x00\x07words" + data[2:]
    assert inspect(commented).sample_id != inspect(data).sample_id
    assert inspect(commented).pixels == inspect(data).pixels
    assert inspect(encoded(picture, "PNG")).pixels == inspect(encoded(picture, "BMP")).pixels
    changed = picture.copy()
    changed.paste((255, 0, 0), (10, 10, 40, 40))
    assert inspect(encoded(changed, "JPEG")).pixels != inspect(data).pixels
    assert inspect(encoded(picture.resize((1199, 900)), "JPEG")).pixels != inspect(data).pixels


@pytest.mark.parametrize(
    ("mode", "form", "expected"),
    [
        ("L", "JPEG", "grey"),
        ("RGB", "JPEG", "rgb"),
        ("CMYK", "JPEG", "cmyk"),
        ("1", "PNG", "grey"),
        ("I;16", "PNG", "grey"),
        ("P", "PNG", "palette"),
        ("RGBA", "PNG", "rgba"),
        ("RGB", "WEBP", "rgb"),
        ("P", "GIF", "palette"),
    ],
)
def test_the_colour_mode_is_that_of_the_file(mode: str, form: str, expected: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((40, 50), 300, np.uint16))
    else:
        picture = photograph(80, 64).convert(mode)
    found = inspect(encoded(picture, form))
    assert found.color_mode == expected
    assert (found.saturation == 0) == (expected == "grey")


def test_entropy_is_the_bits_of_the_histogram() -> None:
    for values in (1, 2, 16, 256):
        ramp = np.repeat(np.arange(values, dtype=np.uint8), 256 // values).reshape(1, 256)
        found = inspect(encoded(Image.fromarray(np.repeat(ramp, 200, axis=0))))
        assert found.entropy == pytest.approx(np.log2(values), abs=1e-9)


def test_grey_stored_as_colour_has_no_saturation(shared: Path) -> None:
    data = photographs(shared, every=100)[0]
    grey = opened(data).convert("L").convert("RGB")
    assert inspect(encoded(grey, "JPEG")).saturation < 1e-3 < inspect(data).saturation
    assert inspect(encoded(grey, "JPEG")).color_mode == "rgb"


def test_sharpness_is_the_variance_of_the_smoothed_laplacian() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    values = grey / 255
    smooth = (values[:-2] + 2 * values[1:-1] + values[2:]) / 4
    smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
    around = smooth[:-2, 1:-1] + smooth[2:, 1:-1] + smooth[1:-1, :-2] + smooth[1:-1, 2:]
    laplacian = around - 4 * smooth[1:-1, 1:-1]
    found = measures(Image.fromarray(grey))
    assert found.sharpness == pytest.approx(laplacian.var() / values.var(), rel=1e-4)
    assert found.brightness == pytest.approx(values.mean(), rel=1e-9)
    assert found.contrast == pytest.approx(values.std(), rel=1e-9)
