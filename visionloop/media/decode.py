"""Encoded bytes to pixels: upright, RGB, complete, or a reason why not.

Every reason is stable and machine-readable:

=============== ==================================================================
``empty``        no bytes
``not_an_image`` the bytes are of no known image or video format
``unsupported``  a known format that is not decoded: a video, HEIF, SVG, …
``truncated``    the file stops before its own end
``too_large``    more pixels than `MAX_PIXELS`, or than there is memory for, or more scans than
                 `MAX_SCANS`: a decompression bomb, or a picture to tile first
``corrupt``      a known, whole file that the decoder refuses
=============== ==================================================================
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

# `Image.open(formats=…)` fails on a format whose plugin is not imported yet; importing these
# is 0.1 s faster than Image.init(), which imports all that Pillow has.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from visionloop.errors import UnreadableMedia
from visionloop.media import jpeg, png_text, sniff

REASONS = ("empty", "not_an_image", "unsupported", "truncated", "too_large", "corrupt")

# Pillow's own limit for a decompression bomb: about 1.5 GB of memory while it is decoded.
MAX_PIXELS = 178_956_970

# Each scan of a progressive JPEG goes over the whole picture: encoders write about ten, and a small
# file of ten thousand keeps a decoder busy for hours.
MAX_SCANS = 100

# Conversions that need more than the result go in strips of so many pixels.
_STRIP = 1_000_000

# Pillow tries only these: no format that starts a program (EPS) or that has no signature (TGA).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_CUT_WORDS = re.compile(r"truncated|reached eof|not enough image data|expected to read", re.I)
_LEFT_OVER = re.compile(r"\((\d+) bytes not processed\)")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_COLOR_MODES = {
    **dict.fromkeys(("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L"), "grey"),
    **dict.fromkeys(("P", "PA"), "palette"),
    **dict.fromkeys(("RGBA", "RGBa"), "rgba"),
    "CMYK": "cmyk",
}

# Pillow warns about every odd EXIF block and large image; here they are counted, not printed.
# A filter for good, because warnings.catch_warnings is not safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Decoded:
    """An image that was read to its last byte.

    Attributes:
        image: 8-bit picture; smaller than the original when a draft was asked for. Upright RGB from
            `decode`; from `decode_stored` as it is stored: mode L, RGB or RGBX, not turned.
        width: Width of the original in pixels, upright.
        height: Height of the original in pixels, upright.
        format: Pillow's name of the format, for example ``JPEG``.
        exif: EXIF tags of the original; empty where there are none or they are broken.
        color_mode: ``grey``, ``rgb``, ``rgba``, ``palette`` or ``cmyk``, as it is stored.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    exif: Image.Exif
    color_mode: str


def decode_rgb(
    data: bytes, *, max_pixels: int = MAX_PIXELS, reserve: Callable[[int], None] | None = None
) -> npt.NDArray[np.uint8]:
    """Decode an image to RGB, upright by its EXIF orientation.

    Grey and palette images are expanded, transparency is laid on white, 16-bit values keep their
    upper 8 bits, CMYK is converted, and of an animation the first frame is taken.

    Args:
        data: The encoded bytes.
        max_pixels: Refuse what declares more pixels than this.
        reserve: As in `decode`.

    Returns:
        uint8 array [height, width, 3].

    Raises:
        UnreadableMedia: The bytes are no complete image; `reason` is one of `REASONS`.
    """
    return np.asarray(decode(data, max_pixels=max_pixels, reserve=reserve).image)


def decode(
    data: bytes,
    *,
    draft: int = 0,
    max_pixels: int = MAX_PIXELS,
    reserve: Callable[[int], None] | None = None,
) -> Decoded:
    """Decode an image, and prove that it is whole.

    Args:
        data: The encoded bytes.
        draft: A JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as its shorter side keeps at
            least this many pixels; 0 decodes at full size. All of the entropy-coded data is read
            either way, so a truncated file is noticed.
        max_pixels: Refuse what declares more pixels than this.
        reserve: Called once, with the number of pixels that are about to be in memory; may wait,
            see `visionloop.media.budget`.

    Raises:
        UnreadableMedia: As `decode_rgb`.
    """
    with _blamed_on(data):
        stored = _decode_stored(data, draft, max_pixels, reserve)
        return replace(stored, image=upright(_rgb(stored.image), stored.exif))


