"""Which samples were erased, so that they are recognised when they come again.

A sample's id is the SHA-256 of its bytes, and so tells of them. What stays is the SHA-256 of that
id with a salt of the lake: whoever has the picture and the lake can still tell that it was erased,
and nobody can tell from the lake which picture it was.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from visionloop.lake.schemas import ERASED, arrow_schema

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

# What stands in the place of an erased sample's id begins with this, which no id does.
PREFIX = "erased-"
# Why an ingest leaves a file out.
REASON = "erased"


@dataclass(frozen=True)
class Tombstones:
    """The samples that were erased from a loop.

    Attributes:
        salt: Salt of the lake, empty where nothing was erased yet.
        names: ``{digest: name}``; the name stands in the sample's place.
    """

    salt: str = ""
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, lake: Lake, *, version: str | None = None) -> Tombstones:
        """Read them."""
        columns = ["tombstone", "digest", "salt"]
        rows = lake.read(ERASED, columns=columns, version=version).to_pylist()
        salt = rows[0]["salt"] if rows else ""
        return cls(salt, {row["digest"]: row["tombstone"] for row in rows})

    @classmethod
    def of_all(cls, lakes: Iterable[Lake]) -> Tombstones:
        """Read those of all loops of a lake, which have one salt."""
        held = [cls.of(lake) for lake in lakes]
        salt = next((one.salt for one in held if one.salt), "")
        return cls(salt, {name: stone for one in held for name, stone in one.names.items()})

    def __contains__(self, sample_id: object) -> bool:
        """Whether a sample was erased."""
        return bool(self.names) and digest(self.salt, str(sample_id)) in self.names

    def name_of(self, sample_id: str) -> str:
        """Return what stands in an erased sample's place, empty for one that was not."""
        return self.names.get(digest(self.salt, sample_id), "")

    def with_more(self, sample_ids: Iterable[str]) -> Tombstones:
        """Return these and those of more samples."""
        salt = self.salt or secrets.token_hex(16)
        names = dict(self.names)
        for sample_id in sample_ids:
            names.setdefault(digest(salt, sample_id), PREFIX + secrets.token_hex(8))
        return Tombstones(salt, names)

    def rows(self, but: Tombstones, now: datetime) -> pa.Table:
        """Return the rows of those that others lack.

        Args:
            but: The others.
            now: Time of the erasure, UTC.
        """
        new = [one for one in self.names if one not in but.names]
        columns = {
            "tombstone": [self.names[one] for one in new],
            "digest": new,
            "salt": [self.salt] * len(new),
            "erased_at": [now] * len(new),
        }
        schema = arrow_schema(ERASED)
        return pa.table(columns, schema=pa.schema([schema.field(name) for name in columns]))


def digest(salt: str, sample_id: str) -> str:
    """Return what is kept of an id."""
    return hashlib.sha256(f"{salt} {sample_id}".encode()).hexdigest()
