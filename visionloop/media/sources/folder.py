"""A folder or a bucket prefix: every file below it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from visionloop.lake.storage import FileInfo, Storage, normalise, open_storage
from visionloop.media.listing import by_role
from visionloop.media.sources.entries import HIDDEN, LABELS, MEDIA, SIDECAR, Entry, Member

if TYPE_CHECKING:
    from visionloop.config import SourceConfig


class FolderSource:
    """A folder or a bucket prefix.

    Args:
        source: Its configuration.
        label_files: URIs of tables of labels, which are no media wherever they lie.
    """

    def __init__(self, source: SourceConfig, *, label_files: Collection[str] = ()) -> None:
        self.source = source
        self.root = normalise(source.uri)
        self.storage: Storage = open_storage(self.root)
        self._label_files = frozenset(normalise(uri) for uri in label_files)

    def entries(self) -> Iterator[Entry]:
        """Yield every file below the root with its role."""
        files = list(self.storage.list(self.root))
        listing = by_role(self.root, files, label_files=self._label_files)
        by_uri = {info.uri: info for info in files}
        media = {info.uri for info in listing.media}
        sidecars = set(listing.sidecars.values())
        for info in sorted(files, key=lambda info: info.uri):
            if info.uri in media:
                beside = listing.sidecars.get(info.uri)
                found: tuple[FileInfo, ...] = (by_uri[beside],) if beside else ()
                yield Entry(info, MEDIA, found if self.source.metadata == "sidecar" else ())
            elif info.uri in self._label_files:
                yield Entry(info, LABELS)
            else:
                yield Entry(info, SIDECAR if info.uri in sidecars else HIDDEN)

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """A folder has no containers."""
        raise NotImplementedError(f"{entry.info.uri} is no container of a folder")
