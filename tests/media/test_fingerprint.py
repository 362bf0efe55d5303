"""Fingerprints: copies are near, look-alikes are far, and the search misses no pair."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

from tests.media.pictures import encoded, photographs
from visionloop.demo.pictures import load_digits
from visionloop.media.fingerprint import (
    NEAR_DUPLICATE_BITS,
    as_words,
    distances,
    fingerprint,
)


def copies(image: Image.Image) -> dict[str, Image.Image]:
    def jpeg(picture: Image.Image, quality: int) -> Image.Image:
        return Image.open(io.BytesIO(encoded(picture, "JPEG", quality=quality)))

    half = (max(1, image.width // 2), max(1, image.height // 2))
    edge = max(1, image.width // 50)
    return {
        "re-encoded": jpeg(image, 50),
        "resized": image.resize(half, Image.Resampling.LANCZOS),
        "brightened": ImageEnhance.Brightness(image).enhance(0.85),
        "cropped": image.crop((edge, 0, image.width, image.height)),
    }


def words(images: list[Image.Image]) -> npt.NDArray[np.uint64]:
    return as_words([fingerprint(image) for image in images])


@pytest.fixture(scope="module")
def digits() -> list[Image.Image]:
    pixels, _ = load_digits()
    grey = [Image.fromarray(np.uint8(np.round(digit / 16 * 255))) for digit in pixels]
    return [image.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB") for image in grey]


def shares(images: list[Image.Image]) -> tuple[float, dict[str, float]]:
    """Return the share of pictures with a look-alike in reach, and of each kind of copy found."""
    originals = words(images)
    all_pairs = distances(originals, originals).astype(int)
    np.fill_diagonal(all_pairs, 999)
    some = range(0, len(images), max(1, len(images) // 60))
    found: dict[str, list[bool]] = {}
    for i in some:
        for kind, copy in copies(images[i]).items():
            bits = distances(words([copy]), originals[i : i + 1])[0, 0]
            found.setdefault(kind, []).append(bool(bits <= NEAR_DUPLICATE_BITS))
    alike = float((all_pairs.min(axis=1) <= NEAR_DUPLICATE_BITS).mean())
    return alike, {kind: float(np.mean(hits)) for kind, hits in found.items()}


def test_copies_of_digits_are_found_and_look_alikes_are_kept_apart(
    digits: list[Image.Image],
) -> None:
    alike, found = shares(digits)
    assert alike < 0.035  # a quarter of them lies within cosine .97 of another
    assert min(found[kind] for kind in ("re-encoded", "resized", "brightened")) >= 0.98
    assert found["cropped"] >= 0.5


def test_copies_of_photographs_are_found_and_look_alikes_are_kept_apart(shared: Path) -> None:
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs(shared, every=2)]
    alike, found = shares(images)
    assert alike == 0.0
    assert min(found[kind] for kind in ("re-encoded", "resized", "brightened")) >= 0.98
    assert found["cropped"] >= 0.8


def test_a_fingerprint_has_32_bytes_and_does_not_depend_on_the_mode() -> None:
    flat = Image.new("L", (50, 40), 128)
    assert len(fingerprint(flat)) == 32
    assert fingerprint(flat) == fingerprint(Image.new("RGB", (9, 9), (3, 3, 3)))
