"""Reads every byte of files for traces of samples: what is compressed is unpacked first."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from visionloop.lake.erasing.traces import ID, Traces
from visionloop.lake.storage import FileInfo, Storage, local_path, name_of, scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable

# A larger file is read in pieces of this size.
PIECE = 64 * 2**20
_ROWS = 65_536
_GZIP = 1 << 20


@dataclass
class Scanner:
    """Looks for traces in files, and counts what it read.

    Attributes:
        traces: What is looked for.
        files: Number of files that were read.
        bytes: Their size.
        unpacked: Bytes that were read from what was compressed in them.
        undecoded: Files that look compressed and cannot be unpacked: what they hold is not known.
    """

    traces: Traces
    files: int = 0
    bytes: int = 0
    unpacked: int = 0
    undecoded: list[str] = field(default_factory=list)

    def file(self, storage: Storage, info: FileInfo) -> set[str]:
        """Return what kinds of traces a file holds, in its name too.

        Raises:
            StorageError: It cannot be read.
        """
        self.files += 1
        self.bytes += info.size
        found = self.traces.in_text(name_of(info.uri)) & {ID}
        sha256 = hashlib.sha256()
        head = b""
        rest = b""
        for piece in _pieces(storage, info):
            head = head or piece[:8]
            sha256.update(piece)
            found |= self.traces.in_bytes(rest + piece if rest else piece)
            rest = piece[-self.traces.longest :]
        if sha256.hexdigest() in self.traces.ids:
            found.add(ID)
        for magic, unpack in _PACKED.items():
            if head.startswith(magic):
                found |= self._unpacked(storage, info, unpack)
        return found

    def _unpacked(
        self, storage: Storage, info: FileInfo, unpack: Callable[[Any], Iterator[Any]]
    ) -> set[str]:
        found: set[str] = set()
        rest = b""
        with _opened(storage, info) as stream:
            try:
                for part in unpack(stream):
                    if isinstance(part, bytes):
                        self.unpacked += len(part)
                        found |= self.traces.in_bytes(rest + part)
                        rest = part[-self.traces.longest :]
                    elif isinstance(part, str):
                        found |= self.traces.in_text(part)
                    else:
                        self.unpacked += part.nbytes
                        found |= self.traces.in_column(part)
            except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile):
                # Damaged, or only looks so: what it holds is packed, and nobody knows.
                self.undecoded.append(info.uri)
        return found


def _pieces(storage: Storage, info: FileInfo) -> Iterator[bytes]:
    if info.size <= PIECE:
        yield storage.read(info.uri)
        return
    for start in range(0, info.size, PIECE):
        yield storage.read_range(info.uri, start, PIECE)


def _opened(storage: Storage, info: FileInfo) -> Any:
    if scheme_of(info.uri) == "file":
        return local_path(info.uri).open("rb")
    return io.BytesIO(storage.read(info.uri))


def _parquet(stream: Any) -> Iterator[pa.ChunkedArray | pa.Array | str]:
    """Yield a file's columns, and the bounds that its footer has of them."""
    file = pq.ParquetFile(stream)
    for group in range(file.num_row_groups):
        for number in range(file.metadata.num_columns):
            bounds = file.metadata.row_group(group).column(number).statistics
            if bounds is not None and bounds.has_min_max:
                for bound in (bounds.min, bounds.max):
                    if isinstance(bound, str):
                        yield bound
                    elif isinstance(bound, bytes):
                        yield pa.array([bound])
    for batch in file.iter_batches(_ROWS):
        yield from batch.columns


def _avro(stream: Any) -> Iterator[bytes]:
    """Yield the blocks of an Avro file."""
    if stream.read(4) != b"Obj\x01":
        raise ValueError("no Avro file")
    told: dict[str, bytes] = {}
    while count := _long(stream):
        if count < 0:
            _long(stream)
        for _ in range(abs(count)):
            name = stream.read(_long(stream)).decode()
            told[name] = stream.read(_long(stream))
    codec = told.get("avro.codec", b"null")
    if codec not in (b"null", b"deflate"):
        raise ValueError(f"an Avro codec that is not known: {codec!r}")
    stream.read(16)
    while True:
        try:
            _long(stream)
        except EOFError:
            return
        block = stream.read(_long(stream))
        yield zlib.decompress(block, -15) if codec == b"deflate" else block
        stream.read(16)


def _long(stream: Any) -> int:
    value = shift = 0
    while True:
        byte: bytes = stream.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)


def _gzip(stream: Any) -> Iterator[bytes]:
    held = bytearray()
    # Of a torn one all is read that unpacks.
    with contextlib.suppress(EOFError), gzip.GzipFile(fileobj=stream) as plain:
        while piece := plain.read1(_GZIP):
            held += piece
            if len(held) >= PIECE:
                yield bytes(held)
                held.clear()
    yield bytes(held)


def _zip(stream: Any) -> Iterator[bytes | str]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            yield member.filename
            with archive.open(member) as plain:
                while piece := plain.read(PIECE):
                    yield piece


# By what a file begins with. Everything else (SQLite, JSON, CSV, ONNX, images) is not compressed,
# or holds pixels.
_PACKED: dict[bytes, Callable[[Any], Iterator[Any]]] = {
    b"PAR1": _parquet,
    b"Obj\x01": _avro,
    b"\x1f\x8b": _gzip,
    b"PK\x03\x04": _zip,
}
