"""Blurred and dark pictures are found among small digits and among photographs alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from visionloop.media.decode import decode
from visionloop.media.measures import measures
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.quality import limits, net_sharpness, telling

THRESHOLDS = MonitoringConfig()


def measured(pictures: list[Image.Image]) -> np.ndarray:
    rows = np.array([measures(picture.convert("L"))[:3] for picture in pictures])
    rows[:, 0] = net_sharpness(rows[:, 0], rows[:, 2])
    return rows


def found(kind: str, population: np.ndarray, rows: np.ndarray) -> int:
    columns = {"sharpness": 0, "brightness": 1, "contrast": 2}
    limit = next(limit for limit in limits(*population.T, THRESHOLDS) if limit.kind == kind)
    return int(limit.flags(rows[:, columns[limit.measure]]).sum())


def darker(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: int(value * 0.2))


@pytest.fixture(scope="module")
def digits() -> list[Image.Image]:
    from sklearn.datasets import load_digits

    return [
        Image.fromarray((image / 16 * 255).astype(np.uint8)).resize((32, 32), Image.BICUBIC)
        for image in load_digits().images[:600]
    ]


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Image.Image]:
    files = sorted((shared / "data" / "clothing").rglob("*.jpg"))[:120]
    pictures = [decode(path.read_bytes(), draft=256).image.convert("L") for path in files]
    for picture in pictures:
        picture.thumbnail((256, 256))
    return pictures


def blurred(radius: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(radius))


@pytest.mark.parametrize(("name", "radius"), [("digits", 3.5), ("photographs", 6)])
def test_planted_blur_and_darkness_are_found_and_sound_pictures_left_alone(
    name: str, radius: float, request: pytest.FixtureRequest
) -> None:
    pictures = request.getfixturevalue(name)
    sound = measured(pictures)
    for kind, change in (("blurred", blurred(radius)), ("dark", darker)):
        planted = measured([change(picture) for picture in pictures[::12]])
        population = np.concatenate([sound, planted])
        assert found(kind, population, planted) >= 0.9 * len(planted), kind
        assert found(kind, population, sound) <= 0.02 * len(sound), kind
    for kind in ("bright", "low_contrast"):
        assert found(kind, sound, sound) <= 0.01 * len(sound), kind


def test_a_dark_picture_is_not_taken_for_a_blurred_one(digits: list[Image.Image]) -> None:
    sound = measured(digits)
    assert found("blurred", sound, measured([darker(picture) for picture in digits])) <= 12


def test_a_few_samples_are_held_to_absolute_limits_only() -> None:
    few = np.tile([0.05, 0.5, 0.2], (5, 1))
    rules = {limit.rule for limit in limits(*few.T, THRESHOLDS)}
    assert rules == {"absolute"}
    black = np.array([[0.0, 0.001, 0.0005]])
    assert found("dark", few, black) == found("low_contrast", few, black) == 1


def test_pictures_that_are_nearly_alike_have_no_outliers_by_a_hair() -> None:
    alike = np.tile([0.05, 0.5, 0.2], (200, 1))
    alike[:20, 1] = 0.49
    assert found("dark", alike, alike) == 0


def test_one_cause_gives_one_flag() -> None:
    assert telling({"dark", "low_contrast", "blurred"}, 0.02) == {"dark"}
    assert telling({"blurred", "low_contrast"}, 0.1) == {"blurred"}
    assert telling({"blurred", "low_contrast"}, 0.01) == {"low_contrast"}
