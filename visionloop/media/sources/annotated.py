"""An annotated set of another tool: its images, with the labels, boxes and metadata that it has.

The set is read once, its records lie in a temporary file; memory holds the URI and the place of
each. An image that the set speaks of and that is not there is ``missing``; one that it speaks of
twice counts once. What is wrong in the set itself is told in the log.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from visionloop.lake.anywhere import Anywhere
from visionloop.lake.archive_storage import temporary
from visionloop.lake.storage import join, normalise
from visionloop.media.sources.entries import MEDIA, REPEATED, Entry, Member
from visionloop.media.sources.named import looked_up, missing, nowhere
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.interchange.records import Annotated
    from visionloop.source_config import SourceConfig


class AnnotatedSource:
    """An annotated set.

    Args:
        source: Its configuration.
    """

    def __init__(self, source: SourceConfig) -> None:
        self.root = normalise(source.uri)
        self.storage = Anywhere()
        self._source = source

    def entries(self) -> Iterator[Entry]:
        """Yield the images of the set, in the order of their URIs."""
        with temporary() as spool:
            places = sorted(self._spooled(spool))
            before = ""
            found = looked_up((uri for uri, _ in places), self.storage)
            for (_, place), (uri, info) in zip(places, found, strict=True):
                if uri == before:
                    yield Entry(nowhere(uri), REPEATED)
                elif info is None:
                    yield missing(uri)
                else:
                    spool.seek(place)
                    yield Entry(info, MEDIA, **self._said(pickle.load(spool)))
                before = uri

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """A set's images are files."""
        raise NotImplementedError(f"{entry.info.uri} is no container of a set")

    def _spooled(self, spool: IO[bytes]) -> Iterator[tuple[str, int]]:
        """Write the records to a file, and yield the URI and the place of each."""
        from visionloop.interchange.formats import ReadOptions, read_set
        from visionloop.interchange.records import Problems

        problems = Problems()
        options = ReadOptions(media=self._source.media)
        for record in read_set(
            self._source.format, self._source.uri, problems=problems, options=options
        ):
            uri = record.uri or join(self.root, *record.file.strip("/").split("/"))
            yield normalise(uri), spool.tell()
            pickle.dump(record, spool, pickle.HIGHEST_PROTOCOL)
        for line in problems.lines():
            log(f"{self._source.uri}: {line}")

    def _said(self, record: Annotated) -> dict[str, Any]:
        """Return what an entry says of a record."""
        told: dict[str, Any] = {}
        if self._source.metadata != "none":
            told["values"] = dict(record.metadata)
            if record.split:
                told["values"].setdefault("split", record.split)
            if len(record.labels) > 1:
                # The loop knows one class an image; which of several is not ours to say.
                told["values"].setdefault("labels", list(record.labels))
        if self._source.brings_labels:
            if len(record.labels) == 1:
                told["label"] = record.labels[0]
            if record.boxes is not None:
                told["boxes"] = tuple(_box(box) for box in record.boxes)
        return told


def _box(box: Any) -> dict[str, Any]:
    """Return a row of the column `labels.boxes`."""
    scores = list(box.scores) or ([box.score] if box.score is not None else None)
    edges = {name: float(getattr(box, name)) for name in ("x_min", "y_min", "x_max", "y_max")}
    return {**edges, "label": box.label, "scores": scores}
