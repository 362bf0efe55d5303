"""Parts of a file that a browser asks for: one range of bytes (RFC 9110, section 14)."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Unsatisfiable(Exception):
    """The range begins behind the file's end."""


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """Return the first byte of a range and the one behind its last; None means all of the file.

    Several ranges at once are answered with all of it, as the standard allows.

    Args:
        header: Value of the header ``Range``; empty for none.
        size: Bytes of the file.

    Raises:
        Unsatisfiable: There is nothing in that range.
    """
    found = _ONE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        end = min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size:
        raise Unsatisfiable
    return start, end
