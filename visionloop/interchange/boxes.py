"""Boxes as people and tools leave them: outside of their image, without an area, not numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from visionloop.interchange.records import Box, Problems

# Formats of relative coordinates are read to so many decimals of a pixel: what was written comes
# back, and not 99.99999999.
DECIMALS = 4
# A box may lie outside of its image by so little without anybody having slipped.
_ROUNDING = 1e-3


class BoxReader:
    """Makes boxes of four numbers; what cannot be one is counted.

    A ``bad_box``, an ``empty_box`` and one that lies ``outside_image`` are dropped; a
    ``clipped_box`` is kept, as far as it lies in its image.

    Args:
        problems: Receives what is wrong.
        file: The file that the boxes stand in.
        width: Of their image in pixels; 0 where it is not known.
        height: Of their image.
    """

    def __init__(self, problems: Problems, file: str, width: int, height: int) -> None:
        self._problems, self._file = problems, file
        self._width, self._height = width, height

    def box(
        self,
        corners: Sequence[Any],
        label: str,
        field: str,
        *,
        score: Any = None,
        scores: Sequence[float] = (),
        attributes: Any = None,
    ) -> Box | None:
        """Return a box, None where there is none.

        Args:
            corners: x_min, y_min, x_max, y_max in pixels, whatever stood in the file.
            label: Its class.
            field: Where it stands in the file.
            score: Whatever stood in the file.
            scores: Score of each class.
            attributes: What else is said of it, whatever stood in the file.
        """
        numbers = [finite(value) for value in corners]
        if len(numbers) != 4 or None in numbers:
            self._refuse("bad_box", field, f"{list(corners)} are no four numbers")
            return None
        x_min, y_min, x_max, y_max = (number for number in numbers if number is not None)
        told = f"{x_min:g} {y_min:g} {x_max:g} {y_max:g}"
        if x_max <= x_min or y_max <= y_min:
            self._refuse("empty_box", field, f"{told} has no area")
            return None
        if self._width and self._height:
            image = f"an image of {self._width} x {self._height}"
            if x_min >= self._width or y_min >= self._height or x_max <= 0 or y_max <= 0:
                self._refuse("outside_image", field, f"{told} in {image}")
                return None
            inside = (
                max(x_min, 0.0),
                max(y_min, 0.0),
                min(x_max, float(self._width)),
                min(y_max, float(self._height)),
            )
            off = max(abs(a - b) for a, b in zip(inside, (x_min, y_min, x_max, y_max), strict=True))
            if off > _ROUNDING:
                self._problems.add("clipped_box", self._file, field, f"{told} in {image}")
            x_min, y_min, x_max, y_max = inside
        certain = certainty(score, self._problems, self._file, field)
        self._problems.boxes.update(found=1, kept=1)
        more = dict(attributes) if isinstance(attributes, Mapping) else {}
        return Box(x_min, y_min, x_max, y_max, label, certain, tuple(scores), more)

    def relative(
        self, centre_x: Any, centre_y: Any, width: Any, height: Any
    ) -> tuple[float | None, ...]:
        """Return corners in pixels of a box whose centre and size are shares of the image.

        Args:
            centre_x: Whatever stood in the file: the centre's distance from the left edge.
            centre_y: Its distance from the upper edge.
            width: The box's width.
            height: Its height.

        Returns:
            x_min, y_min, x_max, y_max, rounded to `DECIMALS`; None each where one is no number.
        """
        x, y, w, h = (finite(value) for value in (centre_x, centre_y, width, height))
        if x is None or y is None or w is None or h is None:
            return (None, None, None, None)
        return (
            round((x - w / 2) * self._width, DECIMALS),
            round((y - h / 2) * self._height, DECIMALS),
            round((x + w / 2) * self._width, DECIMALS),
            round((y + h / 2) * self._height, DECIMALS),
        )

    def _refuse(self, kind: str, field: str, detail: str) -> None:
        self._problems.drop_box(kind, self._file, field, detail)


def certainty(score: Any, problems: Problems, file: str, field: str) -> float | None:
    """Return how sure somebody is, None where nobody says, or what is said cannot be.

    Args:
        score: Whatever stood in the file.
        problems: Receives a ``bad_score``.
        file: The file.
        field: Where it stands in it.
    """
    number = finite(score)
    if score is None or (number is not None and 0 <= number <= 1):
        return number
    problems.add("bad_score", file, field, f"{score!r:.80} is not in [0, 1]")
    return None


def finite(value: Any) -> float | None:
    """Return a value as a finite number, None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def plain_number(value: float) -> int | float:
    """Return a whole number as an int, as people write it."""
    return int(value) if float(value).is_integer() else float(value)
