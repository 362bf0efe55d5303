"""Names of objectives, which say how they are used: what a name stands for must be true in a table.

A weight is a number over the largest, not the number itself; a range's value tells how well the
number leads a sum; a negative strength wants little of what the name says, and one of zero nothing.
"""

from __future__ import annotations

WEIGHT, RANGE, NEGATIVE, ZERO = "weight_", "range_", "negative_", "zero_"


def sign_of(strength: float) -> str:
    """Return how the name of an objective of this strength begins."""
    if strength == 0:
        return ZERO
    return NEGATIVE if strength < 0 else ""


def parts_of(name: str) -> tuple[str, str, str]:
    """Return the sign, the kind and the rest of an objective's name; the first two may be empty."""
    sign = next((start for start in (NEGATIVE, ZERO) if name.startswith(start)), "")
    name = name.removeprefix(sign)
    kind = next((start for start in (WEIGHT, RANGE) if name.startswith(start)), "")
    return sign, kind, name.removeprefix(kind)
