"""Where images come from: each kind of source lists what it holds, in one way.

`open_source` returns the one that the configuration names. A listing streams: memory does not grow
with the number of files. What a container holds is read only where the lake does not know the
container yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Protocol

from visionloop.media.sources.entries import (
    CONTAINER,
    HIDDEN,
    INSIDE,
    LABELS,
    MEDIA,
    SIDECAR,
    Entry,
    Member,
)
from visionloop.media.sources.folder import FolderSource

if TYPE_CHECKING:
    from visionloop.config import SourceConfig
    from visionloop.lake.storage import Storage

__all__ = [
    "CONTAINER",
    "HIDDEN",
    "INSIDE",
    "LABELS",
    "MEDIA",
    "SIDECAR",
    "Entry",
    "Member",
    "Source",
    "open_source",
]


class Source(Protocol):
    """A place that images come from.

    Attributes:
        root: Its URI in the lake's form: the column `source` of files and samples.
    """

    @property
    def root(self) -> str: ...

    @property
    def storage(self) -> Storage:
        """What reads the bytes of an entry and of its sidecars."""

    def entries(self) -> Iterator[Entry]:
        """Yield what lies there, in the order of the URIs, nothing twice; memory does not grow.

        Raises:
            StorageError: It cannot be listed.
        """

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """Yield what a container holds, in an order that is always the same, and nothing twice.

        What is damaged is a member without bytes that says why; the members before the damage stay.

        Args:
            entry: An entry with the role ``container``.
            skip: Leave out so many at the beginning: an earlier run has read them.

        Raises:
            StorageError: The container cannot be read now; the next ingest tries again.
        """


def open_source(source: SourceConfig, *, label_files: Collection[str] = ()) -> Source:
    """Return the source that a configuration names.

    Args:
        source: One of the configuration's sources.
        label_files: URIs of tables of labels, which are no media wherever they lie.

    Raises:
        InputError: Its URI cannot be used.
    """
    return FolderSource(source, label_files=label_files)
