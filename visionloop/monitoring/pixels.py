"""The pixels that the comparison of two pictures needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import UnreadableMedia
from visionloop.media.likeness import SIDE, Floats, grey
from visionloop.monitoring.media_reading import read_media

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Decoded at this scale a JPEG costs a quarter, and what is compared sees no difference.
_DRAFT = 2 * SIDE


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


def read_greys(lake: Lake, places: Mapping[str, str], version: str) -> Mapping[str, Floats]:
    """Return the grey pixels of samples, of those that have any.

    They are those of the thumbnail that ingest wrote; a sample of an older lake that has none is
    read where it lies.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it.
        places: URI by sample id.
        version: Version of the lake to read.
    """
    from visionloop.lake.storage import StorageError
    from visionloop.media.decode import decode
    from visionloop.media.thumbnails import read_thumbnails

    found = {one: grey(data) for one, data in read_thumbnails(lake, places, version).items()}
    left = {uri: one for one, uri in places.items() if one not in found}
    for uri, data in read_media(lake, left):
        if isinstance(data, StorageError):
            continue
        try:
            found[left[uri]] = grey(decode(data, draft=_DRAFT).image)
        except UnreadableMedia:
            continue  # it was whole when it was ingested; the caller works without it
    return found