def decode_stored(
    data: bytes,
    *,
    draft: int = 0,
    max_pixels: int = MAX_PIXELS,
    reserve: Callable[[int], None] | None = None,
) -> Decoded:
    """Decode an image as `decode` does, but leave turning and spreading it to the caller.

    Grey stays one channel, and the picture lies as it is stored: for measures that do not depend on
    either, which then cost a third less. For the arguments see `decode`; for turning, `upright`.

    Raises:
        UnreadableMedia: As `decode_rgb`.
    """
    with _blamed_on(data):
        stored = _decode_stored(data, draft, max_pixels, reserve)
        if stored.image.mode in ("L", "RGB", "RGBX"):
            return stored
        return replace(stored, image=_rgb(stored.image))


def decode_upright(
    data: bytes, *, max_pixels: int = MAX_PIXELS, reserve: Callable[[int], None] | None = None
) -> Image.Image:
    """Decode all that `decode_rgb` does to a picture of mode L, RGB or RGBX; see `decode_rgb`."""
    stored = decode_stored(data, max_pixels=max_pixels, reserve=reserve)
    opaque = stored.image.mode != "L" or not stored.image.has_transparency_data
    return upright(stored.image if opaque else _rgb(stored.image), stored.exif)


def upright(image: Image.Image, exif: Image.Exif) -> Image.Image:
    """Turn a picture as its EXIF orientation says."""
    method = _UPRIGHT.get(_orientation(exif))
    return image if method is None else image.transpose(method)


