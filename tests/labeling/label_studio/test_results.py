"""The mapping between Label Studio's percent and pixels of the stored image, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.labeling.label_studio.conftest import choice, rectangle
from visionloop.labeling.label_studio.results import (
    TOLERANCE,
    Unusable,
    Wanted,
    answer_of,
    box_result,
    label_of,
)
from visionloop.labeling.provider import Box

WANTED = Wanted(frozenset({"cat"}), label=False, boxes=True)
PART = st.floats(0, 1)


@given(PART, PART, PART, PART, st.integers(1, 9000), st.integers(1, 9000))
def test_a_box_comes_back_as_it_was_suggested(
    a: float, b: float, c: float, d: float, width: int, height: int
) -> None:
    left, right = sorted((a * width, b * width))
    top, bottom = sorted((c * height, d * height))
    if right - left < 1e-3 or bottom - top < 1e-3:
        return
    shown = box_result(Box(left, top, right, bottom, "cat"), width, height)
    assert shown is not None
    _, boxes = answer_of([shown], WANTED, width, height)
    assert boxes is not None
    back = boxes[0]
    told = (back.x_min, back.y_min, back.x_max, back.y_max)
    assert told == pytest.approx((left, top, right, bottom), abs=1e-6 * max(width, height))
    assert 0 <= back.x_min < back.x_max <= width and 0 <= back.y_min < back.y_max <= height


@given(st.floats(-50, 150), st.floats(0.01, 150))
def test_a_box_is_cut_within_the_tolerance_and_refused_beyond(x: float, wide: float) -> None:
    left, right = x * 40 / 100, (x + wide) * 40 / 100
    inside = left >= -TOLERANCE and right <= 40 + TOLERANCE
    try:
        _, boxes = answer_of([rectangle("cat", x, 0, wide, 50)], WANTED, 40, 20)
    except Unusable as why:
        empty = right <= 0 or left >= 40
        assert why.reason == ("malformed" if inside and empty else "outside")
        assert not inside or empty
    else:
        assert inside and boxes is not None
        assert boxes[0].x_min >= 0 and boxes[0].x_max <= 40


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"value": {"rotation": 10}}, "rotated"),
        ({"image_rotation": 90}, "rotated"),
        ({"original_width": 20, "original_height": 40}, "20 x 40 pixels"),
        ({"value": {"rectanglelabels": []}}, "0 classes"),
        ({"value": {"rectanglelabels": ["cat", "cat"]}}, "2 classes"),
        ({"value": {"x": None}}, "no rectangle"),
        ({"value": {"width": float("nan")}}, "no rectangle"),
        ({"value": {"width": 0}}, "no area"),
    ],
)
def test_a_region_that_is_no_upright_box_is_named(change: dict[str, Any], problem: str) -> None:
    region = rectangle("cat", 10, 10, 20, 20)
    region = {**region, **change, "value": {**region["value"], **change.get("value", {})}}
    with pytest.raises(Unusable, match=problem) as caught:
        answer_of([region], WANTED, 40, 20)
    assert caught.value.reason == "malformed"


def test_an_image_that_was_scaled_down_for_the_browser_is_the_same_image() -> None:
    region = {**rectangle("cat", 50, 50, 50, 50), "original_width": 1024, "original_height": 683}
    _, boxes = answer_of([region], WANTED, 6000, 4000)
    assert boxes == (Box(3000, 2000, 6000, 4000, "cat"),)


def test_a_class_that_was_not_asked_for_is_not_read() -> None:
    label, boxes = answer_of([choice("wolf")], WANTED, 40, 20)
    assert label is None and boxes == ()
    assert label_of([rectangle("cat", 0, 0, 1, 1), choice("dog")]) == "dog"
    assert label_of(None) is None


@pytest.mark.parametrize("label", [True, False])
def test_what_names_no_control_is_no_answer_and_not_an_image_without_objects(label: bool) -> None:
    wanted = Wanted(frozenset({"cat"}), label=label, boxes=not label)
    for strange in ({"foo": 1}, {"from_name": None, "value": {"choices": ["cat"]}}):
        with pytest.raises(Unusable, match="names no control") as caught:
            answer_of([choice("cat"), strange], wanted, 40, 20)
        assert caught.value.reason == "malformed"
    related = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    found = answer_of([choice("cat"), related], wanted, 40, 20)
    assert found == (("cat", None) if label else (None, ()))
