"""EXIF: what cameras write, and what broken files have in its place."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.media.pictures import encoded, photograph
from visionloop.media.exif import exif_of_bytes, exif_values
from visionloop.media.inspect import inspect

GPS, DETAILS = 0x8825, 0x8769
NAMES = ["exif_captured_at", "exif_camera_make", "exif_lens", "exif_iso", "exif_longitude"]


def camera(gps: dict[int, Any] | None = None, **details: Any) -> Image.Exif:
    """EXIF as a camera writes it."""
    found = Image.Exif()
    found[0x010F], found[0x0110], found[0x0112] = "Acme\0\0", " Dock 3 ", 6
    inside = found.get_ifd(DETAILS)
    inside |= {
        0x9003: "2026:03:02 10:12:33",
        0x9011: "+02:00",
        0xA431: "0042",
        0xA434: "50mm F1.8",
        0x829A: (1, 250),
        0x829D: 2.8,
        0x8827: 400,
        0x920A: 50.0,
    }
    if gps is not None:
        found.get_ifd(GPS).update(gps)
    return found


PLACE = {1: "N", 2: (50.0, 56.0, 15.0), 3: "W", 4: (6.0, 57.0, 36.0), 5: b"\0", 6: 52.5}


def test_a_picture_tells_its_time_place_camera_and_settings() -> None:
    exif = camera(PLACE)
    exif.get_ifd(DETAILS)[0x829A] = 0.004
    data = encoded(photograph(64, 48), "JPEG", exif=exif)
    found = inspect(data).exif
    assert found == exif_of_bytes(data[:4096])
    assert found == {
        "exif_captured_at": datetime(2026, 3, 2, 8, 12, 33, tzinfo=UTC),
        "exif_utc_offset": "+02:00",
        "exif_camera_make": "Acme",
        "exif_camera_model": "Dock 3",
        "exif_camera_serial": "0042",
        "exif_lens": "50mm F1.8",
        "exif_exposure_seconds": pytest.approx(0.004),
        "exif_f_number": pytest.approx(2.8),
        "exif_iso": 400.0,
        "exif_focal_length_mm": 50.0,
        "exif_orientation": 6,
        "exif_latitude": pytest.approx(50.9375),
        "exif_longitude": pytest.approx(-6.96),
        "exif_altitude": 52.5,
    }
    assert (inspect(data).width, inspect(data).height) == (48, 64)  # upright


@pytest.mark.parametrize(
    "broken",
    [
        {2: (91.0, 0.0, 0.0)},
        {2: (float("nan"), 0.0, 0.0)},
        {2: ()},
        {1: ""},
        {1: "X"},
        {2: (50.0, 56.0, float("inf"))},
        {9: "V"},
        {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)},
        {4: "6 degrees"},
    ],
)
def test_a_place_that_is_none_is_left_out_and_the_rest_stays(broken: dict[int, Any]) -> None:
    found = exif_values(camera(PLACE | broken))
    assert not {"exif_latitude", "exif_longitude", "exif_altitude"} & found.keys()
    assert found["exif_iso"] == 400.0


def test_below_the_sea_and_south_of_the_equator_are_negative() -> None:
    found = exif_values(camera(PLACE | {1: "S", 5: b"\1"}))
    assert found["exif_latitude"] == pytest.approx(-50.9375) and found["exif_altitude"] == -52.5


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_every_format_that_can_hold_exif_tells_it(form: str) -> None:
    exif = camera(PLACE)
    options = {"exif": exif.tobytes() if form == "TIFF" else exif}
    data = encoded(photograph(64, 48), form, **options)
    # Pillow writes the exposure of a TIFF as two integers, and turns its picture while reading it.
    told = {name: inspect(data).exif.get(name) for name in NAMES}
    assert None not in told.values()
    assert told == {name: exif_of_bytes(data).get(name) for name in NAMES}


@pytest.mark.parametrize(
    ("offset", "hours"),
    [("-05:30", -5.5), ("+14:00", 14), ("12:00", 0), ("Z", 0), ("+25:00", 0), ("+1_:00", 0)],
)
def test_an_offset_that_is_none_is_none(offset: str, hours: float) -> None:
    exif = camera()
    exif.get_ifd(DETAILS).update({0x9011: offset, 0x9291: "25\0\0"})
    found = exif_values(exif)
    local = datetime(2026, 3, 2, 10, 12, 33, 250_000, tzinfo=UTC)
    assert found["exif_captured_at"] == local - timedelta(hours=hours)
    assert found.get("exif_utc_offset", "") == (offset if hours else "")


def test_a_fraction_of_a_second_that_is_none_does_not_cost_the_time() -> None:
    exif = camera()
    exif.get_ifd(DETAILS)[0x9291] = "\u00b2"
    assert exif_values(exif)["exif_captured_at"] == datetime(2026, 3, 2, 8, 12, 33, tzinfo=UTC)


def test_texts_in_utf8_are_read_and_long_ones_are_cut() -> None:
    exif = camera()
    exif[0x010F] = "x" * 30_000
    data = encoded(photograph(64, 48), "JPEG", exif=exif)
    data = data.replace(b" Dock 3 ", "Köln☂".encode())
    found = inspect(data).exif
    assert found["exif_camera_model"] == "Köln☂" and found["exif_camera_make"] == "x" * 200
    exif.get_ifd(DETAILS)[0xA434] = ("xx" + "☂" * 500).encode()
    assert exif_values(exif)["exif_lens"] == "xx" + "☂" * 198


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exif_with_flipped_bytes_never_harms_the_picture(data: st.DataObject) -> None:
    whole = bytearray(encoded(photograph(32, 24), "JPEG", exif=camera(PLACE)))
    begin = whole.index(b"Exif\0\0") + 6
    end = begin + 300
    for place in data.draw(st.lists(st.integers(begin, end), min_size=1, max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    found = exif_of_bytes(bytes(whole))
    assert all(value == value and value != "" for value in found.values())
    Image.open(io.BytesIO(whole)).load()
    assert inspect(bytes(whole)).format == "JPEG"
