"""Where images come from: each kind of source lists what it holds, in one way.

`open_source` returns the one that the configuration names. A listing streams: memory does not grow
with the number of files. What a container holds is read only where the lake does not know the
container yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Protocol

from visionloop.errors import VisionloopError
from visionloop.media.sources.entries import (
    CONTAINER,
    HIDDEN,
    INSIDE,
    LABELS,
    MEDIA,
    REPEATED,
    ROW,
    SIDECAR,
    Entry,
    Member,
)

if TYPE_CHECKING:
    from visionloop.lake.storage import Storage
    from visionloop.source_config import SourceConfig

__all__ = [
    "CONTAINER",
    "HIDDEN",
    "INSIDE",
    "LABELS",
    "MEDIA",
    "OPENERS",
    "REPEATED",
    "ROW",
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
    def root(self) -> str:
        """Its URI in the lake's form."""

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


# Sources that are read by rooms which import this one: `visionloop.stages.sources` puts them here.
OPENERS: dict[str, Callable[[SourceConfig], Source]] = {}


def open_source(
    source: SourceConfig, *, label_files: Collection[str] = (), lake: str = ""
) -> Source:
    """Return the source that a configuration names.

    Args:
        source: One of the configuration's sources.
        label_files: URIs of tables of labels, which are no media wherever they lie.
        lake: Root of the lake, whose own files are no media either; empty for none.

    Raises:
        InputError: Its URI cannot be used.
        VisionloopError: The room that reads it is not there.
    """
    kind = source.resolved_kind
    if opener := OPENERS.get(kind):
        return opener(source)
    inner: Source
    if kind == "annotated":
        from visionloop.media.sources.annotated import AnnotatedSource

        inner = AnnotatedSource(source)
    elif kind == "list":
        from visionloop.media.sources.list_file import ListSource

        inner = ListSource(source)
    elif kind == "tar" and "{" in source.uri:
        from visionloop.media.sources.named import BracedSource

        inner = BracedSource(source)
    elif kind == "events":
        raise VisionloopError(f"nothing opens sources of kind {kind}", where=source.uri)
    else:
        # Not above: `visionloop.media.listing`, which it imports, imports this package.
        from visionloop.media.sources.folder import FolderSource

        inner = FolderSource(source, label_files=label_files, lake=lake)
    if kind == "tar" or source.video is not None:
        from visionloop.media.sources.containers import OpenedContainers

        inner = OpenedContainers(inner, source)
    if source.metadata != "none" and (source.pattern or kind in ("folder", "tar")):
        from visionloop.media.sources.described import DescribedSource

        inner = DescribedSource(inner, source)
    return inner
