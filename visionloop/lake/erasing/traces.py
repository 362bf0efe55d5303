"""What tells of erased samples, and where it is found in text and bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.storage import is_member, local_path

# So many characters of an id are looked for: Iceberg's bounds hold 16, of which it may raise the
# last; our own messages tell 12.
SHORT = 12
# Of more alternatives Arrow's patterns become a hundred times slower, all at once.
_AT_ONCE = 128
ID, URI, BYTES = "id", "uri", "bytes"
_HEX = "hex"
T = TypeVar("T")


@dataclass(frozen=True)
class Traces:
    """What tells of samples that are to be erased.

    Attributes:
        ids: Their ids, 64 hexadecimal digits each.
        uris: Places of files that only they had.
        blobs: Vectors and thumbnails that only they have.
        events: Ids of logged events that carried them.
        answered: Those of `events` whose answers are known.
        answers: SHA-256 of the bodies of those answers.
    """

    ids: frozenset[str]
    uris: frozenset[str] = frozenset()
    blobs: frozenset[bytes] = field(default=frozenset(), repr=False)
    events: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, list[str]]:
        """Return them for the journal."""
        return {
            name: sorted(
                one.hex() if isinstance(one, bytes) else one for one in getattr(self, name)
            )
            for name in self.__dataclass_fields__
        }

    @classmethod
    def of_json(cls, told: dict[str, list[str]]) -> Traces:
        """Read what `to_json` returned."""
        held: dict[str, Any] = {name: frozenset(values) for name, values in told.items()}
        held["blobs"] = frozenset(bytes.fromhex(one) for one in told["blobs"])
        return cls(**held)

    def __or__(self, other: Traces) -> Traces:
        """Return both together."""
        return Traces(
            *(getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__)
        )

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.ids)

    @cached_property
    def places(self) -> list[str]:
        """The forms in which a place may be written, the longest first."""
        found = set()
        for uri in self.uris:
            forms = {uri}
            if uri.startswith("file://") and not is_member(uri):
                forms.add(str(local_path(uri)))
            for form in forms:
                found |= {form, json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1]}
        return sorted(found, key=lambda form: (-len(form), form))

    @cached_property
    def text(self) -> re.Pattern[str]:
        """What finds an id, whole or in part, or a place."""
        ids = "|".join(sorted({one[:SHORT] for one in self.ids}))
        return re.compile(
            f"(?i:(?:{ids})[0-9a-f]*)|{self._places}" if self.places else f"(?i:(?:{ids})[0-9a-f]*)"
        )

    @cached_property
    def _places(self) -> str:
        # `/a.jpg` is neither in `/a.jpg.json` nor in `/b/a.jpg`.
        forms = "|".join(re.escape(form) for form in self.places)
        return rf"(?<![\w.%~/-])(?:{forms})(?!\.?[\w%~-])"

    @cached_property
    def patterns(self) -> list[str]:
        """The same for Arrow, which knows no look-around: what it finds may be no trace."""
        told = [f"(?i:{one})" for one in sorted(self._short)] + [
            _quoted(one) for one in self.places
        ]
        return ["|".join(some) for some in _some(told)]

    @cached_property
    def _needles(self) -> list[list[tuple[str, str, bytes]]]:
        """What is looked for in bytes of any kind: its kind, what finds it, all of it."""
        raw = [(ID, bytes.fromhex(one)) for one in sorted(self.ids)]
        raw += [(BYTES, one) for one in sorted(self.blobs)]
        found = [(_HEX, f"(?i:{one})", one.encode()) for one in sorted(self._short)]
        found += [(kind, _escaped(_middle(one)), one) for kind, one in raw]
        found += [(URI, _escaped(form.encode()), form.encode()) for form in self.places]
        return list(_some(found))

    @cached_property
    def longest(self) -> int:
        """Length of the longest of them in bytes: pieces of a file overlap by as much."""
        known = [64, *(len(form.encode()) for form in self.places), *map(len, self.blobs)]
        return max(known) + 1

    def in_text(self, text: str) -> set[str]:
        """Return what kinds of traces a text holds."""
        return {
            ID if found[0][:SHORT].lower() in self._short else URI
            for found in self.text.finditer(text)
        }

    @cached_property
    def _short(self) -> frozenset[str]:
        return frozenset(one[:SHORT] for one in self.ids)

    def in_bytes(self, data: bytes) -> set[str]:
        """Return what kinds of traces some bytes hold."""
        held = pa.array([data], pa.large_binary())
        found: set[str] = set()
        for needles in self._needles:
            pattern = "|".join(one for _, one, _ in needles)
            if not pc.match_substring_regex(held, pattern=pattern)[0].as_py():
                continue
            kinds = {kind for kind, _, _ in needles}
            lower = data.lower() if _HEX in kinds else b""
            for kind, _, whole in needles:
                if kind == URI:
                    if whole in data and self._is_place(whole, data):
                        found.add(URI)
                elif whole in (lower if kind == _HEX else data):
                    found.add(ID if kind == _HEX else kind)
        return found

    def _is_place(self, form: bytes, data: bytes) -> bool:
        # As in `_places`.
        return (
            re.search(rb"(?<![\w.%~/-])" + re.escape(form) + rb"(?!\.?[\w%~-])", data) is not None
        )

    def in_column(self, column: pa.Array | pa.ChunkedArray) -> set[str]:
        """Return what kinds of traces a column holds, whatever its type."""
        kind = column.type
        found: set[str] = set()
        if isinstance(column, pa.ChunkedArray):
            for chunk in column.chunks:
                found |= self.in_column(chunk)
        elif pa.types.is_dictionary(kind):
            found |= self.in_column(column.dictionary)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            found |= self.in_column(column.flatten())
        elif pa.types.is_struct(kind):
            for part in column.flatten():
                found |= self.in_column(part)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            for text in column.filter(self.suspects(column)).to_pylist():
                found |= self.in_text(text)
        elif pa.types.is_fixed_size_binary(kind):
            found |= self._in_binary(column, kind.byte_width)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            for needles in self._needles:
                pattern = "|".join(one for _, one, _ in needles)
                some = pc.fill_null(pc.match_substring_regex(column, pattern=pattern), False)
                for value in column.filter(some).to_pylist():
                    found |= self.in_bytes(value)
        return found

    def _in_binary(self, column: pa.Array, width: int) -> set[str]:
        found = set()
        for kind, values in ((ID, {bytes.fromhex(one) for one in self.ids}), (BYTES, self.blobs)):
            mine = [one for one in values if len(one) == width]
            if mine and pc.any(pc.is_in(column, pa.array(mine, pa.binary(width)))).as_py():
                found.add(kind)
        return found

    def suspects(self, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return which texts of a column may hold a trace."""
        found = pa.repeat(False, len(column))
        for pattern in self.patterns:
            some = pc.fill_null(pc.match_substring_regex(column, pattern=pattern), False)
            found = pc.or_(found, some)
        return found


def _some(every: Sequence[T]) -> Iterator[list[T]]:
    for start in range(0, len(every), _AT_ONCE):
        yield list(every[start : start + _AT_ONCE])


def _escaped(data: bytes) -> str:
    return "".join(rf"\x{byte:02x}" for byte in data)


def _middle(blob: bytes) -> bytes:
    # A thumbnail is too long for a pattern; whether all of it is there is looked at afterwards.
    return blob[len(blob) // 2 :][:24]


def _quoted(text: str) -> str:
    return "".join(
        one if one.isalnum() and one.isascii() else rf"\x{{{ord(one):x}}}" for one in text
    )
