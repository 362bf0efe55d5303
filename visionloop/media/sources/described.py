"""A source whose files are described elsewhere: by their paths, and by a table beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import unquote

from visionloop.errors import InputError
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.archives import is_tar
from visionloop.lake.storage import Storage, join, normalise, relative, scheme_of
from visionloop.media.metadata_table import NAMES, MetadataTable
from visionloop.media.sources.entries import CONTAINER, INSIDE, MEDIA, ROW, SIDECAR, Entry, Member
from visionloop.media.sources.named import nowhere
from visionloop.path_pattern import PathPattern
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.lake.storage import FileInfo
    from visionloop.media.sources import Source
    from visionloop.source_config import SourceConfig

_OF_FOLDERS = ("folder", "tar")


class DescribedSource:
    """A source, and what its paths and its table of metadata say.

    A member of an archive is matched by its name in the archive, a frame by the path of its video.

    Args:
        inner: What lists the files.
        source: Its configuration.
    """

    def __init__(self, inner: Source, source: SourceConfig) -> None:
        self._inner = inner
        self._pattern = PathPattern(source.pattern) if source.pattern else None
        self._named = normalise(source.metadata_table) if source.metadata_table else ""
        # What one file or a pattern of shards names has no folder in which a table could lie.
        self._looks = source.resolved_kind in _OF_FOLDERS and "{" not in source.uri
        is_list = source.resolved_kind == "list"
        self._above = inner.root.rpartition("/")[0] if is_list else inner.root
        self._tars = source.resolved_kind == "tar"
        self._opened: tuple[MetadataTable | None] | None = None

    @property
    def root(self) -> str:
        """The URI of the source."""
        return self._inner.root

    @property
    def storage(self) -> Storage:
        """What reads its files."""
        return self._inner.storage

    def entries(self) -> Iterator[Entry]:
        """Yield what the source lists, each file with what is said of it."""
        self._opened = None  # a table that has changed is read anew by each listing
        table = self._table()
        for entry in self._inner.entries():
            if table is not None and entry.info.uri == table.uri:
                yield dataclasses.replace(entry, role=SIDECAR, sidecars=(), label="")
            elif _is_described(entry):
                yield self._described(entry, self._path(entry.info.uri))
            else:
                yield entry
        # What an archive holds is not listed before it is opened.
        if table is not None and not self._tars:
            yield from _without_file(table)

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """Yield what a container holds, each with what is said of it."""
        in_archive = is_tar(entry.info.uri)
        for member in self._inner.members(entry, skip):
            if in_archive and member.data is not None:
                name = member.entry.info.uri.removeprefix(entry.info.uri + INSIDE)
                name = unquote(name) if scheme_of(entry.info.uri) == "file" else name
                described = self._described(member.entry, name)
                member = dataclasses.replace(member, entry=described)
            yield member

    def _described(self, entry: Entry, path: str) -> Entry:
        if self._pattern is not None:
            entry = dataclasses.replace(entry, path=self._pattern.values(path) or {})
        table = self._table()
        if table is not None and (told := table.values(entry.info.uri)):
            entry = dataclasses.replace(entry, table=told)
        return entry

    def _path(self, uri: str) -> str:
        below = uri.startswith(self._above.rstrip("/") + "/")
        path = relative(self._above, uri) if below else unquote(uri.partition("://")[2])
        # A name on a disk need not be UTF-8; what is told of it has to be.
        return path.encode("utf-8", "replace").decode()

    def _table(self) -> MetadataTable | None:
        if self._opened is None:
            info = self._found()
            self._opened = (MetadataTable(info) if info is not None else None,)
        return self._opened[0]

    def _found(self) -> FileInfo | None:
        anywhere = Anywhere()
        if self._named:
            info = _file(anywhere, self._named)
            if info is None:
                raise InputError(
                    "there is no such table of metadata",
                    where=self._named,
                    remedy="Correct `metadata_table` of the source",
                )
            return info
        if not self._looks or is_tar(self.root):
            return None
        found = [_file(anywhere, join(self.root, name)) for name in NAMES]
        there = [info for info in found if info is not None]
        if len(there) > 1:
            raise InputError(
                f"the source has {len(there)} tables of metadata",
                where=" and ".join(info.uri for info in there),
                remedy="Keep one of them, or name it in the source's `metadata_table`",
            )
        return there[0] if there else None


def _is_described(entry: Entry) -> bool:
    """Return whether it is an image, or a video whose frames share what is said of it."""
    if entry.reason:
        return False
    video = entry.role == CONTAINER and not is_tar(entry.info.uri)
    return entry.role == MEDIA or video


def _without_file(table: MetadataTable) -> Iterator[Entry]:
    """Yield an entry for each row that names no file, and say which ones."""
    n, examples = table.unmet()
    if n:
        told = f", {table.n_nameless:,} of them nothing at all" if table.n_nameless else ""
        shown = f": {', '.join(examples)}{' …' if n > 3 else ''}" if examples else ""
        log(f"{table.uri}: {n:,} rows name no file of the source{told}{shown}")
    for _ in range(n):
        yield Entry(nowhere(table.uri), ROW)


def _file(anywhere: Anywhere, uri: str) -> FileInfo | None:
    if not anywhere.exists(uri):
        return None
    return next((info for info in islice(anywhere.list(uri), 1) if info.uri == uri), None)
