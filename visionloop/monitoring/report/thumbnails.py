"""Small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.errors import InputError, UnreadableMedia
from visionloop.monitoring.media_reading import read_media
from visionloop.progress import log
from visionloop.words import counted

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


def thumbnails(lake: Lake, pictures: Mapping[str, str]) -> dict[str, Thumbnail]:
    """Return thumbnails by URI; what has neither bytes any more nor a thumbnail is left out.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it, and whose thumbnails
            stand in for pictures that cannot be read any more, or were overwritten.
        pictures: Sample id of each URI, "" where it is no sample's.
    """
    from visionloop.lake.storage import storage_of

    by_storage: dict[str, dict[str, str]] = {}
    for uri, sample in pictures.items():
        by_storage.setdefault(storage_of(uri), {})[uri] = sample
    found: dict[str, Thumbnail] = {}
    for some in by_storage.values():
        try:
            found.update(_read(lake, some))
        except InputError as error:
            # A laptop with the lake but no right to the bucket still gets its page.
            log(f"{counted(len(some), 'picture')} cannot be shown: {error}", level="warning")
    lost = {sample: uri for uri, sample in pictures.items() if sample and uri not in found}
    for sample, image in _kept(lake, lost) if lost else ():
        made = thumbnail(image)
        if made is not None:
            found[lost[sample]] = made
    return found


def _read(lake: Lake, pictures: Mapping[str, str]) -> Iterator[tuple[str, Thumbnail]]:
    """Yield thumbnails of the media that one storage holds, by URI."""
    from visionloop.lake.identity import is_sample
    from visionloop.lake.storage import StorageError

    for uri, data in read_media(lake, pictures):
        sample = pictures[uri]
        if isinstance(data, StorageError) or (sample and not is_sample(sample, data)):
            continue  # gone, or overwritten by another picture
        made = thumbnail(data)
        if made is not None:
            yield uri, made


def _kept(lake: Lake, samples: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the thumbnails that ingest made of some samples."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(samples), pa.string())
    for batch in lake.batches("thumbnails", columns=["sample_id", "image"]):
        some = batch.filter(pc.is_in(batch["sample_id"], value_set=wanted))
        yield from zip(some["sample_id"].to_pylist(), some["image"].to_pylist(), strict=True)
