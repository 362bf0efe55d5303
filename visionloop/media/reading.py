"""Reads and inspects many files at once, and says of every one what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from visionloop.errors import UnreadableMedia
from visionloop.lake.storage import FileInfo, StorageError
from visionloop.media.inspect import Inspection, inspect, sample_id_of
from visionloop.media.metadata import Sidecar, parse_sidecar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from visionloop.lake.storage import Storage

# Decoding lets go of the interpreter's lock, and so does waiting for a bucket.
THREADS = 8
_WINDOW = 32 * THREADS

OK, UNREADABLE, SKIPPED = "ok", "unreadable", "skipped"


@dataclass(frozen=True)
class Examined:
    """What became of one file.

    Attributes:
        info: The file as it was listed.
        state: ``ok``; ``unreadable``: its bytes are no image; ``skipped``: its bytes could not be
            had, and the next ingest tries again.
        size: Bytes that were read.
        sample_id: SHA-256 of the bytes, also of unreadable ones; empty when skipped.
        reason: Why it is not ok, in one word.
        detail: Why it is not ok, in the decoder's or the storage's own words.
        inspection: What the image is, when it is ok.
        sidecar: Its metadata, when it is ok and has a sidecar.
    """

    info: FileInfo
    state: str
    size: int
    sample_id: str = ""
    reason: str = ""
    detail: str = ""
    inspection: Inspection | None = None
    sidecar: Sidecar | None = None


def examine(
    storage: Storage,
    files: Iterable[FileInfo],
    sidecars: Mapping[str, str],
    *,
    keep: Callable[[Inspection, bytes], None] | None = None,
    threads: int = THREADS,
) -> Iterator[Examined]:
    """Read and inspect files, in the order given.

    Memory holds some hundred files at a time, however many there are.

    Args:
        storage: Where they lie.
        files: The files.
        sidecars: URI of the sidecar of each image that has one.
        keep: Called with each readable image and its bytes, by several threads at once; where it
            raises, so does this.
        threads: Files read at once.

    Yields:
        One outcome a file.
    """

    def one(info: FileInfo) -> Examined:
        try:
            data = storage.read(info.uri)
        except StorageError as error:
            # Between the listing and the reading a file can vanish; that is no fault of its own.
            reason = "cannot_read" if storage.exists(info.uri) else "vanished"
            return Examined(info, SKIPPED, 0, reason=reason, detail=error.what)
        try:
            found = inspect(data)
        except UnreadableMedia as error:
            return Examined(
                info, UNREADABLE, len(data), sample_id_of(data), error.reason, error.detail
            )
        if keep is not None:
            keep(found, data)
        sidecar = _sidecar(storage, sidecars[info.uri]) if info.uri in sidecars else None
        return Examined(info, OK, len(data), found.sample_id, inspection=found, sidecar=sidecar)

    pending = iter(files)
    with ThreadPoolExecutor(threads, thread_name_prefix="examine") as pool:
        window: Sequence[FileInfo]
        while window := list(islice(pending, _WINDOW)):
            yield from pool.map(one, window)


def _sidecar(storage: Storage, uri: str) -> Sidecar:
    try:
        return parse_sidecar(storage.read(uri))
    except StorageError as error:
        return Sidecar("", {}, f"cannot be read: {error.what}")
