"""What tells of erased samples, and where it is found in text and bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.storage import is_member, local_path

# So many characters of an id are looked for: Iceberg's bounds hold 16, of which it may raise the
# last; our own messages tell 12.
SHORT = 12
ID, URI, BYTES = "id", "uri", "bytes"


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
    def pattern(self) -> str:
        """The same for Arrow, which knows no look-around: what it finds may be no trace."""
        ids = sorted({one[:SHORT] for one in self.ids})
        return f"(?i:{'|'.join(ids)})" + "".join(f"|{_quoted(form)}" for form in self.places)

    @cached_property
    def raw_pattern(self) -> str:
        """What finds ids, as text or as 32 bytes, places and blobs in bytes of any kind."""
        raw = {form.encode() for form in self.places}
        raw |= {bytes.fromhex(one) for one in self.ids}
        raw |= {_middle(one) for one in self.blobs}
        told = ["".join(rf"\x{byte:02x}" for byte in one) for one in sorted(raw)]
        return "|".join([f"(?i:{'|'.join(sorted(self._short))})", *told])

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

    def in_bytes(self, data: bytes | memoryview) -> set[str]:
        """Return what kinds of traces some bytes hold."""
        held = pa.array([data], pa.large_binary())
        if not pc.match_substring_regex(held, pattern=self.raw_pattern)[0].as_py():
            return set()
        whole = bytes(data)
        found = set()
        lower = whole.lower()
        if any(one.encode() in lower for one in self._short):
            found.add(ID)
        if any(bytes.fromhex(one) in whole for one in self.ids):
            found.add(ID)
        if any(one in whole for one in self.blobs):
            found.add(BYTES)
        if self.places and self.in_text(whole.decode("latin-1")) & {URI}:
            found.add(URI)
        if any(not form.isascii() and form.encode() in whole for form in self.places):
            found.add(URI)
        return found

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
            some = pc.fill_null(pc.match_substring_regex(column, pattern=self.raw_pattern), False)
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
        return pc.fill_null(pc.match_substring_regex(column, pattern=self.pattern), False)


def _middle(blob: bytes) -> bytes:
    # A thumbnail is too long for a pattern; whether all of it is there is looked at afterwards.
    return blob[len(blob) // 2 :][:24]


def _quoted(text: str) -> str:
    return "".join(
        one if one.isalnum() and one.isascii() else rf"\x{{{ord(one):x}}}" for one in text
    )
