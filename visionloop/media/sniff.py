"""What bytes are, told from the bytes alone, and whether they stop before their own end.

A file's name proves nothing, and a decoder that has seen the last pixel does not look whether the
file goes on to its end marker: a PNG cut in its last 20 bytes and a JPEG whose second half was
filled with zeros both decode without complaint.
"""

from __future__ import annotations

import re
import struct
import zlib

from visionloop.media import tiff

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# In entropy-coded JPEG data a marker is 0xFF followed by anything but a stuffed zero, a restart
# marker or a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}

# What `kind` answers for images that are decoded, for images that are not, and for videos.
DECODABLE = frozenset({"jpeg", "png", "gif", "bmp", "tiff", "webp", "ppm", "jpeg2000", "avif"})
UNSUPPORTED_IMAGES = frozenset({"heif", "psd", "svg", "jpeg-xl", "ico"})
VIDEOS = frozenset({"mp4", "matroska", "avi", "mpeg", "flv"})


def kind(data: bytes) -> str:
    """Return what the bytes begin as, or ``""`` when they begin as no known medium.

    Args:
        data: The encoded bytes, or at least the first 32 of them.

    Returns:
        A member of `DECODABLE`, `UNSUPPORTED_IMAGES` or `VIDEOS`, or ``""``.
    """
    for magic, name in (
        (b"\xff\xd8\xff", "jpeg"),
        (PNG_SIGNATURE, "png"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"II*\x00", "tiff"),
        (b"MM\x00*", "tiff"),
        (b"II+\x00", "tiff"),
        (b"MM\x00+", "tiff"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
        (b"\xff\x4f\xff\x51", "jpeg2000"),
        (b"8BPS", "psd"),
        (b"\x00\x00\x01\x00", "ico"),
        (b"\xff\x0a", "jpeg-xl"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jpeg-xl"),
        (b"\x1aE\xdf\xa3", "matroska"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpeg"),
        (b"FLV\x01", "flv"),
    ):
        if data.startswith(magic):
            return name
    if data[:2] == b"BM" and len(data) >= 18 and _number(data, "<I", 14) < 256:
        return "bmp"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "ppm"
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "avi"}.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in _AVIF_BRANDS:
            return "avif"
        return "heif" if brand in _HEIF_BRANDS else "mp4"
    if b"<svg" in data[:512].lower():
        return "svg"
    return ""


def is_cut(data: bytes) -> bool:
    """Return whether an image's bytes stop before the end that its format declares.

    False says that no cut was found, not that there is none: PPM does not say where it ends, nor
    does the first page of a TIFF; there the decoder's own complaint has to do.
    """
    match kind(data):
        case "jpeg":
            return not jpeg_end(data)
        case "png":
            return not _png_end(data)
        case "gif":
            return not data.rstrip(b"\x00").endswith(b";")
        case "webp":
            return len(data) < 8 + _number(data, "<I", 4)
        case "bmp":
            return len(data) < _number(data, "<I", 2)
        case "tiff":
            return tiff.is_cut(data)
        case "jpeg2000":
            return b"\xff\xd9" not in data
        case "avif":
            return not _boxes_reach_end(data)
        case _:
            return False


def _number(data: bytes, form: str, offset: int) -> int:
    return int(struct.unpack_from(form, data, offset)[0])


def jpeg_end(data: bytes) -> int:
    """Return where a JPEG's own data ends, behind its end marker; 0 where it has none.

    Walks the segments of the first image; thumbnails inside the header have end markers of their
    own, and so may have whatever follows.
    """
    position = 2
    while True:
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            return 0
        marker = data[match.start() + 1]
        if marker == 0xD9:
            return match.end()
        if len(data) < match.end() + 2:
            return 0
        # Every other marker is followed by its segment's length; after a scan's header comes
        # entropy-coded data, in which the search goes on.
        position = match.end() + _number(data, ">H", match.end())


def _png_end(data: bytes) -> int:
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if name == b"IEND":
            return position if position <= len(data) else 0
    return 0


# What is looked for behind a picture, and in the first bytes of one that something else could read.
_ATTACHMENTS = (
    ("zip", re.compile(rb"PK\x03\x04|PK\x05\x06")),
    ("html", re.compile(rb"<(?:!doctype html|html|script|svg|body|iframe)\b", re.I)),
    ("php", re.compile(rb"<\?php", re.I)),
    ("pdf", re.compile(rb"%PDF-")),
    ("rar", re.compile(rb"Rar!\x1a\x07")),
    ("7z", re.compile(rb"7z\xbc\xaf\x27\x1c")),
    ("program", re.compile(rb"\A(?:\x7fELF|MZ|#!)")),
    ("image", re.compile(rb"\A\xff\xd8\xff|\A\x89PNG|\AGIF8")),
    ("video", re.compile(rb"\A....ftyp|MotionPhoto_Data", re.S)),
)
# Archives and pages are found by readers that search this far.
_SEARCHED = 1 << 16


def attachment(data: bytes, end: int) -> str:
    """Return what follows a picture in its file: a file of two kinds is a way past a filter.

    Args:
        data: The encoded bytes.
        end: Where the picture ends, see `picture_end`.

    Returns:
        "" where nothing follows; ``zip``, ``html``, ``php``, ``pdf``, ``rar``, ``7z``, ``program``;
        ``image`` and ``video``, which cameras attach themselves; ``padding`` for bytes of one
        value; else ``unknown``.
    """
    if end == len(data):
        return ""
    tail = data[end : end + _SEARCHED]
    if tail.count(tail[:1]) == len(tail) and data.count(tail[:1], end) == len(data) - end:
        return "padding"
    if len(data) - end > _SEARCHED:
        tail += data[max(end + _SEARCHED, len(data) - _SEARCHED) :]
    return next((name for name, form in _ATTACHMENTS if form.search(tail)), "unknown")


def picture_end(data: bytes) -> int:
    """Return where the picture ends in its file, as far as its format says; else the file's end."""
    match kind(data):
        case "jpeg":
            return jpeg_end(data) or len(data)
        case "png":
            return _png_end(data) or len(data)
        case "webp":
            length = _number(data, "<I", 4)
            return min(len(data), 8 + length + length % 2)
        case "bmp":
            declared = _number(data, "<I", 2)
            return declared if 54 <= declared < len(data) else len(data)
        case _:
            return len(data)


def png_fault(data: bytes) -> int | None:
    """Return where the first chunk of a PNG begins that is cut or whose checksum is wrong.

    None where there is none, or the bytes are no PNG.
    """
    if not data.startswith(PNG_SIGNATURE):
        return None
    position = len(PNG_SIGNATURE)
    while position < len(data):
        if position + 12 > len(data):
            return position
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            return position
        if zlib.crc32(data[position + 4 : end - 4]) != _number(data, ">I", end - 4):
            return position
        if name == b"IEND":
            return None
        position = end
    return position


def _boxes_reach_end(data: bytes) -> bool:
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            return False
        length = _number(data, ">I", position)
        if length == 1:
            if position + 16 > len(data):
                return False
            length = _number(data, ">Q", position + 8)
        elif length == 0:  # the last box goes on to the end of the file
            return True
        if length < 8:
            return False
        position += length
    return position == len(data)
