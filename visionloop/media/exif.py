"""What a camera wrote into a picture: EXIF to plain values, whatever is broken in it left out."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL import Image

from visionloop.media.decode import FORMATS

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_DATE_TIME, _DATE_TIME_ORIGINAL = 0x0132, 0x9003
_OFFSET_TIME, _OFFSET_TIME_ORIGINAL, _SUBSEC_ORIGINAL = 0x9010, 0x9011, 0x9291
_ORIENTATION = 0x0112
# Texts and numbers by their column: of the picture itself, and of the camera's settings.
_TEXTS = {"exif_camera_make": 0x010F, "exif_camera_model": 0x0110}
_DETAIL_TEXTS = {"exif_camera_serial": 0xA431, "exif_lens": 0xA434}
_DETAIL_NUMBERS = {
    "exif_exposure_seconds": 0x829A,
    "exif_f_number": 0x829D,
    "exif_iso": 0x8827,
    "exif_focal_length_mm": 0x920A,
}
_MAX_TEXT = 200
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_OFFSET = re.compile(r"([+-])([01][0-9]):([0-5][0-9])")


def exif_values(exif: Image.Exif) -> dict[str, Any]:
    """Return what EXIF says of the picture, by column; a broken or empty field is left out.

    ``exif_captured_at`` (UTC; a camera that wrote no offset is taken to have been on UTC),
    ``exif_utc_offset`` (as written, for example ``+02:00``),
    ``exif_latitude`` and ``exif_longitude`` (degrees, north and east positive), ``exif_altitude``
    (metres above the sea), ``exif_camera_make``, ``…_model`` and ``…_serial``, ``exif_lens``,
    ``exif_exposure_seconds``, ``exif_f_number``, ``exif_iso``, ``exif_focal_length_mm`` and
    ``exif_orientation`` (1 to 8, as stored: measures and models see the picture upright).
    """
    if not len(exif):
        return {}
    details = _ifd(exif, _EXIF_IFD)
    found: dict[str, Any] = {}
    written, offset, fraction = _time_fields(exif, details)
    if (moment := _moment(written, offset, fraction)) is not None:
        found["exif_captured_at"] = moment
        if _offset(offset) is not None:
            found["exif_utc_offset"] = offset
    found |= {name: _text(exif.get(tag)) for name, tag in _TEXTS.items()}
    found |= {name: _text(details.get(tag)) for name, tag in _DETAIL_TEXTS.items()}
    for name, tag in _DETAIL_NUMBERS.items():
        number = _number(details.get(tag))
        found[name] = number if number is not None and number > 0 else None
    orientation = exif.get(_ORIENTATION)
    if isinstance(orientation, int) and 1 <= orientation <= 8:
        found["exif_orientation"] = orientation
    found |= _place(_ifd(exif, _GPS_IFD))
    return {name: value for name, value in found.items() if value is not None and value != ""}


def exif_of_bytes(data: bytes) -> dict[str, Any]:
    """Return `exif_values` of an image whose pixels are not read; nothing where it cannot be told.

    Args:
        data: The encoded bytes, or as many of them as hold its header.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return exif_values(image.getexif())
    except Exception:  # broken headers make Pillow raise whatever it meets
        return {}


def _moment(written: str, offset: str, fraction: str) -> datetime | None:
    # A tenth of what strptime takes, for each picture.
    found = _DATE.match(written)
    if found is None:
        return None
    try:
        moment = datetime(*map(int, found.groups()))  # type: ignore[arg-type]
        if fraction.isascii() and fraction.isdigit():
            moment += timedelta(microseconds=int(fraction[:6].ljust(6, "0")))
        return moment.replace(tzinfo=_offset(offset) or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _time_fields(exif: Image.Exif, details: Mapping[int, Any]) -> tuple[str, str, str]:
    """Return the time, its offset from UTC and its fraction of a second, as they are written."""
    if text := _text(details.get(_DATE_TIME_ORIGINAL)):
        offset, fraction = details.get(_OFFSET_TIME_ORIGINAL), details.get(_SUBSEC_ORIGINAL)
        return text, _text(offset), _text(fraction)
    return _text(exif.get(_DATE_TIME)), _text(details.get(_OFFSET_TIME)), ""


def _ifd(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(tag) or {}
    except Exception:  # broken EXIF makes Pillow raise whatever it meets; the picture is whole
        return {}


def _place(gps: Mapping[int, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    latitude = _degrees(gps.get(2), _text(gps.get(1)), "NS", 90.0)
    longitude = _degrees(gps.get(4), _text(gps.get(3)), "EW", 180.0)
    # Devices without a fix write a void status, or the point where equator and meridian meet.
    nowhere = _text(gps.get(9)) == "V" or (latitude == 0.0 and longitude == 0.0)
    if latitude is not None and longitude is not None and not nowhere:
        found = {"exif_latitude": latitude, "exif_longitude": longitude}
        altitude = _number(gps.get(6))
        if altitude is not None:
            below = gps.get(5) in (1, b"\x01")
            found["exif_altitude"] = -altitude if below else altitude
    return found


def _degrees(value: Any, reference: str, signs: str, most: float) -> float | None:
    if not isinstance(value, tuple | list) or not 1 <= len(value) <= 3:
        return None
    parts = [_number(part) for part in value]
    degrees = 0.0
    for part, units in zip(parts, (1, 60, 3600), strict=False):
        if part is None or part < 0:
            return None
        degrees += part / units
    sign = reference[:1].upper()
    if degrees > most or not sign or sign not in signs:
        return None
    return round(-degrees if sign == signs[1] else degrees, 7)


def _number(value: Any) -> float | None:
    if isinstance(value, tuple | list) and value:
        value = value[0]
    if isinstance(value, bool | str | bytes) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        # Pillow reads every text as Latin-1; cameras and phones write UTF-8.
        value = value[: 4 * _MAX_TEXT].encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return ""
    written = value[: 4 * _MAX_TEXT].partition(b"\x00")[0]
    try:
        text = written.decode()
    except UnicodeDecodeError as error:
        # A long text may have been cut inside a character.
        is_cut = error.start > 4 * _MAX_TEXT - 4
        text = written[: error.start].decode() if is_cut else written.decode("latin-1")
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text.strip()[:_MAX_TEXT]


def _offset(text: str) -> timezone | None:
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    shift = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-shift if found[1] == "-" else shift)


def same_moment(a: datetime, b: datetime, *, zoned: bool) -> bool:
    """Return whether two times of capture are one, to the second.

    Args:
        a: A time, UTC.
        b: A time, UTC.
        zoned: Whether the second one's offset from UTC was written down. Where it was not, it may
            differ by what time zones do: quarters of an hour, up to 14 hours.
    """
    seconds = round(abs((a - b).total_seconds()))
    return seconds <= 1 or (not zoned and seconds <= 14 * 3600 and seconds % 900 in (0, 1, 899))
