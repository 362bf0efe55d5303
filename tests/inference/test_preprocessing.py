from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from visionloop.errors import InputError
from visionloop.inference import to_batch, to_input
from visionloop.inference.preprocessing import picture_to_input
from visionloop.media.decode import decode_rgb, decode_upright


def test_a_gray_image_and_its_rgb_form_give_the_same_input() -> None:
    gray = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    rgb = np.repeat(gray[:, :, None], 3, axis=2)
    assert np.array_equal(to_input(gray, 16), to_input(rgb, 16))
    assert np.array_equal(to_input(gray[:, :, None], 16), to_input(rgb, 16))


def test_an_image_of_the_right_size_is_only_scaled_to_one() -> None:
    image = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    given = to_input(image, 16)
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    assert np.array_equal(np.rint(given * 255).astype(np.uint8), image.transpose(2, 0, 1))


def test_the_centre_of_a_wide_image_is_kept() -> None:
    image = np.zeros((40, 120, 3), dtype=np.uint8)
    image[:, 40:80] = 200
    # The filter of the outermost pixels reaches over the crop's edge, as in a resize of the whole.
    assert (to_input(image, 20)[:, :, 1:-1] > 0.75).all()
    assert (to_input(image.transpose(1, 0, 2), 20)[:, 1:-1] > 0.75).all()


def test_a_fine_pattern_is_averaged_not_aliased() -> None:
    board = ((np.indices((256, 256)).sum(axis=0) % 2) * 255).astype(np.uint8)
    assert np.abs(to_input(board, 16) - 0.5).max() < 0.02


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        np.zeros(8, dtype=np.uint8),
    ],
)
def test_what_is_no_decoded_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="an image must"):
        to_input(image, 8)


def test_a_batch_of_nothing_has_the_shape_of_a_batch() -> None:
    assert to_batch([], 8).shape == (0, 3, 8, 8)
    assert to_batch([np.zeros((9, 7, 3), np.uint8)] * 2, 8).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG"),
     ("LA", "PNG"), ("1", "PNG"), ("RGB", "WEBP"), ("P", "GIF")],
)  # fmt: skip
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_decoded_picture_gives_the_input_that_its_pixels_give(
    mode: str, form: str, orientation: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (77, 131, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    # One value of grey and of a palette is transparent, which is laid on white.
    more = {"transparency": 7} if form == "PNG" and mode in ("L", "P") else {}
    Image.fromarray(noise).convert(mode).save(out, form, exif=exif, **more)
    for size in (8, 50, 77):
        row = np.empty((3, size, size), np.float32)
        picture_to_input(decode_upright(out.getvalue()), size, row)
        assert np.array_equal(row, to_input(decode_rgb(out.getvalue()), size))
