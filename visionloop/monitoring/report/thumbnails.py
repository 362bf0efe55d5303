"""Small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.errors import UnreadableMedia
from visionloop.monitoring.media_reading import read_media

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Shown at 104 to 150 CSS pixels; twice that for a dense screen would double the page.
SIDE = 160
# A picture with so few pixels is shown as squares: smoothing would hide what the model sees.
SMALL = 64


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a ``data:`` URI, and whether it has so few pixels that squares show it best."""

    uri: str
    small: bool


def thumbnail(data: bytes) -> Thumbnail | None:
    """Return the thumbnail of an encoded picture, None where it cannot be decoded.

    Re-encoded always: nothing but pixels gets from a file into the page.
    """
    from PIL import Image

    from visionloop.media.decode import decode

    try:
        image = decode(data, draft=SIDE).image.convert("RGB")
    except UnreadableMedia:
        return None
    small = max(image.size) <= SMALL
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=78, optimize=True)
    kind = "png" if small else "jpeg"
    coded = base64.b64encode(out.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind};base64,{coded}", small)


def thumbnails(lake: Lake, uris: Iterable[str]) -> dict[str, Thumbnail]:
    """Return thumbnails by URI; what cannot be read any more is left out.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it.
        uris: Where the pictures lie.
    """
    from visionloop.lake.storage import StorageError

    found: dict[str, Thumbnail] = {}
    for uri, data in read_media(lake, uris):
        made = None if isinstance(data, StorageError) else thumbnail(data)
        if made is not None:
            found[uri] = made
    return found
