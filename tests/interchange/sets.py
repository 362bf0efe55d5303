"""Sets that tests write and read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from visionloop.interchange.records import Annotated


def png(width: int, height: int, shade: int = 0) -> bytes:
    """Return a grey picture of one shade: small and quick to make."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([shade % 256]) * width) * height
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"tEXt", b"shade\0" + str(shade).encode()),
            chunk(b"IDAT", zlib.compress(rows, 1)),
            chunk(b"IEND", b""),
        ]
    )


def pictures(folder: Path, records: Sequence[Annotated]) -> dict[str, str]:
    """Write an image for each record, and return the URIs by file."""
    places = {}
    for number, record in enumerate(records):
        place = folder / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(record.width or 8, record.height or 8, number))
        places[record.file] = place.as_uri()
    return places
