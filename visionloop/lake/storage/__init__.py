"""Bytes by URI: ``file://`` (or a plain path) and ``gs://``.

Everything that reads or writes media, models and event segments goes through here, so that a lake
is the same thing on a laptop and in a bucket.
"""

from __future__ import annotations

from pathlib import Path

from visionloop.lake.storage.files import FileStorage
from visionloop.lake.storage.google import GoogleCloudStorage
from visionloop.lake.storage.interface import FileInfo, ObjectChanged, Storage, StorageError
from visionloop.lake.storage.reading import read_together
from visionloop.lake.storage.uris import (
    INSIDE,
    is_member,
    join,
    local_path,
    name_of,
    normalise,
    relative,
    scheme_of,
    split_member,
    storage_of,
)

__all__ = [
    "INSIDE",
    "FileInfo",
    "FileStorage",
    "GoogleCloudStorage",
    "ObjectChanged",
    "Storage",
    "StorageError",
    "is_member",
    "join",
    "local_path",
    "name_of",
    "normalise",
    "open_storage",
    "read_together",
    "relative",
    "scheme_of",
    "split_member",
    "storage_of",
]


def open_storage(uri: str | Path) -> Storage:
    """Return the storage that a URI's scheme names, or the one of files inside tar archives.

    Raises:
        InputError: The scheme is not supported.
    """
    if is_member(str(uri)):
        from visionloop.lake.archive_storage import ArchiveStorage

        return ArchiveStorage()
    match scheme_of(str(uri)):
        case "gs":
            return GoogleCloudStorage()
        case _:
            return FileStorage()
