"""Later pages of a TIFF are looked at, and long texts in a PNG are nobody's fault."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ImageCms, PngImagePlugin

from tests.media.pictures import encoded, photograph
from visionloop.errors import UnreadableMedia
from visionloop.media.decode import decode_rgb
from visionloop.media.png_text import without_long_text

# pytest shows the warnings that the decoder silences in production.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def pages(compression: str | None, big: bool = False) -> bytes:
    sink = io.BytesIO()
    first, *rest = (photograph(64, 48, number) for number in range(3))
    first.save(
        sink, "TIFF", save_all=True, append_images=rest, compression=compression, big_tiff=big
    )
    return sink.getvalue()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_a_tiff_that_is_cut_in_any_of_its_pages_is_unreadable(
    compression: str | None, big: bool
) -> None:
    data = pages(compression, big)
    assert decode_rgb(data).shape == (48, 64, 3)
    for part in range(1, 20):
        with pytest.raises(UnreadableMedia) as told:
            decode_rgb(data[: len(data) * part // 20])
        assert told.value.reason in ("truncated", "corrupt"), part


def test_a_chain_of_pages_that_leads_back_is_walked_once() -> None:
    data = bytearray(pages(None))
    offset = int.from_bytes(data[4:8], "little")
    place = offset + 2 + 12 * int.from_bytes(data[offset : offset + 2], "little")
    assert data[place : place + 4] != bytes(4)
    data[place : place + 4] = data[4:8]
    assert decode_rgb(bytes(data)).shape == (48, 64, 3)


@pytest.mark.parametrize("text", ["zTXt", "iTXt", "tEXt", "iCCP", "many"])
def test_a_png_with_texts_of_any_length_is_the_picture_that_it_is(text: str) -> None:
    told = PngImagePlugin.PngInfo()
    options = {}
    if text == "zTXt":
        told.add_text("Comment", "x" * (3 << 20), zip=True)
    elif text == "iTXt":
        told.add_itxt("Comment", "x" * (3 << 20), "en", "c", zip=True)
    elif text == "tEXt":
        told.add_text("Comment", "x" * (3 << 20))
    elif text == "iCCP":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        options["icc_profile"] = profile + bytes(3 << 20)
    else:
        for number in range(70):
            told.add_text(f"c{number}", "x" * 1_000_000, zip=True)
    told.add_text("Title", "kept")
    data = encoded(photograph(40, 32), "PNG", pnginfo=told, **options)
    assert np.array_equal(decode_rgb(data), np.asarray(photograph(40, 32)))
    assert b"Title" in without_long_text(data)


def test_a_broken_png_with_a_long_text_is_still_broken() -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "x" * (3 << 20), zip=True)
    data = encoded(photograph(40, 32), "PNG", pnginfo=told)
    with pytest.raises(UnreadableMedia) as found:
        decode_rgb(data[:-40])
    assert found.value.reason == "truncated"
