"""What the sources hold that the lake does not know yet: the listing, and how it is kept."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.storage import normalise, scheme_of
from visionloop.media import known as files
from visionloop.media.known import Known, Words
from visionloop.media.listing import is_hidden
from visionloop.media.orders import USUAL, Cutter, Piece, Work
from visionloop.media.reading import sidecar_mark
from visionloop.media.sources import CONTAINER, INSIDE, MEDIA, Entry, open_source

if TYPE_CHECKING:
    from visionloop.config import SourceConfig
    from visionloop.media.pieces import Pieces

NEW, DUPLICATE, KNOWN, UNREADABLE, SKIPPED = "new", "duplicate", "known", "unreadable", "skipped"
OUTCOMES = (KNOWN, NEW, DUPLICATE, UNREADABLE, SKIPPED)
# What a listing says of files that the lake knows.
GONE, REPLACED, BACK = "gone", "replaced", "back"
_CHANGE = {"file": pa.binary(16), "place": pa.uint64(), "change": pa.string()}
CHANGES = pa.schema(list(_CHANGE.items()))

_BATCH = 4096


@dataclass
class Listing:
    """What the sources hold now, compared with the lake.

    Attributes:
        roots: The sources' roots, in the order of the configuration.
        orders: Names of the orders that lie in the lake, of pieces that are to be examined.
        few: The pieces themselves, where they are too few to be written down.
        pieces: Names of all pieces, in the order of the listing.
        weight: Files to examine; of what containers may hold, about.
        per_source: Number of known files of each root.
        beside: Number of files that are no media, by role.
        changes: Known files that are gone, replaced or back, as `CHANGES`.
        files_at: Snapshot of the table `files` that it was compared with; 0 for none.
    """

    roots: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    few: list[Piece] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    weight: int = 0
    per_source: dict[str, Counter[str]] = field(default_factory=dict)
    beside: Counter[str] = field(default_factory=Counter)
    changes: pa.Table = field(default_factory=CHANGES.empty_table)
    files_at: int = 0

    def work(self, kept: Pieces) -> Iterator[Piece]:
        """Yield all pieces, in the order of the listing."""
        yield from self.few
        for order in self.orders:
            yield from kept.read_order(order)

    def as_table(self) -> pa.Table:
        """Return all of it but `few` as a table, to be kept in the lake."""
        told = {
            "roots": self.roots,
            "orders": self.orders,
            "pieces": self.pieces,
            "weight": self.weight,
            "per_source": {root: dict(counts) for root, counts in self.per_source.items()},
            "beside": dict(self.beside),
            "files_at": self.files_at,
        }
        return self.changes.replace_schema_metadata({"listing": json.dumps(told)})

    @classmethod
    def of(cls, table: pa.Table) -> Listing:
        """Return the listing that a table holds."""
        told: dict[str, Any] = json.loads((table.schema.metadata or {})[b"listing"])
        told["per_source"] = {root: Counter(held) for root, held in told["per_source"].items()}
        told["beside"] = Counter(told["beside"])
        return cls(**told, changes=table)


def list_sources(
    sources: Sequence[SourceConfig],
    known: Known,
    kept: Pieces,
    *,
    label_files: Iterable[str] = (),
    lake: str = "",
    order_size: int,
    inline: int | None = None,
    files_at: int = 0,
) -> Listing:
    """List every source, and write down what is to be read of them.

    Memory holds some fifty bytes for each file that the lake knows, and one order of new ones.

    Args:
        sources: The sources of the configuration.
        known: What the lake has; learns what the listing shows.
        kept: Takes the orders.
        label_files: URIs of tables of labels, which are no media.
        lake: Root of the lake, whose own files are no media either; empty for none.
        order_size: Files in an order.
        inline: Up to so many files are kept in memory, not in an order; None for an order's size.
        files_at: Snapshot of the table `files` that is known.

    Raises:
        StorageError: A source cannot be listed.
    """
    found = Listing(files_at=files_at)
    cutter = Cutter(sources, max(1, min(USUAL, order_size // 8)))
    places: list[Words] = []
    opened: list[Words] = []

    def add(pieces: Iterator[Piece]) -> None:
        for piece in pieces:
            found.pieces.append(piece.name)
            found.few.append(piece)
            found.weight += piece.weight
            places.append(files.places_of(work.entry.info.uri for work in piece.work))
            containers = (w.entry for w in piece.work if w.entry.role == CONTAINER)
            opened.append(files.places_of(entry.info.uri for entry in containers))
            if sum(one.weight for one in found.few) >= order_size:
                found.orders.append(kept.write_order(found.few))
                found.few = []

    for work in scan(sources, known, found, label_files, lake):
        add(cutter.add(work))
    add(cutter.rest())
    if found.few and (found.orders or found.weight > (order_size if inline is None else inline)):
        found.orders.append(kept.write_order(found.few))
        found.few = []
    found.changes = _changes(known, found.roots, places, opened)
    return found


def coverage(sources: Sequence[SourceConfig], lake: str) -> Callable[[str, str], bool]:
    """Return what tells whether the listings cover a file that another source was first to show.

    A list, a pattern in braces or a choice of frames says nothing of what it does not name.

    Args:
        sources: The sources that are listed.
        lake: URI of the lake, whose own files are none of theirs.
    """
    whole = [
        normalise(source.uri).rstrip("/")
        for source in sources
        if (
            source.resolved_kind == "folder"
            or (source.resolved_kind == "tar" and "{" not in source.uri)
        )
        and not (source.video and source.video.frames)
    ]
    roots = {normalise(source.uri) for source in sources}
    own = normalise(lake).rstrip("/") + "/"

    def covers(uri: str, source: str) -> bool:
        if source in roots or uri.startswith(own):
            return False
        return any(
            uri == root or (uri.startswith(root + "/") and not is_hidden(uri[len(root) :]))
            for root in whole
        )

    return covers


def count_new(
    sources: Sequence[SourceConfig],
    known: Known,
    label_files: Iterable[str] = (),
    lake: str = "",
) -> int:
    """Count the files, containers included, that are listed and not known; see `scan`."""
    listing = Listing()
    found = scan(sources, known, listing, label_files, lake)
    return sum(not work.only_metadata for work in found)


def scan(
    sources: Sequence[SourceConfig],
    known: Known,
    listing: Listing,
    label_files: Iterable[str] = (),
    lake: str = "",
) -> Iterator[Work]:
    """Yield what is to be examined, in the order of sources and URIs.

    A file that two sources reach belongs to the first.

    Args:
        sources: The sources.
        known: What the lake has; learns what is shown.
        listing: Receives roots and counts.
        label_files: URIs of tables of labels.
        lake: Root of the lake, whose own files are passed by; empty for none.
    """
    no_media = set(label_files)
    earlier: list[Words] = []
    for number, config in enumerate(sources):
        source = open_source(config, label_files=no_media, lake=lake)
        listing.roots.append(source.root)
        counts = listing.per_source.setdefault(source.root, Counter({KNOWN: 0}))
        mine: list[Words] = []
        entries = source.entries()
        while batch := list(islice(entries, _BATCH)):
            listing.beside.update(e.role for e in batch if e.role not in (MEDIA, CONTAINER))
            media = [entry for entry in batch if entry.role in (MEDIA, CONTAINER)]
            if len(sources) > 1:
                words = files.words_of(entry.info.uri for entry in media)
                other = np.zeros(len(media), bool)
                for held in earlier:
                    other |= files.find(held, words) >= 0
                mine.append(words[~other])
                media = [e for e, elsewhere in zip(media, other, strict=True) if not elsewhere]
            yield from _unknown(number, media, known, counts)
        if mine:
            together = np.concatenate(mine)
            earlier.append(together[np.argsort(together[:, 0], kind="stable")])


def _unknown(number: int, media: list[Entry], known: Known, counts: Counter[str]) -> Iterator[Work]:
    media, rows = _as_they_are(media, known)
    known.seen[rows[rows >= 0]] = True
    marks = files.or_none(map(sidecar_mark, media))
    for entry, row, mark in zip(media, rows.tolist(), marks.tolist(), strict=True):
        if row < 0:
            if known.erased.has_file(entry.info.uri, entry.info.generation):
                counts[KNOWN] += 1  # what was erased has no row, and is not read again
            else:
                yield Work(number, entry)
            continue
        state = files.STATES[known.states[row]]
        if state == files.CONTAINER or entry.role == CONTAINER:
            # What a container holds is as it was when it was opened, also where this source would
            # not open it. A file that could not be opened before, and can now, is none yet.
            held = known.see_members(entry.info.uri, entry.info.generation)
            if held or state in (files.CONTAINER, files.SKIPPED):
                counts[KNOWN] += held
            else:
                yield Work(number, entry)
            continue
        counts[KNOWN] += 1
        if mark and mark != int(known.sidecars[row]) and state == files.OK:
            yield Work(number, entry, only_metadata=True)


def _as_they_are(media: list[Entry], known: Known) -> tuple[list[Entry], NDArray[np.intp]]:
    """Return files with their rows among the known ones, -1 where they are not known.

    A disk tells when a file was changed, not whether: programs that copy set the time back. One
    that has another size than at that time is another file, and its generation says so.
    """
    rows = _rows(media, known)
    sizes = files.sizes_of(entry.info.size for entry in media)
    held = known.sizes[rows] if len(known) else sizes
    others = [
        place
        for place in np.flatnonzero(
            (rows >= 0) & (held != files.NO_SIZE) & (held != sizes)
        ).tolist()
        if scheme_of(media[place].info.uri) == "file" and INSIDE not in media[place].info.uri
    ]
    if others:
        media = list(media)
        for place in others:
            info = media[place].info
            info = replace(info, generation=f"{info.generation};size={info.size}")
            media[place] = replace(media[place], info=info)
        rows[others] = _rows([media[place] for place in others], known)
    return media, rows


def _rows(media: list[Entry], known: Known) -> NDArray[np.intp]:
    return known.find(
        files.files_of([e.info.uri for e in media], [e.info.generation for e in media])
    )


def _changes(
    known: Known, roots: Iterable[str], places: list[Words], opened: list[Words]
) -> pa.Table:
    """Return which known files are gone, replaced or back."""
    none = known.places[:0]
    here = np.concatenate([known.places[known.seen], *places])
    gone = np.flatnonzero(known.gone(roots, here, np.concatenate([none, *opened])))
    back = np.flatnonzero(known.seen & ~known.live())
    again = np.isin(known.places[gone], here)
    rows = np.concatenate([gone, back])
    words = np.ascontiguousarray(known.files[rows])
    named = np.where(again, REPLACED, GONE).tolist() + [BACK] * len(back)
    return pa.table(
        {
            "file": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), len(rows), [None, pa.py_buffer(words)]
            ),
            "place": known.places[rows],
            "change": pa.array(named, pa.string()),
        },
        schema=CHANGES,
    )


def listing_name(listing: Listing) -> str:
    """Return the name that a listing is kept under."""
    told = json.dumps([listing.pieces, listing.files_at, listing.changes.num_rows])
    return hashlib.sha256(told.encode()).hexdigest()[:32]
