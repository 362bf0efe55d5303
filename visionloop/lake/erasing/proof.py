"""Reads every byte of a lake and its catalog for what was erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.lake.catalog import sqlite_file
from visionloop.lake.erasing.beside import JOURNAL
from visionloop.lake.erasing.scanning import Scanner
from visionloop.lake.erasing.traces import ID, Traces
from visionloop.lake.storage import StorageError, normalise, open_storage

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake


@dataclass
class Proof:
    """What was read to prove an erasure, and what was found.

    Attributes:
        files: Number of files that were read.
        bytes: Their size.
        unpacked: Bytes that were unpacked from compressed ones.
        catalog_rows: Rows of a catalog in a database that were read.
        undecoded: Files that look compressed and cannot be unpacked: what they hold is not known.
        finds: ``{URI: kinds of traces}``; empty when all is gone.
        events: Logged events that still carry a sample.
    """

    files: int = 0
    bytes: int = 0
    unpacked: int = 0
    catalog_rows: int = 0
    undecoded: list[str] = field(default_factory=list)
    finds: dict[str, list[str]] = field(default_factory=dict)
    events: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing was found, and everything could be read."""
        return not self.finds and not self.events and not self.undecoded


def prove(lakes: Sequence[Lake], traces: Traces, elsewhere: Sequence[str] = ()) -> Proof:
    """Read every file below a lake's root, its catalog, and files elsewhere.

    Args:
        lakes: Every loop of the lake.
        traces: What is looked for.
        elsewhere: More folders or prefixes to read.

    Raises:
        StorageError: A file cannot be read: nothing is proven then.
    """
    lake, scanner, proof = lakes[0], Scanner(traces), Proof()
    places = [lake.uri, *elsewhere]
    catalog = sqlite_file(lake.catalog_uri)
    if catalog is not None and not normalise(catalog).startswith(f"{lake.uri}/"):
        places.append(normalise(catalog))
    for where in places:
        storage = open_storage(where)
        for info in storage.list(where) if storage.exists(where) else ():
            if info.uri == lake.path(JOURNAL):
                continue
            try:
                found = scanner.file(storage, info)
            except StorageError:
                if storage.exists(info.uri):
                    raise
                continue  # removed meanwhile
            if found:
                proof.finds[info.uri] = sorted(found)
    if catalog is None:
        _database(lake, traces, proof)
    proof.files, proof.bytes, proof.unpacked = scanner.files, scanner.bytes, scanner.unpacked
    proof.undecoded = scanner.undecoded
    return proof


def _database(lake: Lake, traces: Traces, proof: Proof) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(lake.catalog_uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        for name in ("iceberg_tables", "iceberg_namespace_properties"):
            for row in connection.execute(sqlalchemy.text(f"SELECT * FROM {name}")):
                proof.catalog_rows += 1
                text = " ".join(str(value) for value in row)
                if found := traces.in_text(text):
                    proof.finds[f"catalog: {name}"] = sorted(found or {ID})
