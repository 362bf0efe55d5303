"""Reads and inspects many files at once, and says of every one what became of it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from visionloop.errors import UnreadableMedia
from visionloop.lake.storage import ObjectChanged, StorageError, name_of
from visionloop.media.inspect import Inspection, inspect, sample_id_of
from visionloop.media.metadata import Sidecar, parse_sidecar
from visionloop.media.sources.entries import CONTAINER, Entry, Member

if TYPE_CHECKING:
    from collections.abc import Callable

    from visionloop.media.sources import Source

# Decoding lets go of the interpreter's lock, and so does waiting for a bucket.
THREADS = 8
# What is read ahead of the file whose turn it is: so many files, and of members so many bytes.
_AHEAD = 32 * THREADS
_BYTES_AHEAD = 64 << 20

OK, UNREADABLE, SKIPPED = "ok", "unreadable", "skipped"
# A known image of which only the sidecars were read; a container whose members were.
METADATA, OPENED = "metadata", "container"


@dataclass(frozen=True)
class Examined:
    """What became of one file.

    Attributes:
        entry: The file as it was listed.
        state: ``ok``; ``unreadable``: its bytes are no image; ``skipped``: its bytes could not be
            had, and the next ingest tries again; ``metadata``: a known image whose sidecars alone
            were read; ``container``: a file whose members are files of their own.
        size: Bytes that were read.
        sample_id: SHA-256 of the bytes, also of unreadable ones, or what the container says; empty
            where there are none.
        reason: Why it is not ok, in one word.
        detail: Why it is not ok, in the decoder's or the storage's own words.
        offset: The byte where decoding stopped; None where that is not told.
        kept: Where the lake has its bytes; empty where they are only referred to.
        inspection: What the image is, when it is ok.
        sidecar: Its metadata, when it has any.
    """

    entry: Entry
    state: str
    size: int
    sample_id: str = ""
    reason: str = ""
    detail: str = ""
    offset: int | None = None
    kept: str = ""
    inspection: Inspection | None = None
    sidecar: Sidecar | None = None

    @property
    def sidecar_mark(self) -> str:
        """What changes when its sidecars do."""
        return sidecar_mark(self.entry)


def sidecar_mark(entry: Entry) -> str:
    """Return what changes when an entry's sidecars do, empty where it has none."""
    return "; ".join(f"{name_of(info.uri)} {info.generation}" for info in entry.sidecars)


def examine(
    source: Source,
    entries: Iterable[Entry],
    *,
    only_metadata: Callable[[Entry], bool] = lambda entry: False,
    keep: Callable[[Inspection, bytes], str] | None = None,
    keep_all: bool = False,
    skip_members: int = 0,
    threads: int = THREADS,
) -> Iterator[Examined]:
    """Read and inspect files, in the order given, and what containers hold in its order.

    Memory holds some hundred files at a time, however many there are.

    Args:
        source: Where they lie.
        entries: The files; sidecars and the like are no files here.
        only_metadata: Whether an entry's image is known and its sidecars alone are to be read.
        keep: Stores a readable image's bytes and returns where; called by several threads at once;
            where it raises, so does this. Without it nothing is kept.
        keep_all: Keep every image, not only those that lie nowhere else.
        skip_members: Leave out so many members of each container.
        threads: Files read at once.

    Yields:
        One outcome a file, and after the members of a container its own.
    """

    def one(work: Entry | Member) -> Examined:
        if isinstance(work, Member):
            return _member(source, work, keep)
        if only_metadata(work):
            return Examined(work, METADATA, 0, sidecar=read_metadata(source, work))
        if work.reason:
            return Examined(work, SKIPPED, 0, reason=work.reason)
        try:
            # Filed under the generation that was listed, so no other may be read.
            data = source.storage.read_listed(work.info)
        except StorageError as error:
            return _not_had(source, work, error)
        found = _inspected(Member(work, data), keep if keep_all else None)
        if found.state == OK:
            found = replace(found, sidecar=read_metadata(source, work))
        return found

    with ThreadPoolExecutor(threads, thread_name_prefix="examine") as pool:
        ahead: deque[tuple[Future[Examined], int]] = deque()
        weight = 0
        for work in _work(source, entries, skip_members):
            size = len(work.data or b"") if isinstance(work, Member) else 0
            if isinstance(work, Examined):
                # A container's own outcome comes after its members'.
                done: Future[Examined] = Future()
                done.set_result(work)
                ahead.append((done, 0))
            else:
                ahead.append((pool.submit(one, work), size))
            weight += size
            while len(ahead) > _AHEAD or weight > _BYTES_AHEAD:
                finished, size = ahead.popleft()
                weight -= size
                yield finished.result()
        while ahead:
            yield ahead.popleft()[0].result()


def _work(
    source: Source, entries: Iterable[Entry], skip_members: int
) -> Iterator[Entry | Member | Examined]:
    for entry in entries:
        if entry.role != CONTAINER or entry.reason:
            yield entry
            continue
        try:
            yield from source.members(entry, skip_members)
        except StorageError as error:
            yield _not_had(source, entry, error)
        else:
            yield Examined(entry, OPENED, entry.info.size)


def _not_had(source: Source, entry: Entry, error: StorageError) -> Examined:
    # Between the listing and the reading a file can vanish or change; that is no fault of its own.
    if not source.storage.exists(entry.info.uri):
        reason = "vanished"
    else:
        reason = "changed" if isinstance(error, ObjectChanged) else "cannot_read"
    return Examined(entry, SKIPPED, 0, reason=reason, detail=error.what)


def _member(
    source: Source, member: Member, keep: Callable[[Inspection, bytes], str] | None
) -> Examined:
    entry = member.entry
    if member.unreadable or member.data is None:
        reason = member.unreadable or entry.reason
        state = UNREADABLE if member.unreadable else SKIPPED
        return Examined(entry, state, 0, member.sample_id, reason, member.detail)
    found = _inspected(member, keep if member.keep else None)
    if found.state == OK:
        found = replace(found, sidecar=read_metadata(source, entry))
    return found


def _inspected(member: Member, keep: Callable[[Inspection, bytes], str] | None) -> Examined:
    data = member.data or b""
    try:
        found = inspect(data)
    except UnreadableMedia as error:
        return Examined(
            member.entry,
            UNREADABLE,
            len(data),
            member.sample_id or sample_id_of(data),
            error.reason,
            error.detail,
            getattr(error, "offset", None),
        )
    found = replace(
        found,
        sample_id=member.sample_id or found.sample_id,
        captured_at=found.captured_at or member.captured_at,
    )
    kept = keep(found, data) if keep is not None else ""
    return Examined(member.entry, OK, len(data), found.sample_id, kept=kept, inspection=found)


def read_metadata(source: Source, entry: Entry) -> Sidecar | None:
    """Return the metadata of an image: what its sidecar says, else what its source does."""
    told = _values_of(entry) if entry.values else None
    if not entry.sidecars:
        return told
    try:
        beside = parse_sidecar(source.storage.read(entry.sidecars[0].uri))
    except StorageError as error:
        beside = Sidecar("", {}, f"cannot be read: {error.what}")
    if told is None:
        return beside
    return replace(beside, values={**told.values, **beside.values})


def _values_of(entry: Entry) -> Sidecar:
    return parse_sidecar(json.dumps(dict(entry.values), ensure_ascii=False).encode())
