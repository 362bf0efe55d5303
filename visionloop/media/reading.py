"""Reads and inspects many files at once, and says of every one what became of it."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from visionloop.errors import UnreadableMedia
from visionloop.lake.storage import FileInfo, ObjectChanged, StorageError, name_of
from visionloop.media.exif import exif_of_bytes, same_moment
from visionloop.media.inspect import Inspection, inspect, sample_id_of
from visionloop.media.metadata import (
    MAX_SIDECAR_BYTES,
    Sidecar,
    capture_time,
    combined,
    parse_sidecar,
    sidecar_of,
)
from visionloop.media.sources.entries import CONTAINER, SILENT, Entry, Member

if TYPE_CHECKING:
    from collections.abc import Callable

    from visionloop.media.sources import Source

# Decoding lets go of the interpreter's lock, and so does waiting for a bucket.
THREADS = 8
# What is read ahead of the file whose turn it is: so many files, and of members so many bytes.
_AHEAD = 32 * THREADS
_BYTES_AHEAD = 64 << 20
# What cameras write into a JPEG lies before its picture.
_HEAD = 256 << 10

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
        """What changes when its metadata do."""
        return sidecar_mark(self.entry)


def sidecar_mark(entry: Entry) -> str:
    """Return what changes when what is said of an entry does, empty where its bytes alone speak."""
    marks = [f"{name_of(info.uri)} {info.generation}" for info in entry.sidecars]
    for name, told in (
        ("values", entry.values),
        ("table", entry.table),
        ("path", entry.path),
        ("label", {"label": entry.label} if entry.label else None),
        ("boxes", None if entry.boxes is None else {"boxes": [dict(b) for b in entry.boxes]}),
    ):
        if told:
            text = json.dumps(dict(told), sort_keys=True)
            marks.append(f"{name}={hashlib.sha256(text.encode()).hexdigest()[:16]}")
    return "; ".join(marks)


def renewed_mark(old: str, new: str) -> tuple[str, bool]:
    """Return the mark to keep when an entry's mark changes, and whether an origin went silent.

    What an origin said that no longer speaks (a table above a source that is now a wider one) stays
    with the sample; so the origin stays in the mark, behind what the next listing is compared with.
    """
    parts = {_origin(part): part for part in reversed(old.replace(SILENT, "; ").split("; "))}
    speaking = {_origin(part) for part in new.split("; ")}
    left = [part for origin, part in sorted(parts.items()) if origin and origin not in speaking]
    left = [part for part in left if _origin(part) not in ("label", "boxes")]
    return (new + SILENT + "; ".join(left) if left else new), bool(left)


def _origin(part: str) -> str:
    """Return what speaks in a part of a mark: the name of a sidecar, ``table`` or ``path``."""
    return part.partition("=")[0] if "=" in part else part.rpartition(" ")[0]


def examine(
    source: Source,
    entries: Iterable[Entry],
    *,
    only_metadata: Callable[[Entry], bool] = lambda entry: False,
    keep: Callable[[Inspection, bytes], str] | None = None,
    keep_all: bool = False,
    exif: bool = False,
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
        exif: Whether what a camera wrote into the picture is metadata, too.
        skip_members: Leave out so many members of each container.
        threads: Files read at once.

    Yields:
        One outcome a file, and after the members of a container its own.
    """

    def one(work: Entry | Member) -> Examined:
        if isinstance(work, Member):
            return _member(source, work, keep, exif)
        if only_metadata(work):
            inside = _exif_of(source, work) if exif else None
            return Examined(work, METADATA, 0, sidecar=read_metadata(source, work, inside))
        if work.reason:
            return Examined(work, SKIPPED, 0, reason=work.reason)
        try:
            # Filed under the generation that was listed, so no other may be read.
            data = source.storage.read_listed(work.info)
        except StorageError as error:
            return _not_had(source, work, error)
        found = _inspected(Member(work, data), keep if keep_all else None)
        return _described(source, found, exif)

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
    source: Source, member: Member, keep: Callable[[Inspection, bytes], str] | None, exif: bool
) -> Examined:
    entry = member.entry
    if member.unreadable or member.data is None:
        reason = member.unreadable or entry.reason
        state = UNREADABLE if member.unreadable else SKIPPED
        return Examined(entry, state, 0, member.sample_id, reason, member.detail)
    found = _inspected(member, keep if member.keep else None)
    return _described(source, found, exif, timed=member.captured_at is not None)


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


def _described(source: Source, found: Examined, exif: bool, timed: bool = False) -> Examined:
    """Add the metadata of an image; a time of capture that they state comes before EXIF's.

    Args:
        source: Its source.
        found: The image.
        exif: Whether EXIF is metadata.
        timed: Whether its container tells its time: a sidecar tells that of the whole video.
    """
    image = found.inspection
    if image is None:
        return found
    inside = sidecar_of(image.exif) if exif and image.exif else None
    told = read_metadata(source, found.entry, inside)
    if told is not None and not timed and (moment := capture_time(told)) is not None:
        zoned = "exif_utc_offset" in image.exif
        if image.captured_at and not same_moment(moment, image.captured_at, zoned=zoned):
            said = f"metadata say {moment.isoformat()}, EXIF {image.captured_at.isoformat()}"
            told = replace(told, conflicts=(*told.conflicts, f"time of capture: {said}"))
        image = replace(image, captured_at=moment)
    return replace(found, sidecar=told, inspection=image)


def read_metadata(source: Source, entry: Entry, inside: Sidecar | None = None) -> Sidecar | None:
    """Return the metadata of an image: of its sidecars, its source, its table, its path, its bytes.

    Args:
        source: Its source.
        entry: The image.
        inside: What its bytes say.
    """
    origins = [(name_of(info.uri), _beside(source, info)) for info in entry.sidecars]
    if entry.values:
        origins.append(("the source", sidecar_of(entry.values)))
    if entry.table:
        origins.append(("the table", sidecar_of(entry.table)))
    if entry.path is not None:
        told = sidecar_of(entry.path)
        mismatch = "" if entry.path else unquote(entry.info.uri)
        origins.append(("the path", replace(told, mismatch=mismatch)))
    if inside is not None:
        origins.append(("EXIF", inside))
    return combined(origins)


def _beside(source: Source, info: FileInfo) -> Sidecar:
    if info.size > MAX_SIDECAR_BYTES:
        return Sidecar("", {}, f"larger than {MAX_SIDECAR_BYTES:,} bytes")
    try:
        data = source.storage.read(info.uri)
    except StorageError as error:
        return Sidecar("", {}, f"cannot be read: {error.what}")
    return parse_sidecar(data, yaml=not info.uri.lower().endswith(".json"))


def _exif_of(source: Source, entry: Entry) -> Sidecar | None:
    """Return what the bytes of a known image say; of a JPEG they say it at the beginning."""
    info = entry.info
    try:
        data = source.storage.read_range(info.uri, 0, min(info.size, _HEAD), info.generation)
        if not data.startswith(b"\xff\xd8") and len(data) < info.size:
            data = source.storage.read_listed(info)
    except StorageError as error:
        return Sidecar("", {}, f"EXIF cannot be read: {error.what}")
    values = exif_of_bytes(data)
    return sidecar_of(values) if values else None
