"""What an annotation says: Label Studio's regions and choices as a label and boxes in pixels."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionloop.labeling.label_studio.interface import BOX, CHOICE, IMAGE
from visionloop.labeling.provider import Box

# A box may end so many pixels outside of its image, where it is cut: more is a mistake.
TOLERANCE = 1.0
# An image that was scaled down for browsers keeps its form, one that was turned does not.
_FORM = 0.02


class Unusable(Exception):
    """An annotation that cannot be used.

    Args:
        reason: As in `visionloop.labeling.provider.Rejected`.
        detail: As there.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Wanted:
    """What annotators are asked for.

    Attributes:
        classes: The loop's classes.
        label: Whether the class of the image.
        boxes: Whether boxes around objects.
    """

    classes: Collection[str]
    label: bool
    boxes: bool


def answer_of(
    result: Sequence[Mapping[str, Any]], wanted: Wanted, width: int, height: int
) -> tuple[str | None, tuple[Box, ...] | None]:
    """Return an annotation's label and boxes.

    Args:
        result: Its regions and choices.
        wanted: What was asked for.
        width: Of the stored image, in pixels.
        height: Of the stored image, in pixels.

    Raises:
        Unusable: It cannot be used.
    """
    for one in result:
        # A relation of two regions has no control; whatever else is drawn or chosen names its own.
        if not isinstance(one.get("from_name"), str) and one.get("type") != "relation":
            raise Unusable("malformed", f"a part of it names no control: {sorted(one)}"[:200])
    label = _label(result, wanted.classes) if wanted.label else None
    boxes = None
    if wanted.boxes:
        found = [one for one in result if one.get("from_name") == BOX]
        boxes = tuple(_box(one, wanted.classes, width, height) for one in found)
    return label, boxes


def label_of(result: Any) -> str | None:
    """Return the class that a prediction put there, null where it put none.

    Args:
        result: Of the prediction.
    """
    for one in result if isinstance(result, (list, tuple)) else ():
        if one.get("from_name") == CHOICE and (chosen := one["value"].get("choices")):
            return str(chosen[0])
    return None


def choice_result(label: str) -> dict[str, Any]:
    """Return what suggests a class.

    Args:
        label: The class.
    """
    value = {"choices": [label]}
    return {"from_name": CHOICE, "to_name": IMAGE, "type": "choices", "value": value}


def box_result(box: Box, width: int, height: int) -> dict[str, Any] | None:
    """Return what suggests a box, null where nothing of it lies in the image.

    Args:
        box: In pixels.
        width: Of the stored image, in pixels.
        height: Of the stored image, in pixels.
    """
    left, right = max(box.x_min, 0.0), min(box.x_max, width)
    top, bottom = max(box.y_min, 0.0), min(box.y_max, height)
    if not (left < right and top < bottom):
        return None
    value = {
        "x": 100 * left / width,
        "y": 100 * top / height,
        "width": 100 * (right - left) / width,
        "height": 100 * (bottom - top) / height,
        "rotation": 0,
        "rectanglelabels": [box.label],
    }
    shown = {
        "from_name": BOX,
        "to_name": IMAGE,
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    return shown if box.confidence is None else {**shown, "score": box.confidence}


def _label(result: Sequence[Mapping[str, Any]], classes: Collection[str]) -> str:
    values = [one.get("value") or {} for one in result if one.get("from_name") == CHOICE]
    chosen = [name for value in values for name in value.get("choices") or ()]
    if not chosen:
        raise Unusable("empty", "no class was chosen")
    if len(chosen) > 1:
        raise Unusable("malformed", f"{len(chosen)} classes were chosen")
    return _known(chosen[0], classes)


def _known(name: Any, classes: Collection[str]) -> str:
    if name not in classes:
        raise Unusable("unknown_class", f"`classes` has no {name!r}")
    return str(name)


def _box(one: Mapping[str, Any], classes: Collection[str], width: int, height: int) -> Box:
    value = one.get("value") or {}
    try:
        x, y, wide, high = (float(value[key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        raise Unusable("malformed", "a region is no rectangle") from None
    if value.get("rotation") or one.get("image_rotation"):
        raise Unusable("malformed", "a box, or the image, was rotated")
    shown = one.get("original_width") or width, one.get("original_height") or height
    if abs(shown[0] * height - shown[1] * width) > _FORM * shown[0] * height:
        raise Unusable(
            "malformed",
            f"the image was shown with {shown[0]} x {shown[1]} pixels, and is stored with "
            f"{width} x {height}",
        )
    names = list(value.get("rectanglelabels") or ())
    if len(names) != 1:
        raise Unusable("malformed", f"a box has {len(names)} classes")
    label = _known(names[0], classes)
    left, right = x * width / 100, (x + wide) * width / 100
    top, bottom = y * height / 100, (y + high) * height / 100
    if not all(map(math.isfinite, (left, right, top, bottom))):
        raise Unusable("malformed", "a region is no rectangle")
    if min(left, top) < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE:
        raise Unusable(
            "outside",
            f"a box of {label!r} reaches from {left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f} "
            f"in an image of {width} x {height} pixels",
        )
    left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if not (left < right and top < bottom):
        raise Unusable("malformed", f"a box of {label!r} has no area")
    return Box(left, top, right, bottom, label)
