"""What a backup holds: its manifest, written last, by which every byte of it can be verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from visionloop.errors import InputError, VisionloopError
from visionloop.lake.storage import (
    Storage,
    StorageError,
    join,
    name_of,
    open_storage,
)

FORMAT = 1
MANIFEST = "manifest.json"
# Says that a backup is being written; it is removed once the manifest is there.
UNFINISHED = "unfinished.json"


@dataclass(frozen=True)
class Entry:
    """One file of a backup.

    Attributes:
        path: Place in the backup, with slashes.
        size: Bytes.
        sha256: Of its bytes.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The table of contents of a backup.

    Attributes:
        lake: Root of the lake that was copied.
        loop: Name of its loop.
        version: The lake version that was copied.
        sequence: Place of that version among the stage runs.
        schema_version: Schema version of its tables.
        program: The visionloop that made the backup.
        made_at: UTC, ISO 8601.
        events: Whether logged events are among the files.
        tables: ``{table: {"rows": number, "parts": [path, …]}}``.
        files: Every file, those of the tables too.
        format: Of the backup.
    """

    lake: str
    loop: str
    version: str
    sequence: int
    schema_version: int
    program: str
    made_at: str
    events: bool
    tables: dict[str, dict[str, Any]]
    files: list[Entry] = field(default_factory=list)
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON that holds its own digest."""
        held = asdict(self)
        return json.dumps(held | {"digest": _digest(held)}, indent=1).encode()


def _digest(held: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def read_manifest(backup: str) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        InputError: There is no backup, it was not finished, or its manifest is damaged.
    """
    storage = open_storage(backup)
    uri = join(backup, MANIFEST)
    try:
        text = storage.read(uri)
    except StorageError as error:
        begun = storage.exists(join(backup, UNFINISHED))
        raise InputError(
            "this backup was not finished" if begun else "there is no backup here",
            where=backup,
            remedy="Make it again with: visionloop lake backup"
            if begun
            else f"Name the folder that holds {MANIFEST}",
        ) from error
    try:
        held = json.loads(text)
        if not isinstance(held, dict) or int(held.get("format", 0)) > FORMAT:
            raise InputError(
                "this backup was made by a newer visionloop",
                where=uri,
                remedy="Upgrade visionloop here to the version that made it",
            )
        if held.pop("digest") != _digest(held):
            raise ValueError("its digest differs")
        entries = [Entry(**entry) for entry in held.pop("files")]
        return Manifest(**held, files=entries)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the backup's manifest is damaged: {error}",
            where=uri,
            remedy="Use another copy of the backup",
        ) from error


def read_verified(storage: Storage, backup: str, entry: Entry) -> bytes:
    """Return the bytes of a backup's file.

    Args:
        storage: Storage of the backup.
        backup: URI of the backup's folder.
        entry: The file, as its manifest names it.

    Raises:
        VisionloopError: They are not those that the manifest names.
    """
    uri = join(backup, *entry.path.split("/"))
    data = storage.read(uri)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise VisionloopError(
            "a file of the backup is damaged: its SHA-256 differs from the manifest's",
            where=uri,
            remedy="Use another copy of the backup",
        )
    return data


def verify(backup: str, manifest: Manifest, *, threads: int = 8) -> None:
    """Read every file of a backup and compare it with the manifest.

    Args:
        backup: URI of the backup's folder.
        manifest: Its manifest.
        threads: Files that are read at a time.

    Raises:
        VisionloopError: One is missing or damaged.
    """
    storage = open_storage(backup)
    by_uri = {join(backup, *entry.path.split("/")): entry for entry in manifest.files}
    for uri, data in storage.read_many(by_uri, threads=threads):
        if isinstance(data, StorageError):
            raise VisionloopError(
                f"a file of the backup is missing: {data.what}",
                where=uri,
                remedy="Use another copy of the backup",
            ) from data
        if hashlib.sha256(data).hexdigest() != by_uri[uri].sha256:
            raise VisionloopError(
                "a file of the backup is damaged: its SHA-256 differs from the manifest's",
                where=uri,
                remedy="Use another copy of the backup",
            )


class Writer:
    """Writes the files of a backup and notes what was written.

    Attributes:
        entries: What was written so far.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._storage = open_storage(root)
        self.entries: list[Entry] = []

    def write(self, path: str, data: bytes) -> None:
        """Write one file."""
        self._storage.write(join(self._root, *path.split("/")), data)
        self.entries.append(Entry(path, len(data), hashlib.sha256(data).hexdigest()))

    def finish(self, manifest: Manifest) -> Manifest:
        """Verify what was written, then write the manifest, which makes it a backup."""
        whole = replace(manifest, files=sorted(self.entries, key=lambda entry: entry.path))
        verify(self._root, whole)
        self._storage.write(join(self._root, MANIFEST), whole.to_bytes())
        self._storage.delete(join(self._root, UNFINISHED))
        return whole


def files_under(storage: Storage, uri: str) -> Iterator[str]:
    """Yield the URIs under a folder, none where it does not exist.

    What a killed write left beside its file (its name begins with a dot) is left out.
    """
    if storage.exists(uri):
        for info in storage.list(uri):
            if not name_of(info.uri).startswith("."):
                yield info.uri
