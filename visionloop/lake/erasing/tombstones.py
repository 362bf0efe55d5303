"""Which samples were erased, so that they are recognised when they come again.

A sample's id is the SHA-256 of its bytes, and so tells of them. What stays is the SHA-256 of that
id with a salt of the lake: whoever has the picture and the lake can still tell that it was erased,
and nobody can tell from the lake which picture it was. The same is kept of the place and generation
of each file that held one, so that nobody reads the file again only to leave it out.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.lake.schemas import ERASED, arrow_schema
from visionloop.lake.storage import is_member

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

# What stands in the place of an erased sample's id begins with this, which no id does.
PREFIX = "erased-"
# What a row of a file has in the place of that name.
FILE = PREFIX + "file"
# Why an ingest leaves a file out.
REASON = "erased"


@dataclass(frozen=True)
class Tombstones:
    """The samples that were erased from a loop.

    Attributes:
        salt: Salt of the lake, empty where nothing was erased yet.
        names: ``{digest: name}``; the name stands in the sample's place.
        files: Digests of the files that held them, by URI and generation.
    """

    salt: str = ""
    names: dict[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    @classmethod
    def of(cls, lake: Lake, *, version: str | None = None) -> Tombstones:
        """Read them."""
        columns = ["tombstone", "digest", "salt"]
        rows = lake.read(ERASED, columns=columns, version=version).to_pylist()
        salt = rows[0]["salt"] if rows else ""
        told = {row["digest"]: row["tombstone"] for row in rows}
        files = frozenset(one for one, name in told.items() if name == FILE)
        return cls(salt, {one: told[one] for one in told if one not in files}, files)

    @classmethod
    def of_all(cls, lakes: Iterable[Lake]) -> Tombstones:
        """Read those of all loops of a lake, which have one salt."""
        held = [cls.of(lake) for lake in lakes]
        salt = next((one.salt for one in held if one.salt), "")
        names = {name: stone for one in held for name, stone in one.names.items()}
        return cls(salt, names, frozenset().union(*(one.files for one in held)))

    def __contains__(self, sample_id: object) -> bool:
        """Whether a sample was erased."""
        return bool(self.names) and digest(self.salt, str(sample_id)) in self.names

    def name_of(self, sample_id: str) -> str:
        """Return what stands in an erased sample's place, empty for one that was not."""
        return self.names.get(digest(self.salt, sample_id), "")

    def has_file(self, uri: str, generation: str) -> bool:
        """Whether a file held an erased sample."""
        return bool(self.files) and _file(self.salt, uri, generation) in self.files

    def with_more(
        self, sample_ids: Iterable[str], files: Iterable[tuple[str, str]] = ()
    ) -> Tombstones:
        """Return these and those of more samples and files.

        Args:
            sample_ids: The samples.
            files: URI and generation of files that hold erased samples. Members of containers are
                left out: no listing shows them.
        """
        salt = self.salt or secrets.token_hex(16)
        names = dict(self.names)
        for sample_id in sample_ids:
            names.setdefault(digest(salt, sample_id), PREFIX + secrets.token_hex(8))
        more = {_file(salt, uri, told) for uri, told in files if not is_member(uri)}
        return Tombstones(salt, names, self.files | more)

    def rows(self, but: Tombstones, now: datetime) -> pa.Table:
        """Return the rows of those that others lack.

        Args:
            but: The others.
            now: Time of the erasure, UTC.
        """
        new = {one: name for one, name in self.names.items() if one not in but.names}
        new |= dict.fromkeys(sorted(self.files - but.files), FILE)
        columns = {
            "tombstone": list(new.values()),
            "digest": list(new),
            "salt": [self.salt] * len(new),
            "erased_at": [now] * len(new),
        }
        schema = arrow_schema(ERASED)
        return pa.table(columns, schema=pa.schema([schema.field(name) for name in columns]))


def digest(salt: str, sample_id: str) -> str:
    """Return what is kept of an id."""
    return hashlib.sha256(f"{salt} {sample_id}".encode(errors="surrogateescape")).hexdigest()


def erased_between(lake: Lake, earlier: str, later: str) -> bool:
    """Return whether samples were erased between two versions of a loop.

    Files of samples that were erased before do not count: an ingest adds those that it meets.

    Args:
        lake: The loop's lake.
        earlier: A version, empty for before the first; one that was dropped was so by an erasure.
        later: A version that can be read.
    """
    if not earlier:
        return True
    try:
        before = Tombstones.of(lake, version=earlier).names
    except InputError:
        return True
    return before != Tombstones.of(lake, version=later).names


def _file(salt: str, uri: str, generation: str) -> str:
    return digest(salt, f"{uri}\n{generation}")
