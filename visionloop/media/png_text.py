"""Texts and colour profiles in a PNG that unpack to more than anybody reads."""

from __future__ import annotations

import struct
import zlib

from visionloop.media.sniff import PNG_SIGNATURE

# Pillow refuses a picture for a text of more than 1 MiB, and for 64 MiB of them together.
_MOST, _MOST_TOGETHER = 1 << 20, 32 << 20
_TEXTS = (b"zTXt", b"iTXt", b"iCCP", b"tEXt")


def without_long_text(data: bytes) -> bytes:
    """Return a PNG without the texts and profiles that are too long to be read.

    Args:
        data: A PNG; it may be broken, which the decoder tells.
    """
    kept = bytearray(data[: len(PNG_SIGNATURE)])
    position, together = len(PNG_SIGNATURE), 0
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        size = _unpacked(name, data[position + 8 : end - 4]) if name in _TEXTS else 0
        if size <= _MOST and together + size <= _MOST_TOGETHER:
            kept += data[position:end]
            together += size
        position = end
    return bytes(kept) + data[position:]


def _unpacked(name: bytes, body: bytes) -> int:
    """Return how long a text is, at most one byte more than may be."""
    _, _, rest = body.partition(b"\0")
    if name == b"tEXt" or (name == b"iTXt" and rest[:1] != b"\1"):
        return len(rest)
    # Flag, method, language and translated name; else the method alone.
    packed = rest[2:].split(b"\0", 2)[-1] if name == b"iTXt" else rest[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, _MOST + 1))
    except zlib.error:
        return len(body)
