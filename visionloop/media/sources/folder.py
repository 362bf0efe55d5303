"""A folder or a bucket prefix: every file below it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from visionloop.lake.storage import (
    Storage,
    local_path,
    name_of,
    normalise,
    open_storage,
    scheme_of,
)
from visionloop.media.sources.entries import LABELS, MEDIA, Entry, Member

if TYPE_CHECKING:
    from visionloop.source_config import SourceConfig


# What an export of ours has beside its images or shards.
_SUMMARY, _CLASSES = "visionloop-export.json", "classes.txt"


class FolderSource:
    """A folder or a bucket prefix.

    Args:
        source: Its configuration.
        label_files: URIs of tables of labels, which are no media wherever they lie.
        lake: Root of the lake, whose own files are no media either; empty for none.
    """

    def __init__(
        self, source: SourceConfig, *, label_files: Collection[str] = (), lake: str = ""
    ) -> None:
        self.source = source
        self.root = normalise(source.uri)
        self._lake = below_root(self.root, lake) if lake else ""
        self.storage: Storage = open_storage(self.root)
        self._label_files = frozenset(normalise(uri) for uri in label_files)

    def entries(self) -> Iterator[Entry]:
        """Yield every file below the root with its role."""
        from visionloop.media.listing import with_roles  # which imports this package

        files = self.storage.list(self.root)
        listed = with_roles(self.root, files, label_files=self._label_files, hidden=self._lake)
        for entry in listed:
            if self._is_of_a_set(entry):
                entry = replace(entry, role=LABELS, sidecars=())
            if entry.role == MEDIA and self.source.metadata == "none":
                entry = replace(entry, sidecars=())
            if entry.role == MEDIA and self.source.labels == "folder":
                entry = replace(entry, label=folder_label(entry.info.uri))
            yield entry

    def _is_of_a_set(self, entry: Entry) -> bool:
        name = name_of(entry.info.uri)
        shards = self.source.resolved_kind == "tar"
        return entry.role == MEDIA and (name == _SUMMARY or (shards and name == _CLASSES))

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """A folder has no containers."""
        raise NotImplementedError(f"{entry.info.uri} is no container of a folder")


def below_root(root: str, folder: str) -> str:
    """Return where a listing of a root shows a folder, with a slash; empty where it does not.

    Args:
        root: URI of the root.
        folder: URI of the folder; it may be reached by links.
    """
    if {scheme_of(root), scheme_of(folder)} == {"file"}:
        real, above = (local_path(normalise(uri)).resolve() for uri in (folder, root))
        if not real.is_relative_to(above):
            return ""
        return normalise(str(local_path(root) / real.relative_to(above))).rstrip("/") + "/"
    below = normalise(folder).rstrip("/") + "/"
    return below if below.startswith(root.rstrip("/") + "/") else ""


def folder_label(uri: str) -> str:
    """Return the name of the folder that a file lies in: its label in a folder of classes."""
    parent = uri.rstrip("/").rpartition("/")[0]
    return name_of(parent) if parent else ""
