"""Finished pieces of an ingest, kept as files in the lake until they are committed.

A piece's last part is written last: what has one is finished, whatever killed the process then. The
same files read in the same way have the same name, so that an ingest that is started again, or
another task of the same run, goes on behind what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from visionloop.errors import VisionloopError
from visionloop.lake.erasing.tombstones import REASON, Tombstones
from visionloop.lake.storage import StorageError, name_of
from visionloop.media.intake import Listing, listing_name
from visionloop.media.orders import Piece, order_table, pieces_of
from visionloop.media.parts import part_table, pictures
from visionloop.media.reading import SKIPPED, Examined, examine
from visionloop.media.sources.entries import CONTAINER, INSIDE

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.media.inspect import Inspection
    from visionloop.media.sources import Source

FOLDER = "shards"
_BEGIN = "ingest-"
ORDER, PART, MORE = ".order.parquet", ".part.parquet", ".more.parquet"
PICTURES, LISTING = ".pictures.parquet", ".listing.parquet"
# Rows of one part: a container may hold any number of files.
ROWS = 4096


@dataclass(frozen=True)
class Part:
    """Rows of a finished piece.

    Attributes:
        rows: As `visionloop.media.parts.SCHEMA`.
        pictures: The thumbnails of its images, where they were asked for.
    """

    rows: pa.Table
    pictures: pa.Table | None


class Pieces:
    """The finished pieces of a lake, and those of a small ingest in memory.

    Args:
        lake: The lake.
        in_memory: Keep what is finished in memory alone: it is little.
    """

    def __init__(self, lake: Lake, *, in_memory: bool = False) -> None:
        self._lake = lake
        self._memory: dict[str, list[Part]] | None = {} if in_memory else None
        self._folder = lake.path(FOLDER, lake.loop)
        self._erased: Tombstones | None = None

    def finished(self) -> set[str]:
        """Return the names of the pieces that are finished."""
        if self._memory is not None:
            return set(self._memory)
        return {name.removesuffix(PART) for name in self._names() if name.endswith(PART)}

    def examine(
        self,
        source: Source,
        piece: Piece,
        *,
        copy: bool,
        exif: bool,
        advance: Callable[[], None],
    ) -> None:
        """Examine the files of a piece and keep what became of them.

        Args:
            source: Their source.
            piece: The piece.
            copy: Copy every image into the lake.
            exif: Take what cameras wrote into the images for metadata.
            advance: Called after each file.

        Raises:
            StorageError: The lake cannot be written.
        """
        only = {work.entry.info.uri for work in piece.work if work.only_metadata}
        self._erased = Tombstones.of(self._lake)
        first = self._begun(piece) if piece.is_container else 0
        parts: list[Part] = []
        rows: list[Examined] = []
        number = first // ROWS
        for one in examine(
            source,
            (work.entry for work in piece.work),
            only_metadata=lambda entry: entry.info.uri in only,
            keep=self.keep,
            keep_all=copy,
            exif=exif,
            skip_members=first,
        ):
            advance()
            if one.sample_id and one.sample_id in self._erased:
                one = Examined(one.entry, SKIPPED, 0, reason=REASON)
            if one.state == SKIPPED and one.entry.role == CONTAINER:
                # The next ingest opens it again: what it gave would be there a second time.
                parts, number = [], self._drop_begun(piece)
                inside = one.entry.info.uri + INSIDE
                rows = [row for row in rows if not row.entry.info.uri.startswith(inside)]
            if len(rows) == ROWS and piece.is_container:
                parts.append(self._write(piece, rows, number))
                number, rows = number + 1, []
            rows.append(one)
        parts.append(self._write(piece, rows, None))
        if self._memory is not None:
            self._memory[piece.name] = parts

    def keep(self, found: Inspection, data: bytes) -> str:
        """Store an image in the lake by its id, so that storing it twice does no harm."""
        if self._erased is not None and found.sample_id in self._erased:
            return ""
        return self.put(found.sample_id, found.format, data)

    def put(self, sample_id: str, form: str, data: bytes) -> str:
        """Store a sample's image in the lake, unless it is there.

        Args:
            sample_id: The sample.
            form: Pillow's name of its format.
            data: Its bytes.

        Returns:
            Its URI.
        """
        uri = self._lake.path("media", sample_id[:2], f"{sample_id}.{form.lower()}")
        if not self._lake.storage.exists(uri):
            self._lake.storage.write(uri, data)
        return uri

    def read(self, name: str, *, with_pictures: bool = False) -> Iterator[Part]:
        """Yield the parts of a finished piece, in the order of its files.

        Args:
            name: The piece.
            with_pictures: Read the thumbnails, too.

        Raises:
            VisionloopError: It is not there any more.
        """
        if self._memory is not None:
            yield from self._memory[name]
            return
        names = [f"{name}-{number:06d}" for number in self._more(name)] + [name]
        for one in names:
            rows = self._table(one + (PART if one == name else MORE))
            yield Part(rows, self._table(one + PICTURES) if with_pictures else None)

    def unfinished(self, listing: Listing) -> Iterator[Piece]:
        """Yield the pieces of a listing that are not finished."""
        finished = self.finished()
        if not finished.issuperset(listing.pieces):
            yield from (piece for piece in listing.work(self) if piece.name not in finished)

    def remove(self, names: Collection[str], orders: Iterable[str], listing: str = "") -> None:
        """Remove pieces, orders and a listing that are committed.

        What marks a piece as finished goes first, so that no half of one is ever taken for whole.

        Args:
            names: Of the pieces.
            orders: Names of the orders.
            listing: Name of the listing; empty for none.
        """
        if self._memory is not None:
            self._memory.clear()
            return
        for ending in (PART, PICTURES, MORE):
            for file in self._names():
                if file.endswith(ending) and file.removesuffix(ending).partition("-")[0] in names:
                    self._lake.storage.delete(self._uri(file))
        for order in orders:
            self._lake.storage.delete(self._uri(order + ORDER))
        if listing:
            self._lake.storage.delete(self._uri(listing + LISTING))

    def remove_left(self, before: datetime) -> None:
        """Remove what dead ingests have left: what is older, and no listing of several tasks names.

        An ingest that is still at work on such old pieces loses what it has examined, and no row.
        """
        if not self._lake.storage.exists(self._folder):
            return
        held = {name_of(info.uri): info for info in self._lake.storage.list(self._folder)}
        named: set[str] = set()
        for name in held:
            if name.startswith(_BEGIN) and name.endswith(LISTING):
                listing = self.read_listing(name.removeprefix(_BEGIN).removesuffix(LISTING))
                named |= {*listing.pieces, *listing.orders} if listing else set()
        for name, info in held.items():
            # Of a file that was never whole, and has a dot before its name, there is no use.
            mine = name.startswith((_BEGIN, f".{_BEGIN}")) and not name.endswith(LISTING)
            stem = name.removeprefix(_BEGIN).partition(".")[0].partition("-")[0]
            if mine and info.updated < before and stem not in named:
                self._lake.storage.delete(info.uri)

    def write_order(self, pieces: list[Piece]) -> str:
        """Write an order and return its name."""
        name = hashlib.sha256(" ".join(piece.name for piece in pieces).encode()).hexdigest()[:32]
        self._put(name + ORDER, order_table(pieces))
        return name

    def read_order(self, name: str) -> Iterator[Piece]:
        """Yield the pieces of an order.

        Raises:
            VisionloopError: It is not there any more.
        """
        yield from pieces_of(self._table(name + ORDER))

    def write_listing(self, listing: Listing) -> str:
        """Write a listing and return its name."""
        name = listing_name(listing)
        self._put(name + LISTING, listing.as_table())
        return name

    def read_listing(self, name: str) -> Listing | None:
        """Return a listing, None where it was committed and removed."""
        if not self._lake.storage.exists(self._uri(name + LISTING)):
            return None
        return Listing.of(self._table(name + LISTING))

    def _write(self, piece: Piece, found: list[Examined], number: int | None) -> Part:
        part = Part(part_table(piece.source, found), pictures(found))
        if self._memory is None:
            name = piece.name if number is None else f"{piece.name}-{number:06d}"
            self._put(name + PICTURES, part.pictures)
            self._put(name + (PART if number is None else MORE), part.rows)
        return part

    def _begun(self, piece: Piece) -> int:
        """Return how many members of a container an earlier try has finished."""
        return ROWS * len(list(self._more(piece.name))) if self._memory is None else 0

    def _drop_begun(self, piece: Piece) -> int:
        """Remove what is finished of a container, and return the number of its next part."""
        # The last part first: those that are left are the first ones, wherever this is killed.
        for number in reversed(list(self._more(piece.name)) if piece.is_container else []):
            self._lake.storage.delete(self._uri(f"{piece.name}-{number:06d}{MORE}"))
            self._lake.storage.delete(self._uri(f"{piece.name}-{number:06d}{PICTURES}"))
        return 0

    def _more(self, name: str) -> Iterator[int]:
        for number in count():
            if not self._lake.storage.exists(self._uri(f"{name}-{number:06d}{MORE}")):
                return
            yield number

    def _names(self) -> list[str]:
        if not self._lake.storage.exists(self._folder):
            return []
        names = (name_of(info.uri) for info in self._lake.storage.list(self._folder))
        return [name.removeprefix(_BEGIN) for name in names if name.startswith(_BEGIN)]

    def _uri(self, name: str) -> str:
        return self._lake.path(FOLDER, self._lake.loop, _BEGIN + name)

    def _put(self, name: str, table: pa.Table | None) -> None:
        self._lake.exists()  # raises where it went away: its folder must not be made anew
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=1)
        self._lake.storage.write(self._uri(name), sink.getvalue().to_pybytes())

    def _table(self, name: str) -> pa.Table:
        uri = self._uri(name)
        try:
            return pq.read_table(pa.BufferReader(self._lake.storage.read(uri)))
        except StorageError as error:
            if self._lake.storage.exists(uri):
                raise
            raise VisionloopError(
                "a list or a result of this ingest is not there any more",
                where=uri,
                remedy="Start the pipeline again: it lists what is left to do",
            ) from error
