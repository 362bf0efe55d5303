"""What an ingest has to read, as lists that lie in the lake until it is committed.

A listing is cut into *pieces* of some thousand files, where the hash of a URI says so: a file that
comes or goes changes its own piece, and no other one. A piece is named by what it lists, so that
whoever lists the same files again finds what was made of them. Some pieces together are an *order*,
the work of one task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop import __version__
from visionloop.lake.schemas import TIME
from visionloop.lake.storage import FileInfo
from visionloop.media.sources.entries import CONTAINER, MEDIA, Entry

if TYPE_CHECKING:
    from visionloop.config import SourceConfig

# Files of a piece on average, four times as many at most; an eighth of an order if that is less.
USUAL = 2048
# A container counts as so many files as it might hold pictures of this many bytes.
BYTES_A_PICTURE = 200_000
# A larger container is a piece of its own: it may hold more than a piece of files.
SMALL = 256 << 10
# And a smaller one fills a piece as so many files do.
FILES_A_SMALL_ONE = 16

_COLUMNS = {
    "piece": pa.int32(),
    "source": pa.int16(),
    "only_metadata": pa.bool_(),
    "role": pa.string(),
    "uri": pa.string(),
    "size": pa.int64(),
    "generation": pa.string(),
    "updated": TIME,
    "told": pa.string(),  # JSON: what else an entry tells, where there is any of it
}
SCHEMA = pa.schema(list(_COLUMNS.items()))


@dataclass(frozen=True)
class Work:
    """One file to examine.

    Attributes:
        source: Number of its source in the configuration.
        entry: The file.
        only_metadata: Its image is known: only its sidecars are to be read.
    """

    source: int
    entry: Entry
    only_metadata: bool = False


@dataclass(frozen=True)
class Piece:
    """Some files of one source that are examined together.

    Attributes:
        name: Hash of what it lists and of how that is read.
        work: Its files.
    """

    name: str
    work: tuple[Work, ...]

    @property
    def source(self) -> int:
        """Number of its source."""
        return self.work[0].source

    @property
    def is_container(self) -> bool:
        """Whether it is one container, of which nobody knows yet how much it holds."""
        return len(self.work) == 1 and _stands_alone(self.work[0].entry)

    @property
    def weight(self) -> int:
        """Number of its files; of what a container may hold, about."""
        if self.is_container:
            return 1 + self.work[0].entry.info.size // BYTES_A_PICTURE
        return len(self.work)


def _stands_alone(entry: Entry) -> bool:
    return entry.role == CONTAINER and entry.info.size > SMALL


@dataclass
class _Growing:
    digest: Any
    work: list[Work] = field(default_factory=list)
    full: int = 0


class Cutter:
    """Cuts a listing into pieces.

    Args:
        sources: The sources of the configuration.
        usual: Files of a piece on average.
    """

    def __init__(self, sources: Sequence[SourceConfig], usual: int = USUAL) -> None:
        self._usual = usual
        self._settings = [
            f"{__version__} {source.model_dump_json(by_alias=True)}".encode() for source in sources
        ]
        self._growing: _Growing | None = None

    def add(self, work: Work) -> Iterator[Piece]:
        """Add a file, in the order of the listing; yield the pieces that are whole by it."""
        growing = self._growing
        alone = _stands_alone(work.entry)
        if growing and (growing.work[0].source != work.source or alone):
            yield from self.rest()
        if self._growing is None:
            self._growing = _Growing(hashlib.sha256(self._settings[work.source]))
        row = _row(work, 0)
        row.pop("updated")  # a bucket that does not tell is given the time of the listing
        self._growing.digest.update(json.dumps(row, sort_keys=True).encode())
        self._growing.work.append(work)
        self._growing.full += FILES_A_SMALL_ONE if work.entry.role == CONTAINER else 1
        place = hashlib.sha256(work.entry.info.uri.encode(errors="surrogateescape")).digest()
        cut = int.from_bytes(place[:4], "big") % self._usual == 0
        if cut or self._growing.full >= 4 * self._usual or alone:
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        """Yield the piece that is not whole yet, if there is one."""
        if self._growing is not None:
            growing, self._growing = self._growing, None
            yield Piece(growing.digest.hexdigest()[:32], tuple(growing.work))


def order_table(pieces: Sequence[Piece]) -> pa.Table:
    """Return pieces as a table."""
    rows = [_row(work, number) for number, piece in enumerate(pieces) for work in piece.work]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    names = json.dumps([piece.name for piece in pieces])
    return table.replace_schema_metadata({"pieces": names})


def names_of(schema: pa.Schema) -> list[str]:
    """Return the names of the pieces in an order."""
    names: list[str] = json.loads((schema.metadata or {})[b"pieces"])
    return names


def pieces_of(table: pa.Table) -> Iterator[Piece]:
    """Yield the pieces of an order."""
    numbers = table["piece"].to_numpy()
    start = 0
    for number, name in enumerate(names_of(table.schema)):
        end = int(numbers.searchsorted(number, "right"))
        yield Piece(name, tuple(map(_work, table.slice(start, end - start).to_pylist())))
        start = end


def _row(work: Work, piece: int) -> dict[str, Any]:
    entry = work.entry
    told = {
        "sidecars": [[info.uri, info.size, info.generation] for info in entry.sidecars],
        "values": dict(entry.values),
        "table": dict(entry.table),
        "label": entry.label,
        "boxes": list(entry.boxes) if entry.boxes is not None else None,
        "reason": entry.reason,
        "path": dict(entry.path) if entry.path is not None else None,
    }
    empty = ("boxes", "path")  # which say something when they are empty
    some = {k: v for k, v in told.items() if v or (v is not None and k in empty)}
    return {
        "piece": piece,
        "source": work.source,
        "only_metadata": work.only_metadata,
        "role": entry.role,
        "uri": entry.info.uri,
        "size": entry.info.size,
        "generation": entry.info.generation,
        "updated": entry.info.updated,
        "told": json.dumps(some, ensure_ascii=False, sort_keys=True) if some else None,
    }


def _work(row: dict[str, Any]) -> Work:
    told = json.loads(row["told"] or "{}")
    boxes = told.get("boxes")
    entry = Entry(
        FileInfo(row["uri"], row["size"], row["generation"], row["updated"]),
        row["role"] or MEDIA,
        tuple(
            FileInfo(uri, size, generation, row["updated"])
            for uri, size, generation in told.get("sidecars", ())
        ),
        told.get("values", {}),
        told.get("label", ""),
        tuple(boxes) if boxes is not None else None,
        told.get("reason", ""),
        told.get("path"),
        told.get("table", {}),
    )
    return Work(row["source"], entry, row["only_metadata"])
