"""Files of events: found under a URI, read from where the last harvest stopped.

What is read: ``*.events.jsonl`` and ``*.events.jsonl.gz`` (the collector's segments, and recorded
events), and the objects of KServe's blob logger (``…-request.json``, ``…-response.csv`` and the
like). Everything else under the URI is left alone.

A segment may still be growing: a last line without its line break is read once it is whole. What a
file grew by is read at the next harvest, by the ledger's number of bytes; a gzip file that grew is
unpacked again, and the lines that were read are skipped. An object of the blob logger is read again
when its generation is another one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.lake.storage import (
    FileInfo,
    Storage,
    StorageError,
    local_path,
    normalise,
    open_storage,
    scheme_of,
)
from visionloop.serving.blobs import blob_events
from visionloop.serving.bodies import Undecodable, parse_json
from visionloop.serving.events import Event, broken_event, parse_line
from visionloop.serving.refusals import BEGINNING, read

if TYPE_CHECKING:
    import pyarrow as pa

# No logged request is larger; a longer line is counted, and skipped without being kept.
MAX_LINE_BYTES = 512 * 1024 * 1024
# A gzip file that unpacks to more is read so far: a decompression bomb.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024 * 1024

_CHUNK = 1024 * 1024
_SEGMENT = re.compile(r"\.events\.jsonl(\.gz)?$")
_BLOB = re.compile(r"-(request|response)\.(json|csv)$")


@dataclass(frozen=True)
class Position:
    """How far a file was read.

    Attributes:
        bytes_read: Bytes of the file, or of all of it for a gzip file or an object.
        lines_read: Lines of it, broken ones included.
        generation: Of an object of the blob logger, as its listing told: it is overwritten where an
            id comes again. Empty where it is not known.
    """

    bytes_read: int = 0
    lines_read: int = 0
    generation: str = ""


def find(uri: str) -> list[FileInfo]:
    """List the files of events at or under a URI, in the order of their URIs.

    Raises:
        InputError: There is nothing at the URI, or a single file that holds no events.
    """
    storage = open_storage(uri)
    try:
        found = list(storage.list(uri))
    except StorageError as error:
        raise InputError(
            "there are no events to harvest", where=uri,
            remedy="Name a file or folder of *.events.jsonl files, as `visionloop collect` "
            "writes them",
        ) from error  # fmt: skip
    wanted = [info for info in found if _SEGMENT.search(info.uri) or _BLOB.search(info.uri)]
    if not wanted and len(found) == 1 and found[0].uri == normalise(uri):
        raise InputError(
            "this file holds no events", where=uri,
            remedy="Events lie in files named *.events.jsonl or *.events.jsonl.gz",
        )  # fmt: skip
    return sorted(wanted, key=lambda info: info.uri)


def is_blob(uri: str) -> bool:
    """Return whether a file is an object of KServe's blob logger, which holds one delivery."""
    return _BLOB.search(uri) is not None


def is_unread(info: FileInfo, position: Position) -> bool:
    """Return whether a file holds more, or something else, than was read of it.

    A segment is only ever appended to, or lines of it are blanked by an erasure.
    """
    other = is_blob(info.uri) and position.generation not in ("", info.generation)
    return other or info.size != position.bytes_read


def positions(ledger: pa.Table) -> dict[str, Position]:
    """Return how far each file was read, by its URI.

    Args:
        ledger: Rows of `harvest_ledger`.
    """
    return {
        row["uri"]: Position(row["bytes_read"], row["lines_read"], row["generation"] or "")
        for row in ledger.sort_by("harvested_at").to_pylist()
    }


class Reader:
    """Reads the new events of one file.

    Attributes:
        position: How far the file is read, right once the events are used up.
        refused: Events that the collector refused, by reason, as the lines say that were read.
    """

    def __init__(self, info: FileInfo, position: Position) -> None:
        # A file that shrank is another file: it is read whole, and known events count as repeated.
        self.position = position if position.bytes_read <= info.size else Position()
        self._info = info
        self._storage: Storage = open_storage(info.uri)
        self._skip = 0
        self.refused: Counter[str] = Counter()

    def events(self) -> Iterator[Event]:
        """Yield the events that were not read before.

        Raises:
            StorageError: The file cannot be read.
        """
        uri = self._info.uri
        if _BLOB.search(uri):
            data = self._storage.read(uri)
            events = list(blob_events(data, uri))
            # The listing's: one that was overwritten since then is read again.
            self.position = Position(len(data), len(events), self._info.generation)
            yield from events
        elif uri.endswith(".gz"):
            yield from self._gzip()
        else:
            yield from self._plain()

    def _open(self) -> IO[bytes]:
        uri = self._info.uri
        if scheme_of(uri) == "file":
            try:
                return local_path(uri).open("rb")
            except OSError as error:
                raise StorageError(f"cannot read: {error.strerror}", where=uri) from error
        return io.BytesIO(self._storage.read(uri))

    def _plain(self) -> Iterator[Event]:
        with self._open() as file:
            file.seek(self.position.bytes_read)
            yield from self._lines(file, counted=True)

    def _gzip(self) -> Iterator[Event]:
        skip = self._skip = self.position.lines_read
        self.position = Position()
        with self._open() as packed, gzip.GzipFile(fileobj=packed) as plain:
            for event in self._lines(plain, counted=False):
                if event.line > skip:
                    yield event
        self.position = Position(self._info.size, self.position.lines_read)

    def _lines(self, file: IO[bytes] | gzip.GzipFile, *, counted: bool) -> Iterator[Event]:
        for line, ended, size in _split(file):
            if isinstance(line, bytes) and not ended and not _whole(line):
                return  # torn: the writer is at work, or was killed
            number = self.position.lines_read + 1
            self.position = Position(self.position.bytes_read + (size if counted else 0), number)
            if isinstance(line, str):
                yield broken_event(line, "line_too_long", self._info.uri, number)
            elif line.startswith(BEGINNING):
                if number > self._skip:
                    self.refused += read(line)
            elif line.strip():
                yield from parse_line(line, uri=self._info.uri, number=number)


def _split(file: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[bytes | str, bool, int]]:
    """Yield lines as ``(bytes, or the digest of one too long; whether it ended; its size)``."""
    total = 0
    parts: list[bytes] = []
    size = 0
    digest = None
    while total < MAX_UNPACKED_BYTES:
        try:
            chunk = file.readline(_CHUNK)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            chunk = b""  # a gzip file that is cut or broken: what came before counts
        if not chunk:
            break
        total += len(chunk)
        size += len(chunk)
        if digest is None:
            parts.append(chunk)
            if size > MAX_LINE_BYTES:
                digest = hashlib.sha256(b"".join(parts))
                parts = []
        else:
            digest.update(chunk)
        if chunk.endswith(b"\n"):
            yield (digest.hexdigest() if digest else b"".join(parts)), True, size
            parts, size, digest = [], 0, None
    if size:
        yield (digest.hexdigest() if digest else b"".join(parts)), False, size


def _whole(line: bytes) -> bool:
    """Return whether a last line without a line break is whole: no part of an object is one."""
    try:
        value, rest = parse_json(line)
    except Undecodable:
        return False
    return isinstance(value, dict) and not rest.strip()
