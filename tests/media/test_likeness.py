"""The pixels tell a copy from a look-alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from tests.media.pictures import encoded as file_of
from tests.media.pictures import photographs
from visionloop.demo.pictures import load_digits
from visionloop.media.inspect import inspect
from visionloop.media.likeness import SIDE, grey, likeness
from visionloop.monitoring.config import MonitoringConfig

SAME = MonitoringConfig().near_duplicate_likeness


def picture(seed: int, side: int = 192) -> Image.Image:
    pixels = np.random.Generator(np.random.PCG64(seed)).integers(0, 200, (7, 7), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def seen(image: Image.Image, **jpeg: int) -> np.ndarray:
    """Return a picture as ingest keeps it."""
    data = file_of(image, "JPEG", **jpeg) if jpeg else file_of(image)
    return grey(inspect(data).thumbnail)


def copies(image: Image.Image) -> dict[str, np.ndarray]:
    w, h = image.size
    cropped = image.crop((round(w * 0.06), 0, round(w * 0.98), round(h * 0.93)))
    return {
        "re-encoded": seen(image, quality=50),
        "resized": seen(image.resize((w // 2, h // 2), Image.Resampling.LANCZOS), quality=85),
        "darker": seen(ImageEnhance.Brightness(image).enhance(0.8), quality=85),
        "flatter": seen(ImageEnhance.Contrast(image).enhance(0.8), quality=85),
        "cropped": seen(cropped, quality=85),
        "cropped and resized": seen(cropped.resize((w * 3 // 4, h * 3 // 4)), quality=85),
    }


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_the_same_picture_whichever_is_the_copy(seed: int) -> None:
    original = seen(picture(seed))
    for kind, copy in copies(picture(seed)).items():
        both = likeness([original, copy], [copy, original])
        assert both.min() >= SAME, kind
        assert both[0] == both[1]


def test_different_pictures_are_not() -> None:
    greys = [seen(picture(seed)) for seed in range(12)]
    i, j = np.triu_indices(12, 1)
    assert likeness([greys[a] for a in i], [greys[a] for a in j]).max() < 0.6


def test_copies_of_real_photographs_are_told_from_other_photographs(shared: Path) -> None:
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs(shared, every=12)]
    greys = [seen(image, quality=95) for image in images]
    i, j = np.triu_indices(len(greys), 1)
    assert likeness([greys[a] for a in i], [greys[a] for a in j]).max() < SAME - 0.1
    found: dict[str, list[float]] = {}
    for image, original in zip(images, greys, strict=True):
        for kind, copy in copies(image).items():
            found.setdefault(kind, []).append(float(likeness([original], [copy])[0]))
    for kind, values in found.items():
        assert np.mean(np.array(values) >= SAME) >= 0.9, kind


def test_digits_that_look_alike_are_not_the_same() -> None:
    pixels, _ = load_digits()
    images = [Image.fromarray(np.uint8(np.round(digit / 16 * 255))) for digit in pixels[:400]]
    greys = np.stack([grey(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images])
    flat = greys.reshape(len(greys), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    alike = np.triu(flat @ flat.T, 1)
    i, j = np.unravel_index(np.argsort(alike, axis=None)[::-1][:300], alike.shape)
    assert alike[i, j].min() > 0.9  # as pixels correlate they are nearly the same
    assert np.mean(likeness(greys[i], greys[j]) >= SAME) < 0.02


def test_the_next_frame_of_a_camera_that_stands_still_is_another_picture() -> None:
    scene = picture(1)
    frames = []
    for place in ((30, 40), (120, 90)):
        frame = scene.copy()
        ImageDraw.Draw(frame).ellipse((*place, place[0] + 14, place[1] + 14), fill=255)
        frames.append(seen(frame, quality=90))
    assert likeness(frames[:1], frames[1:])[0] < SAME
    flat = [x.ravel() - x.mean() for x in frames]
    assert flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]) > 0.95


def test_flat_pictures_are_like_nothing_and_no_pair_has_no_likeness() -> None:
    flat = np.full((SIDE, SIDE), 7, np.float32)
    assert likeness([flat, flat], [flat, seen(picture(0))]).tolist() == [0, 0]
    assert likeness([], []).shape == (0,)
