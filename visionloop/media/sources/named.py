"""Files that are named one by one, and a pattern in braces that stands for many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING

from visionloop.lake.anywhere import Anywhere
from visionloop.lake.storage import FileInfo, Storage, StorageError, is_member, normalise
from visionloop.media.sources.braces import expand
from visionloop.media.sources.entries import MEDIA, Entry, Member

if TYPE_CHECKING:
    from visionloop.source_config import SourceConfig

_THREADS = 16
_WINDOW = 1024
# In one folder so many URIs are fewer pages of its listing than requests for each; unless more than
# so many others lie before each of them.
_WORTH_LISTING, _OTHERS = 100, 50
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def looked_up(uris: Iterable[str], storage: Storage) -> Iterator[tuple[str, FileInfo | None]]:
    """Yield each URI with the file that lies there, or None.

    One request tells of one object, or of the next thousand in a listing: where many are named in
    one folder of a bucket, the folder is listed, as long as not too many others lie between them.

    Args:
        uris: The URIs in the lake's form, ascending, in any number.
        storage: Where they lie.

    Raises:
        StorageError: It cannot be told whether a file is there.
    """
    few: list[str] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="look") as pool:
        for folder, group in groupby(uris, key=_folder_to_list):
            waiting = iter(group)
            first = list(islice(waiting, _WINDOW))
            if folder and len(first) >= _WORTH_LISTING:
                yield from _asked(few, storage, pool)
                few = []
                yield from _found(folder, chain(first, waiting), storage, pool)
                continue
            few += first
            while len(few) >= _WINDOW:
                yield from _asked(few, storage, pool)
                few = list(islice(waiting, _WINDOW))
        yield from _asked(few, storage, pool)


def _folder_to_list(uri: str) -> str:
    """Return the folder of an object in a bucket; empty for what is looked up by itself."""
    return uri.rpartition("/")[0] if uri.startswith("gs://") and not is_member(uri) else ""


def _asked(
    uris: Iterable[str], storage: Storage, pool: Executor
) -> Iterator[tuple[str, FileInfo | None]]:
    """Ask for each URI by itself, in several threads."""

    def look(uri: str) -> FileInfo | None:
        try:
            return next((info for info in storage.list(uri) if info.uri == uri), None)
        except StorageError:
            if storage.exists(uri):
                raise
            return None

    waiting = iter(uris)
    while window := list(islice(waiting, _WINDOW)):
        yield from zip(window, pool.map(look, window), strict=True)


def _found(
    folder: str, uris: Iterator[str], storage: Storage, pool: Executor
) -> Iterator[tuple[str, FileInfo | None]]:
    """Look for URIs in the listing of their folder."""
    listed = storage.list(folder)
    info = next(listed, None)
    others = 0
    for done, uri in enumerate(uris):
        while info is not None and info.uri < uri:
            info = next(listed, None)
            others += 1
            if others > _OTHERS * (done + _WORTH_LISTING):
                yield from _asked(chain([uri], uris), storage, pool)
                return
        yield uri, info if info is not None and info.uri == uri else None


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
