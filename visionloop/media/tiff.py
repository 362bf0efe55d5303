"""Whether all pages of a TIFF are there: a decoder looks at the first one alone."""

from __future__ import annotations

import struct

# Where the pixels of a page lie, and how many bytes: in strips, or in tiles.
_PIXELS = ((273, 279), (324, 325))
_FORMS = {3: "H", 4: "I", 16: "Q"}
# Bytes of a value by its type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# A chain of directories that is longer is no document.
_MOST = 65_536


def is_cut(data: bytes) -> bool:
    """Return whether a TIFF stops before one of its directories, or of the pixels of later pages.

    Of the first page the decoder reads every pixel, and some writers state too many bytes there.

    Args:
        data: The encoded bytes.
    """
    try:
        order = "<" if data[:2] == b"II" else ">"
        big = _number(data, order + "H", 2) == 43
        offset = _number(data, order + ("Q" if big else "I"), 8 if big else 4)
        seen: set[int] = set()
        while len(seen) < _MOST and offset not in seen and (offset or not seen):
            page, following = _directory(data, order, offset, big)
            if seen and max(end(data, order, page, big) for end in _ENDS) > len(data):
                return True
            seen.add(offset)
            offset = following
    except (struct.error, OverflowError):
        return True
    return False


def _number(data: bytes, form: str, offset: int) -> int:
    return int(struct.unpack_from(form, data, offset)[0])


def _directory(
    data: bytes, order: str, offset: int, big: bool
) -> tuple[dict[int, tuple[int, int, int]], int]:
    """Return type, count and place of each tag, and where the next directory lies, 0 for none."""
    wide = "Q" if big else "H"
    entry = order + ("HHQ" if big else "HHI")
    size = 20 if big else 12
    start = offset + struct.calcsize(wide)
    n = _number(data, order + wide, offset)
    following = _number(data, order + ("Q" if big else "I"), start + n * size)
    tags = {}
    for place in range(start, start + n * size, size):
        tag, kind, count = struct.unpack_from(entry, data, place)
        tags[tag] = (kind, count, place + struct.calcsize(entry))
    return tags, following


def _pixels_end(data: bytes, order: str, page: dict[int, tuple[int, int, int]], big: bool) -> int:
    """Return where the last pixels of a page end, 0 where it does not tell."""
    for places, sizes in _PIXELS:
        if places in page and sizes in page:
            starts, lengths = (_values(data, order, page[tag], big) for tag in (places, sizes))
            return max((a + b for a, b in zip(starts, lengths, strict=False)), default=0)
    return 0


def _values_end(data: bytes, order: str, page: dict[int, tuple[int, int, int]], big: bool) -> int:
    """Return where the last values of a page's tags end."""
    end = 0
    for kind, count, place in page.values():
        size = count * _SIZES.get(kind, 0)
        if size > (8 if big else 4):
            end = max(end, _number(data, order + ("Q" if big else "I"), place) + size)
    return end


_ENDS = (_pixels_end, _values_end)


def _values(data: bytes, order: str, tag: tuple[int, int, int], big: bool) -> tuple[int, ...]:
    kind, count, place = tag
    form = _FORMS.get(kind)
    if form is None:
        return ()
    if count * struct.calcsize(form) > (8 if big else 4):
        place = _number(data, order + ("Q" if big else "I"), place)
    if place + count * struct.calcsize(form) > len(data):
        raise struct.error("the values lie behind the end")
    return struct.unpack_from(f"{order}{count}{form}", data, place)
