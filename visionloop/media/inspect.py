"""Everything that ingest wants to know of an image, from one decoding at a reduced scale."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from visionloop.media import jpeg, sniff
from visionloop.media.budget import DECODING
from visionloop.media.decode import MAX_PIXELS, decode_stored, upright
from visionloop.media.exif import exif_values
from visionloop.media.fingerprint import fingerprint_of_grey, reduced
from visionloop.media.measures import LEAST_SIDE, measures, normalised, saturation

# Longest side of a thumbnail at most; at least half of it where the picture has as many pixels.
THUMBNAIL_SIDE = 160
# A picture with so few pixels keeps each of them: smoothed it would show nothing.
_KEPT_SIDE = 64


@dataclass(frozen=True)
class Inspection:
    """What an image's bytes say about it.

    Attributes:
        sample_id: SHA-256 of the encoded bytes, in lower-case hexadecimal.
        size: Number of encoded bytes.
        width: Pixels, upright.
        height: Pixels, upright.
        format: Pillow's name of the format, for example ``JPEG``.
        color_mode: ``grey``, ``rgb``, ``rgba``, ``palette`` or ``cmyk``, as it is stored.
        captured_at: EXIF's time of capture in UTC; a camera that wrote no offset is taken to have
            been on UTC. None where there is no valid time.
        fingerprint: 32 bytes, see `visionloop.media.fingerprint`.
        pixels: 16 bytes, equal for files whose pictures are equal pixel by pixel and were stored in
            the same way (a JPEG and a copy of it without its EXIF). Taken at a reduced scale: equal
            ones are candidates, to be compared in full.
        sharpness: As in `visionloop.media.measures.Measures`.
        brightness: As there.
        contrast: As there.
        entropy: As there.
        saturation: Mean distance of the strongest and the weakest channel, 0 grey to 1.
        attached: What follows the picture in its file, "" for nothing; see
            `visionloop.media.sniff.attachment`.
        exif: See `visionloop.media.exif.exif_values`.
        thumbnail: Upright picture of at most `THUMBNAIL_SIDE` pixels a side, as JPEG; as PNG where
            the whole picture has at most 64 pixels a side.
    """

    sample_id: str
    size: int
    width: int
    height: int
    format: str
    color_mode: str
    captured_at: datetime | None
    fingerprint: bytes
    pixels: bytes
    sharpness: float
    brightness: float
    contrast: float
    entropy: float
    saturation: float
    attached: str
    exif: Mapping[str, Any]
    thumbnail: bytes


def sample_id_of(data: bytes) -> str:
    """Return the id of a sample: the SHA-256 of its encoded bytes, in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Verify, identify and measure an image.

    A JPEG is decoded at the smallest scale that is still as large as measures need; its bytes are
    read to the end all the same.

    Args:
        data: The encoded bytes.
        max_pixels: Refuse what declares more pixels than this.

    Raises:
        UnreadableMedia: The bytes are no complete image; see `visionloop.media.decode`.
    """
    with DECODING.share() as share:
        found = decode_stored(data, draft=LEAST_SIDE, max_pixels=max_pixels, reserve=share.take)
        picture, exif = found.image, found.exif
        size = (found.width, found.height)
        form, color_mode = found.format, found.color_mode
        # By a whole number, which costs a fifth of resampling to an exact size.
        factor = -(-max(picture.size) // THUMBNAIL_SIDE)
        small = picture.reduce(factor) if factor > 1 else picture
        grey = normalised(picture if picture.mode == "L" else picture.convert("L"))
        del found, picture  # the large picture goes before its share does
    measured, told = measures(grey), exif_values(exif)
    pixels = np.asarray(upright(small, exif))
    thumbnail = _encoded(pixels)
    return Inspection(
        sample_id=sample_id_of(data),
        size=len(data),
        width=size[0],
        height=size[1],
        format=form,
        color_mode=color_mode,
        captured_at=told.get("exif_captured_at"),
        fingerprint=fingerprint_of_grey(upright(reduced(grey), exif)),
        pixels=hashlib.sha256(f"{size[0]} {size[1]} ".encode() + thumbnail).digest()[:16],
        **measured._asdict(),
        saturation=saturation(pixels),
        attached=sniff.attachment(data, _end(data, form)),
        exif=told,
        thumbnail=thumbnail,
    )


def _end(data: bytes, form: str) -> int:
    return jpeg.end(data) if form == "JPEG" else sniff.picture_end(data)


def _encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    if max(pixels.shape[:2]) <= _KEPT_SIDE:
        buffer = io.BytesIO()
        Image.fromarray(pixels if pixels.ndim == 2 else pixels[:, :, :3]).save(buffer, "PNG")
        return buffer.getvalue()
    if pixels.ndim == 2:
        return bytes(simplejpeg.encode_jpeg(pixels[:, :, None], 80, "GRAY", "Gray"))
    space = "RGB" if pixels.shape[2] == 3 else "RGBX"
    return bytes(simplejpeg.encode_jpeg(pixels, 80, space, "420"))
