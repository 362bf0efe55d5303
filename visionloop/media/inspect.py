"""Everything that ingest wants to know of an image, from one decoding.

Measures are taken at a normalised size (shorter side at most `MEASURED_SIDE` pixels), so that they
mean the same for a photograph and for its thumbnail.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionloop.media.budget import DECODING
from visionloop.media.decode import MAX_PIXELS, decode
from visionloop.media.fingerprint import fingerprint

MEASURED_SIDE = 256

_EXIF_IFD = 0x8769
_DATE_TIME, _DATE_TIME_ORIGINAL = 0x0132, 0x9003
_OFFSET_TIME, _OFFSET_TIME_ORIGINAL, _SUBSEC_ORIGINAL = 0x9010, 0x9011, 0x9291


@dataclass(frozen=True)
class Inspection:
    """What an image's bytes say about it.

    Attributes:
        sample_id: SHA-256 of the encoded bytes, in lower-case hexadecimal.
        width: Pixels, upright.
        height: Pixels, upright.
        format: Pillow's name of the format, for example ``JPEG``.
        captured_at: EXIF's time of capture in UTC; a camera that wrote no offset is taken to have
            been on UTC. None where there is no valid time.
        fingerprint: 32 bytes, see `visionloop.media.fingerprint`.
        sharpness: Variance of the Laplacian of the slightly smoothed picture over the variance of
            its grey values: 0 for a flat picture, 0.003 to 0.4 for photographs, 0.4 for
            white noise. The ratio does not change with exposure, so a dark picture is not taken
            for a blurred one.
        brightness: Mean grey value, 0 black to 1 white.
        contrast: Standard deviation of the grey values, 0 to 0.5.
    """

    sample_id: str
    width: int
    height: int
    format: str
    captured_at: datetime | None
    fingerprint: bytes
    sharpness: float
    brightness: float
    contrast: float


def sample_id_of(data: bytes) -> str:
    """Return the id of a sample: the SHA-256 of its encoded bytes, in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Verify, identify and measure an image.

    A JPEG is decoded at the smallest scale that still has `MEASURED_SIDE` pixels; its bytes are
    read to the end all the same.

    Args:
        data: The encoded bytes.
        max_pixels: Refuse what declares more pixels than this.

    Raises:
        UnreadableMedia: The bytes are no complete image; see `visionloop.media.decode`.
    """
    with DECODING.share() as share:
        decoded = decode(data, draft=MEASURED_SIDE, max_pixels=max_pixels, reserve=share.take)
        picture = _normalised(decoded.image.convert("L"))
        found = dataclasses.replace(decoded, image=picture)
        del decoded  # the large picture goes before its share does
    sharpness, brightness, contrast = measures(np.asarray(picture))
    return Inspection(
        sample_id=sample_id_of(data),
        width=found.width,
        height=found.height,
        format=found.format,
        captured_at=captured_at(found.exif),
        fingerprint=fingerprint(picture),
        sharpness=sharpness,
        brightness=brightness,
        contrast=contrast,
    )


def measures(grey: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return sharpness, brightness and contrast of a grey picture, as in `Inspection`.

    The variance of the Laplacian as a measure of focus: Pech-Pacheco et al., Diatom autofocusing in
    brightfield microscopy, ICPR 2000. The picture is smoothed first (binomial 3 x 3), because a
    blurred picture from a noisy sensor would pass for a sharp one: of digits with sensor noise that
    were blurred by 2.5 pixels, an outlier rule finds 97% with smoothing and 45% without.

    Args:
        grey: uint8 [height, width].
    """
    values = grey.astype(np.float32) / 255.0
    brightness = float(values.mean(dtype=np.float64))
    variance = float(values.var(dtype=np.float64))
    contrast = float(np.sqrt(variance))
    if min(values.shape) < 5 or variance < 1e-10:
        return 0.0, brightness, contrast
    smooth = (values[:-2] + 2 * values[1:-1] + values[2:]) / 4
    smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
    laplacian = (
        smooth[:-2, 1:-1]
        + smooth[2:, 1:-1]
        + smooth[1:-1, :-2]
        + smooth[1:-1, 2:]
        - 4 * smooth[1:-1, 1:-1]
    )
    return float(laplacian.var(dtype=np.float64)) / variance, brightness, contrast


def captured_at(exif: Image.Exif) -> datetime | None:
    """Return EXIF's time of capture in UTC, None where there is none or it is no time."""
    try:
        details = exif.get_ifd(_EXIF_IFD)
    except Exception:  # broken EXIF makes Pillow raise whatever it meets; the picture is whole
        details = {}
    text = details.get(_DATE_TIME_ORIGINAL)
    offset = details.get(_OFFSET_TIME_ORIGINAL)
    fraction = details.get(_SUBSEC_ORIGINAL)
    if not _text(text):
        text, offset, fraction = exif.get(_DATE_TIME), details.get(_OFFSET_TIME), None
    try:
        moment = datetime.strptime(_text(text)[:19], "%Y:%m:%d %H:%M:%S")
        digits = _text(fraction)
        if digits.isdigit():
            moment += timedelta(microseconds=int(digits[:6].ljust(6, "0")))
        return moment.replace(tzinfo=_offset(_text(offset))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip("\x00 ") if isinstance(value, str) else ""


def _offset(text: str) -> timezone:
    try:
        hours, minutes = text[1:].split(":")
        shift = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-shift if text[0] == "-" else shift)
    except (ValueError, IndexError):
        return UTC


def _normalised(grey: Image.Image) -> Image.Image:
    factor = min(grey.size) / MEASURED_SIDE
    if factor <= 1:
        return grey
    size = (max(1, round(grey.width / factor)), max(1, round(grey.height / factor)))
    return grey.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
