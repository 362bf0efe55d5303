"""Images as browsers show them: as they are stored, or made anew where no browser can.

A TIFF, a JPEG 2000 and a PPM are decoded as the loop itself decodes them (upright, of 16 bits a
channel the upper 8) and encoded as PNG, large ones as JPEG. The picture keeps its size, unless a
smaller one is asked for, so that places in it are places in the original.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

# What browsers show, by `visionloop.media.sniff.kind`.
CONTENT_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "avif": "image/avif",
}
# Above so many pixels a PNG of a photograph has tens of megabytes.
_LARGEST_PNG = 4_000_000
_QUALITY = 92


@dataclass(frozen=True)
class Shown:
    """An image for a browser.

    Attributes:
        data: Its bytes.
        content_type: Their type.
        note: What was done to it, in words of ASCII; empty where it is as it is stored.
    """

    data: bytes
    content_type: str
    note: str = ""


def content_type_of_format(form: str) -> str:
    """Return the type that browsers know a format by, empty where they do not show it.

    Args:
        form: Pillow's name, as the column `format` of `samples` has it.
    """
    return CONTENT_TYPES.get(form.lower(), "")


def show(data: bytes, *, max_side: int = 0) -> Shown:
    """Return an image as a browser can show it.

    Args:
        data: The encoded bytes.
        max_side: Longest side in pixels; a larger image is made smaller; 0: none is.

    Raises:
        UnreadableMedia: It has to be decoded, and is no whole image.
    """
    from visionloop.media import sniff

    kind = sniff.kind(data)
    content_type = CONTENT_TYPES.get(kind, "")
    if content_type and not (max_side and max(_size(data)) > max_side):
        return Shown(data, content_type)
    return _made(data, kind, bool(content_type), max_side)


def _made(data: bytes, kind: str, shown: bool, max_side: int) -> Shown:
    from PIL import Image

    from visionloop.media.budget import DECODING
    from visionloop.media.decode import decode

    with DECODING.share() as room:
        size = _size(data) if shown else (0, 0)
        # Half a size more than is wanted leaves something to take the mean of.
        draft = max(1, max_side * min(size) // max(size)) * 3 // 2 if max_side and shown else 0
        image = decode(data, draft=draft, reserve=room.take).image
        if max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        into = io.BytesIO()
        lossless = kind not in ("jpeg", "webp", "avif")
        form = "PNG" if lossless and image.width * image.height <= _LARGEST_PNG else "JPEG"
        if form == "PNG":
            image.save(into, "PNG", compress_level=3)
        else:
            image.save(into, "JPEG", quality=_QUALITY, subsampling=0)
    done = f"{kind} made {form} of {image.width}x{image.height} pixels"
    return Shown(into.getvalue(), f"image/{form.lower()}", done)


def _size(data: bytes) -> tuple[int, int]:
    """Return an image's width and height as it is stored; its pixels are not decoded."""
    from PIL import Image

    from visionloop.media.decode import FORMATS

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size
