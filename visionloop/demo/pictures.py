"""How the demo's world makes pictures, and spoils them."""

from __future__ import annotations

import gzip
import importlib.util
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

SIDE = 32


def load_digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the digits that scikit-learn brings along, without importing it (seconds).

    They are the test set of: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits,
    UCI Machine Learning Repository, 1998.

    Returns:
        float64 [1797, 8, 8] with values 0..16, and int64 [1797].
    """
    spec = importlib.util.find_spec("sklearn")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.exists():
            with gzip.open(path, "rt", encoding="ascii") as file:
                rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    # Another layout than any version so far: its own loader knows where they are.
    from sklearn import datasets

    found = datasets.load_digits()
    return found.images, found.target.astype(np.int64)


def render(
    digit: npt.NDArray[np.float32],
    tint: tuple[float, float, float],
    gain: float,
    noise: float,
    blur: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Return a picture of dark ink on light paper, lit from one side.

    Args:
        digit: float32 [8, 8], 1 is full ink.
        tint: Gain of each channel.
        gain: Exposure.
        noise: Standard deviation of the sensor's noise.
        blur: Standard deviation of the defocus in pixels, before the sensor.
        rng: Source of light and noise.

    Returns:
        uint8 [32, 32, 3].
    """
    margin = 2
    ink = Image.fromarray(digit).resize(
        (SIDE - 2 * margin, SIDE - 2 * margin), Image.Resampling.BICUBIC
    )
    # The steepened ramp turns the blurred 8 x 8 grid back into strokes with an edge.
    strokes = np.clip((np.asarray(ink) - 0.12) / 0.72, 0, 1)
    strokes = np.pad(strokes, margin)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.07 * (np.cos(angle) * x + np.sin(angle) * y)
    scene = (0.86 - 0.7 * strokes) * light
    if blur:
        scene = _defocus(scene, blur)
    exposed = scene[..., None] * np.array(tint) * gain
    exposed = exposed + rng.normal(0, noise, (SIDE, SIDE, 3))
    return np.asarray(np.clip(exposed, 0, 1) * 255 + 0.5).astype(np.uint8)


def _defocus(scene: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        wide = np.pad(scene, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], "edge")
        scene = np.apply_along_axis(np.convolve, axis, wide, kernel, "valid")
    return scene


def near_copy(data: bytes, way: int, rng: np.random.Generator) -> bytes:
    """Return the same picture in other bytes: re-encoded, resized, cropped, or brightened.

    Args:
        data: Encoded picture.
        way: 0 re-encodes, 1 resizes, 2 crops, any other brightens or darkens.
        rng: Source of quality, size, margins and brightness.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    if way == 0:
        return jpeg(image, int(rng.integers(60, 90)))
    if way == 1:
        side = int(rng.choice([24, 26, 40, 48, 64]))
        return png(image.resize((side, side), Image.Resampling.BICUBIC))
    if way == 2:
        left, top = (int(v) for v in rng.integers(0, 2, 2))
        right, bottom = (int(v) for v in rng.integers(0, 2, 2))
        right = right or int(left + top + bottom == 0)
        return jpeg(image.crop((left, top, SIDE - right, SIDE - bottom)), 88)
    factor = float(rng.choice([0.85, 0.9, 1.08, 1.14]))
    return png(ImageEnhance.Brightness(image).enhance(factor))


def broken(data: bytes, way: int, rng: np.random.Generator) -> bytes:
    """Return what a transfer or a person left under an image's name.

    Args:
        data: Encoded picture.
        way: 0 to 2 truncate, 3 leaves nothing, 4 a PDF, any other a server's error.
        rng: Source of the length that is left, and of noise.
    """
    if way in (0, 1, 2):
        return data[: int(len(data) * rng.uniform(0.2, 0.95))]
    if way == 3:
        return b""
    if way == 4:
        return b"%PDF-1.4\n1 0 obj <</Type /Catalog>> endobj\n%%EOF" + rng.bytes(64)
    return f"<Error><Code>AccessDenied</Code><Id>{rng.integers(10**9)}</Id></Error>".encode()


def png(image: Image.Image) -> bytes:
    """Return an image as PNG."""
    text = io.BytesIO()
    image.save(text, "PNG")
    return text.getvalue()


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Return an image as JPEG."""
    text = io.BytesIO()
    image.save(text, "JPEG", quality=quality)
    return text.getvalue()
