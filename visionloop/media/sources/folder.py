"""A folder or a bucket prefix: every file below it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from visionloop.lake.storage import Storage, name_of, normalise, open_storage
from visionloop.media.sources.entries import MEDIA, Entry, Member

if TYPE_CHECKING:
    from visionloop.source_config import SourceConfig


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
        from visionloop.media.listing import with_roles  # which imports this package

        files = self.storage.list(self.root)
        for entry in with_roles(self.root, files, label_files=self._label_files):
            if entry.role == MEDIA and self.source.metadata == "none":
                entry = replace(entry, sidecars=())
            if entry.role == MEDIA and self.source.labels == "folder":
                entry = replace(entry, label=folder_label(entry.info.uri))
            yield entry

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """A folder has no containers."""
        raise NotImplementedError(f"{entry.info.uri} is no container of a folder")


def folder_label(uri: str) -> str:
    """Return the name of the folder that a file lies in: its label in a folder of classes."""
    parent = uri.rstrip("/").rpartition("/")[0]
    return name_of(parent) if parent else ""
