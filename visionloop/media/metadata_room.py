"""How many columns of metadata there may be, and which of many there is room for."""

from __future__ import annotations

from collections.abc import Mapping

MAX_COLUMNS = 500
# Columns stay for good: one file must not take the room of all others.
MAX_OWN_COLUMNS = 200


def with_room(counts: Mapping[str, int], room: int) -> list[str]:
    """Return the new columns that there is room for, those of the most images first chosen.

    Args:
        counts: How many images have each.
        room: How many may be added.

    Returns:
        Their names in alphabetical order.
    """
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[: max(0, room)])
