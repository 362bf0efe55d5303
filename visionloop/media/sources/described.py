"""A source whose files are described elsewhere: by their paths, and by a table beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.archives import is_tar
from visionloop.lake.storage import Storage, join, normalise, relative
from visionloop.media.metadata_table import NAMES, MetadataTable
from visionloop.media.sources.entries import CONTAINER, INSIDE, MEDIA, SIDECAR, Entry, Member
from visionloop.path_pattern import PathPattern

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

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """Yield what a container holds, each with what is said of it."""
        in_archive = is_tar(entry.info.uri)
        for member in self._inner.members(entry, skip):
            if in_archive and member.data is not None:
                name = member.entry.info.uri.partition(INSIDE)[2]
                described = self._described(member.entry, name)
                member = dataclasses.replace(member, entry=described)
            yield member

    def _described(self, entry: Entry, path: str) -> Entry:
        if self._pattern is not None:
            entry = dataclasses.replace(entry, path=self._pattern.values(path) or {})
        table = self._table()
        if table is not None and (told := table.values(entry.info.uri)):
            values: Mapping[str, Any] = {**told, **entry.values}
            entry = dataclasses.replace(entry, values=values)
        return entry

    def _path(self, uri: str) -> str:
        below = uri.startswith(self._above.rstrip("/") + "/")
        return relative(self._above, uri) if below else uri.partition("://")[2]

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


def _file(anywhere: Anywhere, uri: str) -> FileInfo | None:
    if not anywhere.exists(uri):
        return None
    return next((info for info in islice(anywhere.list(uri), 1) if info.uri == uri), None)
