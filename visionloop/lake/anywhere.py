"""One storage for URIs of every kind: files, objects, members of tars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from visionloop.lake.archive_storage import ArchiveStorage
from visionloop.lake.storage import (
    FileInfo,
    Storage,
    StorageError,
    open_storage,
    read_together,
    storage_of,
)


class Anywhere:
    """Reads and writes each URI where it lies.

    Args:
        spool: As of `visionloop.lake.archive_storage.Archive`.
    """

    def __init__(self, *, spool: bool = False) -> None:
        self.archives = ArchiveStorage(spool=spool)
        self._held: dict[str, Storage] = {"archive": self.archives}

    def of(self, uri: str) -> Storage:
        """Return what reads a URI."""
        key = storage_of(uri)
        if key not in self._held:
            self._held[key] = open_storage(uri)
        return self._held[key]

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield what lies at or under a prefix, in the order of its URIs."""
        return self.of(prefix).list(prefix)

    def read(self, uri: str) -> bytes:
        """Return an object's bytes."""
        return self.of(uri).read(uri)

    def read_listed(self, info: FileInfo) -> bytes:
        """Return the bytes that a listing found, see `visionloop.lake.storage.Storage`."""
        return self.of(info.uri).read_listed(info)

    def read_range(self, uri: str, start: int, length: int, generation: str = "") -> bytes:
        """Return a part of an object's bytes, see `visionloop.lake.storage.Storage`."""
        return self.of(uri).read_range(uri, start, length, generation)

    def write(self, uri: str, data: bytes) -> None:
        """Replace an object."""
        self.of(uri).write(uri, data)

    def exists(self, uri: str) -> bool:
        """Whether an object or a folder lies there."""
        return self.of(uri).exists(uri)

    def delete(self, uri: str) -> None:
        """Remove an object."""
        self.of(uri).delete(uri)

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given."""
        return read_together(self, uris, threads)

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy what lies under a prefix into a local folder."""
        return self.of(prefix).download(prefix, directory)

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a local folder under a prefix."""
        self.of(prefix).upload(directory, prefix)
