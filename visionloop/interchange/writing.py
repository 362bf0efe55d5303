"""What all writers of sets have in common, and how records and their images come to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Literal, Protocol

from visionloop.errors import InputError
from visionloop.interchange.places import stem_of
from visionloop.interchange.records import Annotated, Problems
from visionloop.interchange.target import Target
from visionloop.lake.identity import is_sample
from visionloop.lake.storage import INSIDE, StorageError, local_path, open_storage

Media = Literal["copy", "link", "none"]
# Images that are read ahead.
_WINDOW = 32


@dataclass(frozen=True)
class Holds:
    """What a format can hold besides the names of images; what it cannot is counted as lost.

    Attributes:
        labels: Classes of whole images: 0 none, 1 one an image, 2 several.
        boxes: Objects.
        score: How sure a label or box is.
        attributes: What else is said of a box.
        metadata: What else is known of an image.
        split: Parts such as train and val.
        sample_id: The SHA-256 of the bytes.
        unannotated: Images that nobody annotated.
        apart: What images of the same name may differ in, ``split`` or ``label``: it is a folder.
        media: Ways in which its images can be given.
    """

    labels: int = 0
    boxes: bool = False
    score: bool = False
    attributes: bool = False
    metadata: bool = False
    split: bool = False
    sample_id: bool = False
    unannotated: bool = True
    apart: tuple[str, ...] = ()
    media: tuple[Media, ...] = ("copy", "link", "none")

    def lost(self, record: Annotated) -> Iterator[str]:
        """Yield what of a record the format leaves out."""
        boxes = record.boxes or ()
        if len(record.labels) > self.labels:
            yield "labels"
        if boxes and not self.boxes:
            yield "boxes"
        if not self.score and (
            record.score is not None or any(box.score is not None for box in boxes)
        ):
            yield "scores"
        if self.boxes and not self.attributes and any(box.attributes for box in boxes):
            yield "attributes"
        if record.metadata and not self.metadata:
            yield "metadata"
        if record.split and not self.split:
            yield "splits"


@dataclass
class Classes:
    """The classes of a set: those named before, then those that come up."""

    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._place = {name: i for i, name in enumerate(self.names)}

    def place(self, name: str) -> int:
        """Return the index of a class; a new one gets the next."""
        if name not in self._place:
            self._place[name] = len(self.names)
            self.names.append(name)
        return self._place[name]


class Writer(Protocol):
    """Writes one format."""

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""

    def finish(self) -> None:
        """Write what is known at the end only."""


@dataclass(frozen=True)
class Content:
    """An image's bytes, or where they are to be found.

    Attributes:
        uri: Where they lie.
        media: What is to become of them.
        data: The bytes, where they are copied.
    """

    uri: str
    media: Media
    data: bytes = b""

    def put(self, target: Target, path: str) -> None:
        """Put the image into a set."""
        if self.media == "copy":
            target.write(path, self.data)
        elif self.media == "link":
            target.link(path, self.uri)


@dataclass
class Written:
    """What became of the records; `records` = `written` + all of `left_out`.

    Attributes:
        records: Records that came.
        written: Records that the set holds.
        labels: Classes of whole images in it.
        boxes: Objects in it.
        left_out: Records that it does not hold, by reason.
        lost: Records that it holds without something that the format cannot hold.
        splits: Records of each split.
    """

    records: int = 0
    written: int = 0
    labels: int = 0
    boxes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    def plain(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {
            "records": self.records,
            "written": self.written,
            "labels": self.labels,
            "boxes": self.boxes,
            "left_out": dict(sorted(self.left_out.items())),
            "lost": dict(sorted(self.lost.items())),
            "splits": dict(sorted(self.splits.items())),
        }

    def count(self, record: Annotated, holds: Holds) -> None:
        """Count a record as written."""
        self.written += 1
        self.labels += min(len(record.labels), holds.labels)
        self.boxes += len(record.boxes or ()) if holds.boxes else 0
        self.lost.update(holds.lost(record))
        self.splits[record.split] += 1


class Admission:
    """Lets through the records that a set can take, with their images.

    Args:
        holds: What the format can hold.
        media: What becomes of the images.
        unannotated: Whether images go along that nobody annotated.
        target: Where the set is written to.
        written: Receives the counts of what is left out.
        problems: Receives why.
    """

    def __init__(
        self,
        holds: Holds,
        media: Media,
        unannotated: bool,
        target: Target,
        written: Written,
        problems: Problems,
    ) -> None:
        if media not in holds.media:
            raise InputError(
                f"this format cannot be written with --media {media}: its labels lie beside its "
                "images, or hold them",
                remedy=f"Use --media {' or '.join(holds.media)}",
            )
        if media == "link" and not target.is_local:
            raise InputError(
                "links can only lie on a disk", where=target.uri, remedy="Use --media copy or none"
            )
        self._holds, self._media, self._unannotated = holds, media, unannotated
        self._written, self._problems = written, problems
        self._names: set[int] = set()

    def admit(self, records: Iterable[Annotated]) -> Iterator[tuple[Annotated, Content]]:
        """Yield what is written, each record with its image."""
        pending = iter(records)
        while window := list(islice(pending, _WINDOW)):
            self._written.records += len(window)
            yield from self._supplied([record for record in window if self._fits(record)])

    def _fits(self, record: Annotated) -> bool:
        holds = self._holds
        said = (holds.labels and record.labels) or (holds.boxes and record.boxes is not None)
        bare = self._unannotated and holds.unannotated and not record.annotated
        if not said and not bare:
            kind = "not_held" if record.annotated else "unannotated"
            self._written.left_out[kind] += 1
            return False
        # Names that differ in case only would be one file on many disks.
        place = [record.split if "split" in holds.apart else ""]
        place += record.labels[:1] if "label" in holds.apart else []
        name = hash((*place, stem_of(record.file).casefold()))
        if name in self._names:
            self._leave_out("duplicate_name", record, "another image has this name")
            return False
        self._names.add(name)
        return True

    def _leave_out(self, kind: str, record: Annotated, detail: str) -> None:
        self._written.left_out[kind] += 1
        self._problems.add(kind, record.file, "", detail)

    def _supplied(self, window: Sequence[Annotated]) -> Iterator[tuple[Annotated, Content]]:
        if self._media == "none":
            for record in window:
                yield record, Content(record.uri, "none")
            return
        there: list[Annotated] = []
        for record in window:
            if not record.uri:
                self._leave_out("missing_file", record, "it is not known where the image lies")
            elif self._media == "link" and not _is_here(record.uri):
                self._leave_out("missing_file", record, f"no file on this machine: {record.uri}")
            else:
                there.append(record)

        def place(record: Annotated) -> str:
            return record.uri.partition(INSIDE)[0].rpartition("/")[0]

        for _, run in groupby(there, place):
            group = list(run)
            uris = [record.uri for record in group]
            for record, (_, data) in zip(group, open_storage(uris[0]).read_many(uris), strict=True):
                if isinstance(data, StorageError):
                    self._leave_out("missing_file", record, str(data))
                elif self._is_its_own(record, data):
                    yield record, Content(record.uri, self._media, data)

    def _is_its_own(self, record: Annotated, data: bytes) -> bool:
        # A record's annotations are of the bytes that its id was made of.
        same = not record.sample_id or is_sample(record.sample_id, data)
        if not same:
            self._leave_out("changed_file", record, f"overwritten since: {record.uri}")
        return same


def _is_here(uri: str) -> bool:
    return uri.startswith("file://") and local_path(uri).is_file()
