"""Values of other people's JSON as what they should be: what is not becomes nothing."""

from __future__ import annotations

from typing import Any

from visionloop.interchange.boxes import finite

_MOST_PIXELS = 2**31


def as_list(value: Any) -> list[Any]:
    """Return a list, an empty one in the place of anything else."""
    return value if isinstance(value, list) else []


def as_object(value: Any) -> dict[str, Any]:
    """Return an object, an empty one in the place of anything else."""
    return value if isinstance(value, dict) else {}


def as_key(value: Any) -> str | int | None:
    """Return what can identify something: text or a whole number; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def as_text(value: Any) -> str:
    """Return text, also of a number; an empty one in the place of anything else."""
    key = as_key(value)
    return "" if key is None else str(key)


def as_pixels(value: Any) -> int:
    """Return a width or height; 0 for what is none."""
    number = finite(value)
    return int(number) if number is not None and 0 < number < _MOST_PIXELS else 0


def as_metadata(value: Any) -> dict[str, Any]:
    """Return an object whose values a column can hold: text, numbers, booleans, or JSON of more."""
    return {str(name): held for name, held in as_object(value).items() if held is not None}
