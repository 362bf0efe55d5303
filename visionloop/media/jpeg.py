"""JPEG photographs, decoded at a reduced scale and yet read to the last byte.

libjpeg-turbo computes only the pixels of the scale that is asked for, but parses every bit of the
entropy-coded data on the way. What it meets there it tells as warnings, which Pillow, OpenCV and
torchvision drop: a picture whose lower half is noise opens without complaint. simplejpeg stops at
the first one.

A flipped bit that still makes a valid code changes pixels and is told by no decoder: a JPEG carries
no checksum.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from visionloop.errors import UnreadableMedia
from visionloop.media.sniff import jpeg_end

# Decoders compute these scales with vector instructions; others take longer than full size.
SCALES = (8, 4, 2)

# What a damaged file makes libjpeg say; anything else (arithmetic coding, 12 bits, an unknown JFIF
# revision) is no fault of the data.
_DAMAGE = re.compile(
    r"Corrupt JPEG data|Premature end|Unsupported marker|Bogus Huffman|Inconsistent progression|"
    r"Invalid component ID|Invalid progressive|Invalid SOS|Unsupported JPEG process"
)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# Cameras pad the last bytes before the end marker; a decoder that lost its place leaves far more.
_PADDING = 2

# Baseline, extended and progressive, Huffman coded.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_FRAMES = frozenset({*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a segment
_ZEROS = 8  # more of them than entropy-coded data ends in
_END, _END_PAIR = b"\xff\xd9", 0xD9FF
_EXIF = b"Exif\x00\x00"

# Finding the place of a fault decodes a file some twenty times.
_SEARCHED_PIXELS = 50_000_000


@dataclass(frozen=True)
class Header:
    """What a JPEG says before its pixels.

    Attributes:
        width: Pixels as stored, before any rotation.
        height: Pixels as stored.
        components: 1 grey, 3 colour, 4 CMYK.
        progressive: Whether it comes in several scans, whose coefficients are all in memory.
        exif: The EXIF block without its name, empty where there is none.
        scan: Where the first scan begins, in bytes.
    """

    width: int
    height: int
    components: int
    progressive: bool
    exif: bytes
    scan: int

    def reduction(self, shorter: int) -> int:
        """Return the largest scale, 1 for 1/1 to 8 for 1/8, that keeps so many pixels."""
        fits = (scale for scale in SCALES if min(self.width, self.height) >= shorter * scale)
        return next(fits, 1) if shorter else 1


def header(data: bytes) -> Header | None:
    """Walk the segments to the first scan.

    Returns:
        None where there is no whole header, or one of a kind that `decode` does not take: lossless,
        arithmetic coding, more than 8 bits, two components.
    """
    position, frame, exif = 2, None, b""
    try:
        while True:
            if data[position] != 0xFF:
                return None
            marker = data[position + 1]
            if marker == 0xFF or marker in _ALONE:
                position += 1 if marker == 0xFF else 2
                continue
            if marker == 0xDA:
                break
            (length,) = struct.unpack_from(">H", data, position + 2)
            if marker in _FRAMES:
                bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
                frame = (marker, bits, height, width, components)
            elif marker in _OTHER_FRAMES or marker == 0xD9:
                return None
            elif marker == 0xE1 and data[position + 4 : position + 10] == _EXIF:
                exif += data[position + 10 : position + 2 + length]
            position += 2 + length
    except (IndexError, struct.error):
        return None
    if frame is None:
        return None
    marker, bits, height, width, components = frame
    if bits != 8 or components not in (1, 3, 4) or not width or not height:
        return None
    return Header(width, height, components, marker == 0xC2, exif, position)


def decode(data: bytes, head: Header, reduction: int) -> Image.Image | None:
    """Decode a JPEG, not yet upright.

    Args:
        data: The encoded bytes.
        head: What `header` says of them.
        reduction: 1, 2, 4 or 8: the picture has each side divided by it, rounded up.

    Returns:
        A picture of mode L, RGBX or CMYK that shares the decoder's memory; None where the decoder
        does not know this kind of JPEG, and says nothing about its data.

    Raises:
        UnreadableMedia: ``truncated`` or ``corrupt``, with the byte where decoding stopped.
    """
    try:
        pixels = _pixels(data, head, reduction, strict=True)
    except ValueError as error:
        said = str(error)
        if _is_padding(data, said):
            pixels = _pixels(data, head, reduction, strict=False)
        elif _DAMAGE.search(said) is None:
            return None
        else:
            raise _fault(data, head, said) from None
    mode = "L" if head.components == 1 else "RGBX" if head.components == 3 else "CMYK"
    if mode == "CMYK":  # written inverted, as Adobe does and every reader expects
        pixels = ~pixels
    size = (pixels.shape[1], pixels.shape[0])
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)


def _pixels(data: bytes, head: Header, reduction: int, *, strict: bool) -> np.ndarray:
    space = {1: "GRAY", 3: "RGBX", 4: "CMYK"}[head.components]
    return np.asarray(
        simplejpeg.decode_jpeg(
            data,
            space,
            min_height=-(-head.height // reduction),
            min_width=-(-head.width // reduction),
            strict=strict,
        )
    )


def _is_padding(data: bytes, said: str) -> bool:
    """Return whether the only complaint is of filling bytes between the last row and the end."""
    found = _EXTRANEOUS.search(said)
    if found is None:
        return False
    extra = int(found[1])
    end = jpeg_end(data)
    return extra <= _PADDING or (end > 0 and len(set(data[end - 2 - extra : end - 2])) == 1)


def end(data: bytes) -> int:
    """Return where a JPEG that decodes ends in its file.

    Where the file's last two bytes are the only end marker behind its header, as nearly always, no
    segment need be walked.
    """
    head = header(data)
    if head is not None and data.endswith(_END):
        # Pairs at even and at odd places: four times as fast as searching the bytes.
        places = (head.scan, head.scan + 1)
        pairs = [np.frombuffer(data, "<u2", (len(data) - at) // 2, at) for at in places]
        found = np.empty(len(pairs[0]), bool)
        ends = (np.equal(pair, _END_PAIR, out=found[: len(pair)]) for pair in pairs)
        if sum(map(np.count_nonzero, ends)) == 1:
            return len(data)
    return jpeg_end(data) or len(data)


def _fault(data: bytes, head: Header, said: str) -> UnreadableMedia:
    whole = data.endswith(_END) or (jpeg_end(data) > 0 and not said.startswith("Premature end"))
    if whole:
        return UnreadableMedia("corrupt", said, offset=_stopped_at(data, head))
    # A file system that lost the end of a file fills it with zeros.
    written = len(data.rstrip(b"\x00"))
    lost = len(data) - written
    return UnreadableMedia("truncated", said, offset=written if lost > _ZEROS else len(data))


def _stopped_at(data: bytes, head: Header) -> int | None:
    """Return the byte at which the decoder finds the fault, within the few that it reads ahead.

    The file is cut ever closer to it: before the fault the decoder complains of the cut.
    """
    if head.width * head.height > _SEARCHED_PIXELS:
        return None
    low, high = head.scan, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _pixels(data[:middle], head, 8, strict=True)
        except ValueError as error:
            if str(error).startswith("Premature end"):
                low = middle
            else:
                high = middle
        else:
            low = middle
    return high
