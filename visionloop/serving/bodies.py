"""What a logged body is: compressed or plain, JSON, or JSON with raw tensors after it.

Bodies come from anyone who can reach the endpoint, so everything here is bounded in memory and
answers with a reason instead of an exception of some library.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import zlib
from typing import Any

import orjson

# A compressed body that unpacks to more than this is refused (``body_too_large``): a decompression
# bomb, or no request for images, which hardly compress.
MAX_BODY_BYTES = 64 * 1024 * 1024

# Of one body's JSON, each 25 to 100 bytes of memory however short it is written. A tensor of more
# goes as raw bytes.
MAX_VALUES = 4_000_000
# So many times the memory of another value.
_OBJECT_WEIGHT = 8
# What no JSON has: it ends before.
_NO_JSON = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")

# Compressed streams in one body, one after the other: nobody writes many, and each costs time.
_MOST_STREAMS = 16

# RFC 8878 has decoders support at least 8 MB; a frame may ask for terabytes.
_ZSTD_WINDOW = 64 * 1024 * 1024
# The decoder has no limit for what it returns at a time: 128 KiB for each 4 bytes at worst.
_ZSTD_SLICE = 1024

_ZLIB_HEADERS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_DECODER = json.JSONDecoder()


class Undecodable(Exception):
    """A body cannot be used; `reason` is stable and machine-readable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def unpack(body: bytes, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """Undo gzip, zlib or zstd, told by the body's first bytes.

    The event does not carry the HTTP headers ``Content-Encoding`` or ``grpc-encoding``.

    Args:
        body: The bytes as they were logged.
        limit: Most bytes to unpack to.

    Returns:
        The unpacked bytes; the body itself where it is not packed.

    Raises:
        Undecodable: ``compression_invalid`` or ``body_too_large``.
    """
    if body[:2] == b"\x1f\x8b":
        return _inflate(body, 31, limit)
    if body[:2] in _ZLIB_HEADERS:
        return _inflate(body, 15, limit)
    if body[:4] == b"\x28\xb5\x2f\xfd":
        return _unzstd(body, limit)
    return body


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest:
        if len(parts) == _MOST_STREAMS:
            raise Undecodable("compression_invalid")
        stream = zlib.decompressobj(window)
        try:
            part = stream.decompress(rest, limit - size + 1)
        except zlib.error:
            raise Undecodable("compression_invalid") from None
        size += len(part)
        if size > limit:
            raise Undecodable("body_too_large")
        if not stream.eof:
            raise Undecodable("compression_invalid")
        parts.append(part)
        rest = stream.unused_data
    return b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    import zstandard

    parts: list[bytes] = []
    size = streams = 0
    rest = memoryview(body)
    while rest:
        streams += 1
        if streams > _MOST_STREAMS:
            raise Undecodable("compression_invalid")
        stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        try:
            while rest and not stream.eof:
                part = stream.decompress(rest[:_ZSTD_SLICE])
                rest = rest[_ZSTD_SLICE:]
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise Undecodable("body_too_large")
        except zstandard.ZstdError:
            raise Undecodable("compression_invalid") from None
        if not stream.eof:
            raise Undecodable("compression_invalid")
        # What came behind the end of a frame in the last slice begins the next one.
        rest = memoryview(body)[len(body) - len(rest) - len(stream.unused_data) :]
    return b"".join(parts)


def parse_json(body: bytes) -> tuple[Any, bytes]:
    """Parse the JSON that a body begins with.

    The V2 binary extension puts raw tensors after the JSON, and the length of the JSON stands in a
    header that the event may lack: the end is found by parsing.

    Args:
        body: Plain bytes.

    Returns:
        The value, and what follows it.

    Raises:
        Undecodable: ``not_utf8``, ``nested_too_deep``, ``not_json`` or ``too_many_values``.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if _weight(body, len(body)) > MAX_VALUES:
        # No parser comes past the first byte that JSON cannot have; raw tensors soon have one.
        other = _NO_JSON.search(body)
        if _weight(body, other.start() if other else len(body)) > MAX_VALUES:
            raise Undecodable("too_many_values")
    try:
        return orjson.loads(body), b""
    except orjson.JSONDecodeError:
        pass
    # Latin-1 gives each byte one character, so that an offset in the text is one in the body.
    text = body.decode("latin-1")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        _, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise Undecodable("nested_too_deep") from None
    except ValueError:
        raise Undecodable(_why_not_json(body)) from None
    head = body[:end]
    try:
        # The standard parser also takes NaN, Infinity, 1e400 and lone surrogates, which orjson
        # refuses: what they mean is decided where the value is used.
        value = json.loads(head.decode("utf-8"))
    except UnicodeDecodeError:
        raise Undecodable("not_utf8") from None
    except RecursionError:
        raise Undecodable("nested_too_deep") from None
    except ValueError:
        raise Undecodable("not_json") from None
    return value, body[end:].lstrip(b" \t\r\n") if body[end:].isspace() else body[end:]


def _weight(body: bytes, end: int) -> int:
    """Return a bound of the values in the JSON before a place; whoever writes few bytes has few."""
    if end <= MAX_VALUES:
        return 0
    others = body.count(b",", 0, end) + body.count(b"[", 0, end)
    return others + _OBJECT_WEIGHT * body.count(b"{", 0, end)


def _why_not_json(body: bytes) -> str:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "not_utf8"
    return "not_json"


def base64_bytes(text: str | bytes) -> bytes | None:
    """Decode base64 as lenient servers do: any alphabet, padding optional, spaces ignored.

    Returns:
        The bytes, or None where the text is no base64.
    """
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    with contextlib.suppress(binascii.Error):
        return binascii.a2b_base64(raw, strict_mode=True) or None  # as nearly everybody writes it
    if raw[:5] == b"data:":
        raw = raw.partition(b",")[2]
    raw = raw.translate(None, b" \t\r\n")
    if b"-" in raw or b"_" in raw:
        raw = raw.translate(bytes.maketrans(b"-_", b"+/"))
    raw = raw.rstrip(b"=")
    if not raw or _NOT_BASE64.search(raw):
        return None
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4))
    except binascii.Error:
        return None


def clean(text: object) -> str:
    """Return text that can be stored: a lone surrogate becomes a question mark."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
