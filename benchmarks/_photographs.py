"""Photographs to measure on: real ones where there are some, else made ones like nature's."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]
# A camera's JPEG has about two bits a pixel: 0.5 MB at 1080p, 4 MB at 16 megapixels.
_QUALITY, _NOISE = 92, 5.0


def data_folder() -> Path | None:
    """Return the folder of real photographs, None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("VISIONLOOP_TEST_SHARED", beside)) / "data"
    return folder if (folder / "clothing").is_dir() else None


@cache
def paths(kind: str) -> tuple[Path, ...]:
    """Return the files of one kind of real photographs, ``clothing`` or ``bccd``, by name."""
    folder = data_folder()
    return () if folder is None else tuple(sorted((folder / kind).rglob("*.jpg")))


def photographs(kind: str, number: int) -> list[Image.Image]:
    """Return so many pictures of a kind, evenly drawn; made ones where there are no real ones."""
    found = paths(kind)
    if not found:
        return [made(640, 480, seed) for seed in range(number)]
    step = max(1, len(found) // number)
    return [Image.open(path).convert("RGB") for path in found[::step][:number]]


def made(width: int, height: int, seed: int) -> Image.Image:
    """Return a picture with the statistics of nature: amplitudes fall with frequency, and edges."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y = np.fft.fftfreq(height)[:, None] * height
    x = np.fft.rfftfreq(width)[None, :] * width
    fall = 1 / np.maximum(np.hypot(y, x), 1) ** 1.1
    planes = []
    for _ in range(3):
        waves = fall * np.exp(2j * np.pi * rng.random(fall.shape))
        plane = np.fft.irfft2(waves, (height, width))
        planes.append(plane / plane.std())
    pixels = np.stack(planes, axis=2)
    for _ in range(12):  # occluding squares: the edges that nature has
        top, left = rng.integers(0, height), rng.integers(0, width)
        side = rng.integers(height // 16, height // 3)
        pixels[top : top + side, left : left + side] += rng.normal(0, 1, 3)
    return Image.fromarray(np.uint8(np.clip(110 + 45 * pixels, 0, 255)))


def camera_files(width: int, height: int, number: int, **options: object) -> list[bytes]:
    """Return JPEG files as a camera of this size writes them, about two bits a pixel.

    Args:
        width: Pixels.
        height: Pixels.
        number: How many.
        options: Passed to Pillow's encoder, for example ``progressive``.
    """
    files = []
    for seed, picture in enumerate(photographs("clothing", number)):
        if picture.height > picture.width:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        scale = max(width / picture.width, height / picture.height)
        size = (
            max(width, round(picture.width * scale)),
            max(height, round(picture.height * scale)),
        )
        large = picture.resize(size, Image.Resampling.LANCZOS).crop((0, 0, width, height))
        # Enlarged pictures lack a sensor's noise, which is most of what a camera's file holds.
        rng = np.random.Generator(np.random.PCG64(seed))
        noisy = np.asarray(large) + rng.normal(0, _NOISE, (height, width, 3))
        files.append(encoded(Image.fromarray(np.uint8(np.clip(noisy, 0, 255))), **options))
    return files


def encoded(picture: Image.Image, quality: int = _QUALITY, **options: object) -> bytes:
    """Return a picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


Defect = Callable[[Image.Image, np.random.Generator], Image.Image]


def _pixels(change: Callable[[Floats, np.random.Generator], Floats]) -> Defect:
    def apply(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        values = change(np.asarray(picture, dtype=np.float32) / 255, rng)
        return Image.fromarray(np.uint8(np.clip(values * 255 + 0.5, 0, 255)))

    return apply


def _blurred(share: float) -> Defect:
    def apply(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        radius = share * min(picture.size) * float(rng.uniform(0.8, 1.2))
        return picture.filter(ImageFilter.GaussianBlur(radius))

    return apply


def _long(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    height = round(picture.width / float(rng.uniform(4, 8)))
    top = int(rng.integers(0, picture.height - height))
    return picture.crop((0, top, picture.width, top + height))


def _empty(x: Floats, rng: np.random.Generator) -> Floats:
    """A covered lens: one value and a sensor's noise."""
    return np.full_like(x, rng.uniform(0.2, 0.8)) + rng.normal(0, 1 / 255, x.shape).astype("f4")


def _mostly_empty(x: Floats, rng: np.random.Generator) -> Floats:
    """A transmission that broke off: a strip of the picture, the rest of one value."""
    kept = max(1, int(len(x) * rng.uniform(0.04, 0.1)))
    return np.concatenate([x[:kept], np.full_like(x[kept:], rng.uniform(0.2, 0.8))])


# Each defect with the kind of flag that it should raise.
DEFECTS: dict[str, tuple[str, Defect]] = {
    "blurred a little": ("blurred", _blurred(0.006)),
    "blurred": ("blurred", _blurred(0.012)),
    "dark": ("dark", _pixels(lambda x, rng: x * rng.uniform(0.03, 0.12))),
    "overexposed": ("bright", _pixels(lambda x, rng: 1 - (1 - x) * rng.uniform(0.03, 0.12))),
    "flat": (
        "low_contrast",
        _pixels(lambda x, rng: x.mean() + (x - x.mean()) * rng.uniform(0.03, 0.08)),
    ),
    "covered lens": ("low_information", _pixels(_empty)),
    "mostly empty": ("low_information", _pixels(_mostly_empty)),
    "a long strip": ("odd_aspect", _long),
    "grey among colour": ("grey", lambda picture, rng: picture.convert("L").convert("RGB")),
}
