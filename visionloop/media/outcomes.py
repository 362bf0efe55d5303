"""What each examined file is for the lake: a new sample, a copy, or none.

Which of several files with the same bytes is the sample, and which are its copies, is decided by
the order of sources and URIs: neither threads nor tasks nor what an earlier try had finished change
anything. Columns of numbers are held of all files of an ingest, about a hundred bytes a file.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.media.intake import DUPLICATE, NEW, SKIPPED, UNREADABLE
from visionloop.media.known import Words, files_of, places_of
from visionloop.media.parts import IMAGE, types_of
from visionloop.media.reading import METADATA, OK, OPENED

if TYPE_CHECKING:
    from visionloop.media.pieces import Part

SAME_BYTES = "same_bytes"
# What a row of a part is; the last two are no files that are counted.
KINDS = (NEW, DUPLICATE, UNREADABLE, SKIPPED, METADATA, OPENED)
_NEW, _DUPLICATE, _UNREADABLE, _SKIPPED, _METADATA, _OPENED = range(len(KINDS))
ENCODED = ("label", "boxes", "reason")
_OF_STATE = {
    OK: _NEW,
    UNREADABLE: _UNREADABLE,
    SKIPPED: _SKIPPED,
    METADATA: _METADATA,
    OPENED: _OPENED,
}


@dataclass
class Rows:
    """All rows of an ingest's parts in their order, as far as deciding needs them.

    Attributes:
        source: int16 [n]: number of the source.
        kind: uint8 [n]: place in `KINDS`; readable images are new until `decide` has run.
        files: uint64 [n, 2], see `visionloop.media.known.files_of`.
        places: uint64 [n].
        sample: Ids, binary(32) [n], null for what is no image.
        fingerprint: binary [n], null for what is no image.
        label: Dictionary-encoded text [n], null for none.
        boxes: Dictionary-encoded JSON [n], null where nothing is said of boxes.
        reason: Dictionary-encoded text [n].
        types: How many values of which type the metadata has in each column.
    """

    source: NDArray[np.int16]
    kind: NDArray[np.uint8]
    files: Words
    places: Words
    sample: pa.Array
    fingerprint: pa.Array
    label: pa.Array
    boxes: pa.Array
    reason: pa.Array
    types: dict[str, dict[str, int]]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Rows:
        """Gather the rows of some parts."""
        columns = ["sample", IMAGE + "fingerprint", *ENCODED]
        tables: list[pa.Table] = []
        kinds: list[NDArray[np.uint8]] = []
        words: list[Words] = []
        places: list[Words] = []
        types: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for part in parts:
            rows = part.rows
            uris = rows["uri"].to_pylist()
            words.append(files_of(uris, rows["generation"].to_pylist()))
            places.append(places_of(uris))
            kinds.append(np.array([_OF_STATE[s] for s in rows["state"].to_pylist()], np.uint8))
            held = rows.select(["source", *columns]).replace_schema_metadata(None)
            for name in ENCODED:
                place = held.schema.get_field_index(name)
                held = held.set_column(place, name, pc.dictionary_encode(held[name]))
            tables.append(held)
            for name, found in types_of(rows).items():
                types[name].update(found)
        if not tables:
            none = pa.array([], pa.string()).dictionary_encode()
            word = np.zeros(0, np.uint64)
            binary = pa.array([], pa.binary(32))
            zero = np.zeros(0, np.int16)
            kind = np.zeros(0, np.uint8)
            return cls(zero, kind, word.reshape(0, 2), word, binary, binary, none, none, none, {})
        whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        return cls(
            whole["source"].to_numpy(),
            np.concatenate(kinds),
            np.concatenate(words),
            np.concatenate(places),
            _array(whole["sample"]),
            _array(whole[IMAGE + "fingerprint"]),
            _array(whole["label"]),
            _array(whole["boxes"]),
            _array(whole["reason"]),
            {name: dict(sorted(found.items())) for name, found in sorted(types.items())},
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.kind)

    def is_image(self) -> NDArray[np.bool_]:
        """Return which rows hold a readable image, bool [n]."""
        has_image: NDArray[np.bool_] = np.asarray(self.sample.is_valid())
        return has_image

    def of_kind(self, *kinds: str) -> NDArray[np.bool_]:
        """Return which rows are of some kinds, bool [n]."""
        return np.isin(self.kind, [KINDS.index(kind) for kind in kinds])

    def decide(self, held: pa.Array, at_place: set[tuple[int, bytes]], refused: pa.Array) -> None:
        """Tell new samples from copies.

        Args:
            held: Ids of the samples that the lake has, binary(32).
            at_place: Which samples the lake has found at the places of these rows before: a new
                generation of the same bytes at the same place is no second copy.
            refused: Ids of samples that were erased: they do not come in again.
        """
        images = np.flatnonzero(self.is_image())
        if not len(images):
            return
        ids = self.sample.take(pa.array(images))
        codes = ids.dictionary_encode().indices.to_numpy()
        _, first = np.unique(codes, return_index=True)
        is_first = np.zeros(len(images), bool)
        is_first[first] = True
        known = np.asarray(pc.is_in(ids, value_set=held))
        self.kind[images] = np.where(is_first & ~known, _NEW, _DUPLICATE)
        places = {place for place, _ in at_place}
        reasons = self.reason.to_pylist() if at_place or len(refused) else []
        again = np.flatnonzero(np.isin(self.places[images], np.array(sorted(places), np.uint64)))
        for row in again.tolist():
            if (int(self.places[images[row]]), ids[row].as_py()) in at_place:
                self.kind[images[row]] = _SKIPPED
                reasons[images[row]] = SAME_BYTES
        if len(refused):
            erased = np.asarray(pc.is_in(ids, value_set=refused))
            self.kind[images[erased]] = _SKIPPED
            for row in images[erased].tolist():
                reasons[row] = "erased"
        if reasons:
            self.reason = pa.array(reasons, pa.string()).dictionary_encode()

    def counts(self, roots: Sequence[str]) -> dict[str, Counter[str]]:
        """Return the number of files of each outcome by the root of their source."""
        found: dict[str, Counter[str]] = {}
        for number in np.unique(self.source).tolist():
            kinds = np.bincount(self.kind[self.source == number], minlength=len(KINDS)).tolist()
            counted = dict(zip(KINDS[:4], kinds, strict=False))
            found[roots[number]] = Counter({kind: n for kind, n in counted.items() if n})
        return found

    def reasons(self) -> Counter[tuple[str, str]]:
        """Return the number of files by outcome and reason, of those that have a reason."""
        texts = self.reason.to_pylist()
        return Counter(
            (KINDS[kind], text)
            for kind, text in zip(self.kind.tolist(), texts, strict=True)
            if text and kind < _METADATA
        )

    def name_known(self, samples: Mapping[tuple[int, int], str]) -> None:
        """Take in the samples of known files, of which only what is said of them was read.

        Args:
            samples: Id by the two words of the file.
        """
        rows = np.flatnonzero(self.of_kind(METADATA))
        ids = [samples.get((int(a), int(b))) for a, b in self.files[rows]]
        mask = np.zeros(len(self), bool)
        mask[rows] = True
        known = pa.array([one and bytes.fromhex(one) for one in ids], pa.binary(32))
        self.sample = pc.replace_with_mask(self.sample, pa.array(mask), known)

    def brought(self) -> tuple[NDArray[np.intp], list[tuple[int, int]]]:
        """Return which rows bring the label of their sample, and pairs of rows that differ.

        Of several files with the same bytes the first one with a label speaks.

        Returns:
            The rows, ascending, and ``(row, row of the first)`` of each copy with another label.
        """
        told = np.asarray(self.label.is_valid()) | np.asarray(self.boxes.is_valid())
        labelled = np.flatnonzero(self.is_image() & told)
        codes = self.sample.take(pa.array(labelled)).dictionary_encode().indices.to_numpy()
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        texts = np.stack([_codes(self.label)[labelled], _codes(self.boxes)[labelled]], axis=1)
        differ = np.flatnonzero((texts != texts[first][inverse]).any(axis=1))
        pairs = [(int(labelled[row]), int(labelled[first[inverse[row]]])) for row in differ]
        return np.sort(labelled[first]), pairs


def _array(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _codes(encoded: pa.Array) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def ids_of(texts: Sequence[str] | pa.ChunkedArray) -> pa.Array:
    """Return sample ids as binary(32)."""
    column = (
        texts
        if isinstance(texts, pa.ChunkedArray)
        else pa.chunked_array([list(texts)], pa.string())
    )
    data = bytearray()
    for start in range(0, len(column), 65_536):  # of a million ids few are objects at a time
        data += bytes.fromhex("".join(column.slice(start, 65_536).to_pylist()))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(column), [None, pa.py_buffer(bytes(data))]
    )


def texts_of(ids: pa.Array) -> pa.Array:
    """Return sample ids as text, null where there is none."""
    return pa.array([None if one is None else one.hex() for one in ids.to_pylist()], pa.string())


def groups_of(parts: Iterable[Part], column: str) -> Iterable[str]:
    """Yield the group of each row: the text of its metadata in a column, empty for none."""
    for part in parts:
        for told in part.rows["metadata"].to_pylist():
            value = json.loads(told)["values"].get(column) if told else None
            yield value[2] if value else ""
