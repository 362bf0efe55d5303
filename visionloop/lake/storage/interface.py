"""What every storage can do, and how it says that it could not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from visionloop.errors import VisionloopError


@dataclass(frozen=True)
class FileInfo:
    """One object or file as a listing found it.

    Attributes:
        uri: Where it lies.
        size: Bytes.
        generation: What changes whenever the bytes do: the object's generation, or a file's
            modification time in nanoseconds.
        updated: When it was last written, UTC.
    """

    uri: str
    size: int
    generation: str
    updated: datetime


class StorageError(VisionloopError):
    """An object could not be read or written."""


class ObjectChanged(StorageError):
    """An object was overwritten or removed after it had been listed."""


class Storage(Protocol):
    """What can be done with bytes at a URI."""

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield what lies under a prefix, in the order of its URIs."""

    def read(self, uri: str) -> bytes:
        """Return an object's bytes; raises `StorageError` when it cannot be read."""

    def read_listed(self, info: FileInfo) -> bytes:
        """Return the bytes of the generation that a listing found, and of no other.

        Raises:
            ObjectChanged: Another generation lies there now.
            StorageError: It cannot be read.
        """

    def read_range(self, uri: str, start: int, length: int, generation: str = "") -> bytes:
        """Return a part of an object's stored bytes, shorter only at its end.

        Args:
            uri: The object.
            start: The first byte, from 0.
            length: How many.
            generation: The one that a listing found; empty takes whichever lies there.

        Raises:
            ObjectChanged: Another generation lies there.
            StorageError: It cannot be read.
        """

    def write(self, uri: str, data: bytes) -> None:
        """Replace an object whole: a reader sees the old bytes or the new, never a part."""

    def exists(self, uri: str) -> bool:
        """Whether an object or a folder lies there."""

    def delete(self, uri: str) -> None:
        """Remove an object; one that is not there is no error."""

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given, read by several threads.

        Memory holds `visionloop.lake.storage.reading.AHEAD_BYTES` and one object a thread.
        """

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy what lies under a prefix into a local folder, and return the folder."""

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a local folder under a prefix; existing objects are replaced."""


def stored_generation(generation: str) -> str:
    """Return an object's own generation.

    Sources append to it how they take a file (``;listed``, frames of a video), so that a file
    which is taken in another way is read again.
    """
    return generation.partition(";")[0]


def changed(uri: str) -> ObjectChanged:
    """Return the error of an object that is not what a listing found."""
    return ObjectChanged(
        "the object was overwritten after it was listed",
        where=uri,
        remedy="Run this again: it is listed with its new bytes",
    )
