"""Words that several commands and pages tell things with."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``1 image`` or ``1,200 images``.

    Args:
        number: How many.
        one: The word for one.
        many: The word for another number; empty appends an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