def _decode_stored(
    data: bytes, draft: int, max_pixels: int, reserve: Callable[[int], None] | None
) -> Decoded:
    head = jpeg.header(data) if data.startswith(b"\xff\xd8\xff") else None
    if head is not None:
        _refuse_large(head.width, head.height, max_pixels)
        if head.progressive and (scans := data.count(b"\xff\xda", head.scan)) > MAX_SCANS:
            raise UnreadableMedia("too_large", f"{scans} scans", offset=head.scan)
        reduction = head.reduction(draft)
        if reserve:
            # A progressive JPEG's coefficients are in memory at full size, whatever the draft.
            shrunk = 1 if head.progressive else reduction**2
            reserve(head.width * head.height // shrunk)
        image = jpeg.decode(data, head, reduction)
        if image is not None:
            exif = _parsed(head.exif)
            width, height = _turned(head.width, head.height, exif)
            mode = {1: "grey", 3: "rgb", 4: "cmyk"}[head.components]
            return Decoded(image, width, height, "JPEG", exif, mode)
        reserve = None  # taken already: a thread takes once
    try:
        return _decode_by_pillow(data, draft, max_pixels, reserve)
    except ValueError as error:
        if "MAX_TEXT_" not in str(error):
            raise
    return _decode_by_pillow(png_text.without_long_text(data), draft, max_pixels, reserve)


def _decode_by_pillow(
    data: bytes, draft: int, max_pixels: int, reserve: Callable[[int], None] | None
) -> Decoded:
    # A module elsewhere in the process may have told Pillow to make up the missing rows.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _refuse_large(*image.size, max_pixels)
        exif = _exif(image)
        width, height = _turned(*image.size, exif)
        mode = _COLOR_MODES.get(image.mode, "rgb")
        pixels = image.width * image.height
        if draft:
            _draft(image, draft)
        if reserve:
            progressive = image.info.get("progressive")
            reserve(pixels if progressive else image.width * image.height)
        image.load()
        if sniff.is_cut(data):
            raise UnreadableMedia("truncated", "no end marker", offset=len(data))
        if image.format == "PNG":
            _verify_png(data)
        # A file of several JPEGs (Pillow's MPO) is the first of them here.
        form = "JPEG" if image.format == "MPO" else str(image.format)
        return Decoded(image, width, height, form, exif, mode)


def _refuse_large(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableMedia("too_large", f"{width} by {height} pixels", offset=0)


@contextmanager
def _blamed_on(data: bytes) -> Iterator[None]:
    """Turn whatever decoding raises into `UnreadableMedia`, with a stable reason.

    Decoders raise whatever a broken file makes them raise: OSError, SyntaxError, ValueError,
    struct.error, IndexError, ZeroDivisionError… One broken file must not stop a folder, so all of
    it is the file's fault here.
    """
    if not data:
        raise UnreadableMedia("empty", offset=0)
    try:
        yield
    except UnreadableMedia:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableMedia("too_large", str(error), offset=0) from None
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except MemoryError:
        raise UnreadableMedia("too_large", "more than there is memory for") from None
    except Exception as error:
        cut = sniff.is_cut(data) or _CUT_WORDS.search(str(error)) is not None
        detail = str(error) or type(error).__name__
        left = _LEFT_OVER.search(detail)
        offset = sniff.png_fault(data)
        if offset is None and (cut or left):
            offset = len(data) - (int(left[1]) if left else 0)
        raise UnreadableMedia("truncated" if cut else "corrupt", detail, offset=offset) from None


def _unidentified(data: bytes) -> UnreadableMedia:
    kind = sniff.kind(data)
    if kind in sniff.VIDEOS:
        return UnreadableMedia(
            "unsupported", f"a video ({kind}): its source needs `video`", offset=0
        )
    if kind in sniff.UNSUPPORTED_IMAGES:
        detail = f"{kind} is not decoded: convert it to JPEG or PNG"
        return UnreadableMedia("unsupported", detail, offset=0)
    if kind in sniff.DECODABLE:
        if sniff.is_cut(data):
            return UnreadableMedia("truncated", f"a {kind} file without its end", offset=len(data))
        return UnreadableMedia("corrupt", f"begins as {kind}, but has no valid header", offset=0)
    if data[257:262] == b"ustar":
        return UnreadableMedia("unsupported", "a tar: its source needs `kind: tar`", offset=0)
    return UnreadableMedia("not_an_image", f"begins with {data[:8]!r}", offset=0)


def _verify_png(data: bytes) -> None:
    """Check every chunk's CRC, which loading the pixels skips."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()


def _draft(image: Image.Image, shorter: int) -> None:
    """Ask the JPEG decoder for the smallest scale that keeps the shorter side."""
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return
    factor = min(image.size) / shorter
    if factor >= 2:
        # Rounded down: draft() never goes below the size that it is asked for.
        image.draft(None, (int(image.width / factor), int(image.height / factor)))


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return Image.Exif()


def _parsed(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    if block:
        try:
            exif.load(b"Exif\x00\x00" + block)
        except Exception:  # as above
            return Image.Exif()
    return exif


def _orientation(exif: Image.Exif) -> int:
    value: Any = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(width: int, height: int, exif: Image.Exif) -> tuple[int, int]:
    return (height, width) if _orientation(exif) >= 5 else (width, height)


def _rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB":
        return image
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight_bit(image)).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Lay transparency on white, in strips: at once it would take 16 bytes a pixel."""
    whole = Image.new("RGB", image.size)
    for top, bottom in _strips(image.size):
        rgba = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        whole.paste(Image.alpha_composite(white, rgba).convert("RGB"), (0, top))
    return whole


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the first row and the row behind the last of each strip of a picture."""
    width, height = size
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _eight_bit(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Bring a 16- or 32-bit grey image to 8 bits.

    16-bit values are full scale (65535 is white), as PNG and TIFF define them. 32-bit integers and
    floats have no stated white: their own range is stretched to 0..255.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    strips = list(_strips(image.size))
    ranges = [(float(part.min()), float(part.max())) for part in _finite(values, strips)]
    low, high = min(pair[0] for pair in ranges), max(pair[1] for pair in ranges)
    if low >= 0 and high <= 255 and image.mode == "I":
        return values.astype(np.uint8)
    scale = 255.0 / ((high - low) or 1.0)
    whole = np.empty(values.shape, np.uint8)
    for (top, bottom), part in zip(strips, _finite(values, strips), strict=True):
        whole[top:bottom] = np.round((part - low) * scale).astype(np.uint8)
    return whole


def _finite(
    values: npt.NDArray[Any], strips: list[tuple[int, int]]
) -> Iterator[npt.NDArray[np.float64]]:
    for top, bottom in strips:
        part = values[top:bottom].astype(np.float64)
        yield np.nan_to_num(part, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
