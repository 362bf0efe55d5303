"""Files inside tar archives, by URI: ``<URI of the tar>!/<member>``.

An uncompressed tar is read where it lies: its headers once, then each member by its range of bytes.
Nothing is extracted. A compressed one has no ranges, so it is unpacked to a temporary file first;
ingest copies the members of such a tar into the lake, where they are read without it.

Below ``file://`` members are quoted as paths are, below ``gs://`` they stand as they are.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol, cast
from urllib.parse import quote, unquote

from visionloop.lake.storage import INSIDE, split_member

PLAIN = (".tar",)
COMPRESSED = (".tar.gz", ".tgz")
# No photograph is larger, and a member is read whole.
MAX_MEMBER_BYTES = 1 << 30
# A compressed tar that unpacks to more is read so far.
MAX_UNPACKED_BYTES = 1 << 38

_CHUNK, _PART = 1 << 18, 1 << 22
_GZIP = 16 + zlib.MAX_WBITS
_BLOCK = tarfile.BLOCKSIZE


class Seekable(Protocol):
    """What headers are read from."""

    def tell(self) -> int:
        """Return the position."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position."""

    def read(self, length: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""


@dataclass(frozen=True)
class Member:
    """One entry of a tar that is no folder.

    Attributes:
        name: Its path in the tar, without a leading ``./``.
        offset: Where its bytes begin in the tar (the unpacked one, where it is compressed).
        size: Bytes.
        reason: Why it cannot be taken, a word: ``unsafe_name`` (absolute, or with ``..``),
            ``not_a_file`` (a link, a device), ``truncated``, ``too_large``, ``same_name`` (the tar
            holds an earlier member of that name); empty when it can.
        detail: The same for a person.
    """

    name: str
    offset: int
    size: int
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Damage:
    """Where a container stops being readable; what comes before it is good.

    Attributes:
        reason: ``truncated``, ``corrupt`` or ``too_large``.
        detail: What is wrong, and the byte offset.
    """

    reason: str
    detail: str


def is_tar(uri: str) -> bool:
    """Return whether a name is that of a tar archive."""
    return uri.lower().endswith(PLAIN + COMPRESSED)


def is_compressed(uri: str) -> bool:
    """Return whether a name is that of a compressed tar archive."""
    return uri.lower().endswith(COMPRESSED)


def name_in(uri: str) -> tuple[str, str]:
    """Return the URI of the tar that a member's URI names, and the member's name in it."""
    container, name = split_member(uri)
    return container, unquote(name) if _quotes(container) else name


def member_uri(container: str, member: Member) -> str:
    """Return the URI of a member; each member of a tar has one of its own."""
    name = member.name
    if member.reason == "unsafe_name":
        # One segment, whatever it holds: nothing that normalises paths may follow it.
        name = quote(name, safe="").replace("..", "%2E%2E") or "%00"
    elif _quotes(container):
        name = quote(name)
    if member.reason in ("same_name", "unsafe_name"):
        name += f"?offset={member.offset}"
    return f"{container}{INSIDE}{name}"


def _quotes(container: str) -> bool:
    return not container.startswith("gs://")


def members(file: Seekable, size: int) -> Iterator[Member | Damage]:
    """Yield the members of an unpacked tar in their order, at last the damage if there is any.

    Only headers are read. Memory grows by some 100 bytes a member.

    Args:
        file: The tar, seekable.
        size: Its bytes.
    """
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=cast(IO[bytes], file), mode="r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                if info.isdir():
                    continue
                member = _member(info, size, seen)
                seen.add(member.name)
                yield member
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        yield _unreadable(file, size, str(error) or type(error).__name__)
        return
    if damage := _after(file, end, size):
        yield damage


def _unreadable(file: Seekable, size: int, why: str) -> Damage:
    if not size:
        return Damage("empty", "0 bytes")
    offset = min(file.tell(), size)
    cut = "unexpected end" in why or offset == size
    return Damage("truncated" if cut else "corrupt", f"{why}, near byte {offset} of {size}")


def _member(info: tarfile.TarInfo, size: int, seen: set[str]) -> Member:
    name = info.name
    while name.startswith("./"):
        name = name[2:].lstrip("/")

    def bad(reason: str, detail: str) -> Member:
        return Member(name, info.offset_data, info.size, reason, detail)

    if not _is_safe(name):
        return bad("unsafe_name", f"the member is called {info.name!r:.200}")
    if name in seen:
        return bad("same_name", f"an earlier member is called {name!r:.200}, too")
    if info.issparse() or not info.isreg():
        kind = "sparse file" if info.issparse() else "link" if info.linkname else "special file"
        return bad("not_a_file", f"a {kind}")
    if info.offset_data + info.size > size:
        return bad(
            "truncated",
            f"its bytes go to offset {info.offset_data + info.size}, the tar ends at {size}",
        )
    if info.size > MAX_MEMBER_BYTES:
        return bad("too_large", f"{info.size} bytes")
    return Member(name, info.offset_data, info.size)


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return (
        bool(name)
        and not any(part in ("", ".", "..") for part in parts)
        and not any(sign in name for sign in "\\\0\n\r")
        and not re.match(r"[A-Za-z]:", name)
    )


def _after(file: Seekable, end: int, size: int) -> Damage | None:
    """Return what is wrong where the module stopped: it takes a broken header for the end."""
    if end > size:
        return Damage("truncated", f"the last member goes to byte {end}, the tar ends at {size}")
    file.seek(end)
    block = file.read(_BLOCK)
    if len(block) == _BLOCK and not block.strip(b"\0"):
        return None
    if len(block) < _BLOCK:
        return Damage("truncated", f"no end marker, the tar ends at byte {size}")
    return Damage("corrupt", f"no valid header at byte {end} of {size}")


def unpack(packed: IO[bytes], target: IO[bytes]) -> Damage | None:
    """Unpack gzip as far as it goes, and say what stopped it.

    Args:
        packed: The compressed tar.
        target: Receives the tar.
    """
    total, begun = 0, True
    stream = zlib.decompressobj(_GZIP)
    while chunk := packed.read(_CHUNK):
        while chunk:
            try:
                part = stream.decompress(chunk, _PART)
            except zlib.error as error:
                return Damage("corrupt", f"gzip: {error}, near byte {packed.tell()}")
            target.write(part)
            total += len(part)
            if total > MAX_UNPACKED_BYTES:
                return Damage("too_large", f"unpacks to more than {MAX_UNPACKED_BYTES} bytes")
            chunk = stream.unconsumed_tail
            if stream.eof:
                # A file may be several gzip streams one after the other, and be padded with zeros.
                chunk = stream.unused_data.lstrip(b"\0")
                stream = zlib.decompressobj(_GZIP)
                begun = bool(chunk)
            else:
                begun = True
    if begun:
        return Damage("truncated", f"gzip ends early, at byte {packed.tell()}")
    return None
