"""Files that are named one by one, and a pattern in braces that stands for many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from visionloop.lake.anywhere import Anywhere
from visionloop.lake.storage import FileInfo, Storage, StorageError, normalise
from visionloop.media.sources.braces import expand
from visionloop.media.sources.entries import MEDIA, Entry, Member

if TYPE_CHECKING:
    from visionloop.source_config import SourceConfig

_THREADS = 16
_WINDOW = 1024
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def looked_up(uris: Iterable[str], storage: Storage) -> Iterator[tuple[str, FileInfo | None]]:
    """Yield each URI with the file that lies there, or None; several threads ask.

    Args:
        uris: The URIs in the lake's form, in any number.
        storage: Where they lie.

    Raises:
        StorageError: It cannot be told whether a file is there.
    """

    def look(uri: str) -> FileInfo | None:
        try:
            return next((info for info in storage.list(uri) if info.uri == uri), None)
        except StorageError:
            if storage.exists(uri):
                raise
            return None

    waiting = iter(uris)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="look") as pool:
        while window := list(islice(waiting, _WINDOW)):
            yield from zip(window, pool.map(look, window), strict=True)


class BracedSource:
    """The files that a pattern in braces stands for.

    Args:
        source: Its configuration.

    Raises:
        InputError: The pattern cannot be read.
    """

    def __init__(self, source: SourceConfig) -> None:
        self.root = normalise(source.uri)
        self.storage = Anywhere()
        self._uris = sorted(normalise(uri) for uri in expand(source.uri))

    def entries(self) -> Iterator[Entry]:
        """Yield the files, in the order of their URIs."""
        for uri, info in looked_up(self._uris, self.storage):
            yield Entry(info) if info else missing(uri)

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """What the files hold is for `visionloop.media.sources.containers` to tell."""
        raise NotImplementedError(f"{entry.info.uri} is opened as a container")


def nowhere(uri: str) -> FileInfo:
    """Return what is known of a file that is named and not there."""
    return FileInfo(uri, 0, "", _NEVER)


def missing(uri: str) -> Entry:
    """Return the entry of a file that is named and not there."""
    return Entry(nowhere(uri), MEDIA, reason="missing")
