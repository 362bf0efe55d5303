"""Sets that tests write and read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionloop.interchange.formats import ReadOptions, read_set
from visionloop.interchange.records import Annotated, Problems


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


def images(folder: Path, *names: str, size: tuple[int, int] = (100, 50)) -> None:
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(*size))


def read(name: str, uri: Path, **options: Any) -> tuple[dict[str, Annotated], Problems]:
    problems = Problems()
    found = list(read_set(name, str(uri), problems=problems, options=ReadOptions(**options)))
    kept = sum(len(record.boxes or ()) for record in found)
    assert problems.boxes["kept"] == kept
    # Every box that was met is kept or has a reason.
    assert problems.boxes["found"] * 2 == problems.boxes.total()
    return {record.file: record for record in found}, problems
