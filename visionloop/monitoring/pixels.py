"""The pixels that the comparison of two pictures needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import UnreadableMedia
from visionloop.monitoring.likeness import SIDE
from visionloop.monitoring.media_reading import read_media

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Decoded at this scale a JPEG costs a quarter, and the reduction to SIDE sees no difference.
_DRAFT = 4 * SIDE


def grey(data: bytes) -> NDArray[np.float64]:
    """Return an encoded picture as `visionloop.monitoring.likeness` compares it.

    Args:
        data: The encoded bytes.

    Returns:
        float64 [SIDE, SIDE], 0 to 255.

    Raises:
        UnreadableMedia: The bytes are no complete image.
    """
    from PIL import Image

    from visionloop.media.decode import decode

    image = decode(data, draft=_DRAFT).image.convert("L")
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float64)


def read_pixels(lake: Lake, uris: Iterable[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield whole pictures by URI, upright RGB; what cannot be read any more is left out.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it.
        uris: Where the pictures lie.
    """
    from visionloop.lake.storage import StorageError
    from visionloop.media.decode import decode_rgb

    for uri, data in read_media(lake, uris):
        if isinstance(data, StorageError):
            continue
        try:
            yield uri, decode_rgb(data)
        except UnreadableMedia:
            continue


def read_greys(lake: Lake, uris: Iterable[str]) -> Mapping[str, NDArray[np.float64]]:
    """Return the grey pixels of pictures by URI; what cannot be read any more is left out.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it.
        uris: Where the pictures lie.
    """
    from visionloop.lake.storage import StorageError

    found = {}
    for uri, data in read_media(lake, uris):
        if isinstance(data, StorageError):
            continue
        try:
            found[uri] = grey(data)
        except UnreadableMedia:
            continue  # it was whole when it was ingested; the caller works without it
    return found
