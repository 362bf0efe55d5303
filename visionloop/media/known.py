"""What the lake knows of a source's files: some fifty bytes a file, however long their URIs are.

A file is told by a hash of 128 bits of its URI and generation: two of a hundred million files share
one with a chance of 1e-23.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.erasing.tombstones import Tombstones
from visionloop.media.sources.entries import INSIDE, SILENT

# States of a row of `files`, as numbers.
OK, UNREADABLE, REMOVED, CONTAINER, SKIPPED = "ok", "unreadable", "removed", "container", "skipped"
STATES = (OK, UNREADABLE, REMOVED, CONTAINER, SKIPPED)
COLUMNS = ["uri", "generation", "state", "sidecar", "source", "size"]

NO_SIZE = 2**32 - 1

Words = NDArray[np.uint64]


def words_of(texts: Iterable[str]) -> Words:
    """Return hashes of texts, uint64 [n, 2]."""
    digest = hashlib.blake2b
    data = b"".join(
        digest(text.encode(errors="surrogateescape"), digest_size=16).digest() for text in texts
    )
    return np.frombuffer(data, "<u8").reshape(-1, 2)


def files_of(uris: Sequence[str], generations: Sequence[str]) -> Words:
    """Return what tells files apart, uint64 [n, 2]."""
    return words_of(
        f"{uri}\n{generation or ''}" for uri, generation in zip(uris, generations, strict=True)
    )


def places_of(uris: Iterable[str]) -> Words:
    """Return one number a URI, uint64 [n]: places are only compared with others of one lake."""
    return words_of(uris)[:, 0]


def sizes_of(sizes: Iterable[int | None]) -> NDArray[np.uint32]:
    """Return the lower half of each size, uint32 [n], `NO_SIZE` for none."""
    return np.array([NO_SIZE if size is None else size % NO_SIZE for size in sizes], np.uint32)


def container_of(uri: str) -> str:
    """Return the URI of the container that a file lies in, empty where it lies in none."""
    return uri.partition(INSIDE)[0] if INSIDE in uri else ""


@dataclass
class Known:
    """The files of a lake, sorted by the first word of what tells them apart.

    Attributes:
        files: uint64 [n, 2], see `files_of`.
        places: uint64 [n], see `places_of`.
        containers: uint64 [n]: of the container that a file lies in, at its generation; 0 for none.
        sidecars: uint64 [n]: of the sidecars that were read with it, 0 for none.
        states: uint8 [n]: places in `STATES`.
        sources: int16 [n]: numbers of the roots.
        sizes: uint32 [n]: bytes of the file, see `sizes_of`.
        roots: The roots by number.
        covered: bool [n]: whether a complete listing of this ingest covers the file, though it was
            found through another source.
        seen: bool [n]: whether a listing has shown the file.
        erased: What is known of files of erased samples, which have no rows.
    """

    files: Words
    places: Words
    containers: Words
    sidecars: Words
    states: NDArray[np.uint8]
    sources: NDArray[np.int16]
    sizes: NDArray[np.uint32]
    roots: dict[str, int]
    covered: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    erased: Tombstones = field(default_factory=Tombstones)
    _by_container: NDArray[np.intp] | None = None

    @classmethod
    def read(
        cls,
        batches: Iterable[pa.RecordBatch],
        *,
        skipped_too: bool = False,
        erased: Tombstones | None = None,
        covers: Callable[[str, str], bool] = lambda uri, source: False,
    ) -> Known:
        """Build it from the table `files`.

        Args:
            batches: Its rows, with the columns `COLUMNS`.
            skipped_too: Whether a file that could only be skipped so far is known, too.
            erased: What was erased from the lake.
            covers: Whether a listing covers a URI that another source was the first to show.
        """
        parts: list[tuple[NDArray[Any], ...]] = []
        roots: dict[str, int] = {}
        for batch in batches:
            uris, generations, states, sidecars, sources, sizes = (
                batch.column(name).to_pylist() for name in COLUMNS
            )
            codes = np.array([STATES.index(state) for state in states], np.uint8)
            parts.append(
                (
                    files_of(uris, generations),
                    places_of(uris),
                    _containers(uris, generations),
                    or_none((sidecar or "").partition(SILENT)[0] for sidecar in sidecars),
                    codes,
                    np.array([roots.setdefault(s or "", len(roots)) for s in sources], np.int16),
                    sizes_of(sizes),
                    np.fromiter(map(covers, uris, sources), bool, len(uris)),
                )
            )
            if not skipped_too:
                keep = codes != STATES.index(SKIPPED)
                parts[-1] = tuple(column[keep] for column in parts[-1])
        columns: list[NDArray[Any]] = (
            [np.concatenate(c) for c in zip(*parts, strict=True)] if parts else _empty()
        )
        parts.clear()
        order = np.argsort(columns[0][:, 0], kind="stable")
        files, places, containers, sidecars_, codes_, sources_, sizes_, covered = (
            c[order] for c in columns
        )
        return cls(
            files,
            places,
            containers,
            sidecars_,
            codes_,
            sources_,
            sizes_,
            roots,
            covered,
            np.zeros(len(order), bool),
            erased or Tombstones(),
        )

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def find(self, files: Words) -> NDArray[np.intp]:
        """Return the row of each file, -1 where it is not known.

        Args:
            files: uint64 [m, 2], see `files_of`.
        """
        return find(self.files, files)

    def see_members(self, container: str, generation: str) -> int:
        """Note that the members of a container are there, and return how many they are."""
        if self._by_container is None:
            self._by_container = np.argsort(self.containers, kind="stable")
        place = files_of([container], [generation])[0, 0]
        order = self._by_container
        first = np.searchsorted(self.containers, place, "left", sorter=order)
        last = np.searchsorted(self.containers, place, "right", sorter=order)
        rows = order[first:last]
        self.seen[rows] = True
        return len(rows)

    def live(self) -> NDArray[np.bool_]:
        """Return which files are there, as far as the lake knows, bool [n]."""
        live: NDArray[np.bool_] = self.states != STATES.index(REMOVED)
        return live

    def gone(
        self, roots: Iterable[str], here: Words | None = None, opened: Words | None = None
    ) -> NDArray[np.bool_]:
        """Return which files are not there any more, or not as they were, bool [n].

        That is what no listing has shown though its source was listed, or a wider one that covers
        it; and what another generation now stands in the place of, whoever shows it. A container
        goes with all that it holds; one that another source shows and does not open stays.

        Args:
            roots: The sources that were listed.
            here: Places that the listings show, see `places_of`.
            opened: Those of containers that are to be opened.
        """
        unseen = np.flatnonzero(self.live() & ~self.seen)
        gone = np.zeros(len(self), bool)
        if not len(unseen):
            return gone
        listed = [self.roots[root] for root in roots if root in self.roots]
        places, covered = self.places[unseen], self.covered[unseen]
        shown = np.isin(places, _some(here))
        is_container = self.states[unseen] == STATES.index(CONTAINER)
        inside = self.containers[unseen] != 0
        gone[unseen] = (
            np.isin(self.sources[unseen], np.array(listed, np.int16))
            | (~inside & ~is_container & (covered | shown))
            | (is_container & ((covered & ~shown) | np.isin(places, _some(opened))))
        )
        holders = self.files[gone & (self.states == STATES.index(CONTAINER)), 0]
        gone[unseen] |= inside & np.isin(self.containers[unseen], holders)
        return gone


def _some(places: Words | None) -> Words:
    return np.zeros(0, np.uint64) if places is None else places


def find(held: Words, wanted: Words) -> NDArray[np.intp]:
    """Return the row of each hash among others, -1 where it is not there.

    Args:
        held: uint64 [n, 2], sorted by the first word.
        wanted: uint64 [m, 2].
    """
    rows = np.searchsorted(held[:, 0], wanted[:, 0])
    found = np.full(len(wanted), -1, np.intp)
    left = np.arange(len(wanted))
    while len(left):
        left = left[rows[left] < len(held)]
        left = left[held[rows[left], 0] == wanted[left, 0]]
        same = held[rows[left], 1] == wanted[left, 1]
        found[left[same]] = rows[left[same]]
        # Another one with the same first word: look at the next row.
        left = left[~same]
        rows[left] += 1
    return found


def _containers(uris: Sequence[str], generations: Sequence[str]) -> Words:
    found = np.zeros(len(uris), np.uint64)
    inside = [number for number, uri in enumerate(uris) if INSIDE in uri]
    if inside:
        holders = [container_of(uris[number]) for number in inside]
        found[inside] = files_of(holders, [generations[number] for number in inside])[:, 0]
    return found


def or_none(texts: Iterable[str]) -> Words:
    """Return the hash of each text, 0 for an empty one."""
    held = list(texts)
    found = np.zeros(len(held), np.uint64)
    some = [number for number, text in enumerate(held) if text]
    if some:
        found[some] = places_of(held[number] for number in some)
    return found


def _empty() -> list[NDArray[Any]]:
    word = np.zeros(0, np.uint64)
    small = [np.zeros(0, kind) for kind in (np.uint8, np.int16, np.uint32, bool)]
    return [word.reshape(0, 2), word, word, word, *small]
