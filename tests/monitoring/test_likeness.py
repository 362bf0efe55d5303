"""The pixels tell a copy from a look-alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from visionloop.media.fingerprint import as_words
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.duplicates import nearest_earlier
from visionloop.monitoring.likeness import likeness
from visionloop.monitoring.pixels import grey

SAME = MonitoringConfig().near_duplicate_likeness


def picture(seed: int, side: int = 96) -> Image.Image:
    pixels = np.random.Generator(np.random.PCG64(seed)).integers(0, 200, (7, 7), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_the_same_picture(seed: int) -> None:
    original = picture(seed)
    cropped = original.crop((3, 0, 94, 93))
    copies = [
        encoded(original, "JPEG", quality=60),
        encoded(original.resize((40, 40))),
        encoded(ImageEnhance.Brightness(original).enhance(0.8)),
        encoded(cropped, "JPEG", quality=88),
    ]
    for copy in copies:
        assert likeness(grey(encoded(original)), grey(copy)) >= SAME
        assert likeness(grey(copy), grey(encoded(original))) >= SAME


def test_different_pictures_are_not() -> None:
    greys = [grey(encoded(picture(seed))) for seed in range(12)]
    assert max(likeness(a, b) for i, a in enumerate(greys) for b in greys[:i]) < 0.9


def test_flat_pictures_have_no_likeness_and_no_error() -> None:
    flat = np.full((32, 32), 7.0)
    assert likeness(flat, flat) <= SAME
    assert np.isfinite(likeness(flat, grey(encoded(picture(0)))))


def test_the_nearest_earlier_fingerprint_is_that_of_brute_force() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    prints = rng.integers(0, 256, (700, 32), dtype=np.uint8)
    prints[500] = prints[20]
    prints[20] = prints[3]
    words = as_words(prints)
    bits = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2, dtype=np.int64)
    bits[np.triu_indices(700)] = 999
    nearest, distance = nearest_earlier(words, 300)
    assert (nearest == bits[300:].argmin(axis=1)).all()
    assert (distance == bits[300:].min(axis=1)).all()
    assert nearest_earlier(words, 0)[0][0] == -1
