"""Removes erased samples from files of logged events, without moving what else they hold.

A harvest knows how far it read a file by bytes and lines. So a line that goes is overwritten with
spaces: every later line stays where it is, and a collector may go on to append.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.errors import InputError, VisionloopError
from visionloop.lake.storage import FileInfo, local_path, open_storage, scheme_of
from visionloop.serving.blobs import blob_events
from visionloop.serving.events import Event, parse_line
from visionloop.serving.raw_spool import wait_until_reduced
from visionloop.serving.requests import Request
from visionloop.serving.seen import see
from visionloop.serving.segments import find, is_blob

if TYPE_CHECKING:
    from visionloop.lake.erasing.traces import Traces

_SETTLE_SECONDS = 15.0


@dataclass
class Blanked:
    """What was done to files of events.

    Attributes:
        lines: Lines that were overwritten.
        files: URIs of the files that they were in.
        objects: URIs of objects of one event that were removed whole.
        read: Files that were read.
        bytes: Their size.
    """

    lines: int = 0
    files: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    read: int = 0
    bytes: int = 0


class LoggedEvents:
    """The logged events of a lake, as an erasure sees them.

    Args:
        where: Folder or prefix of the events.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def carried(self, ids: frozenset[str]) -> tuple[set[str], set[str]]:
        """Return the ids of the events that carried samples, and the samples that were found.

        Raises:
            VisionloopError: A collector's spool holds events that nobody reduces.
        """
        self._settle()
        events: set[str] = set()
        known: set[str] = set()
        for info in self._files():
            for event, _ in _events_of(info):
                held = _samples(event) & ids | {one for one in ids if one in event.metadata}
                if held:
                    known |= held
                    events.add(event.event_id)
        return events - {""}, known

    def erase(self, traces: Traces, *, dry_run: bool = False) -> Blanked:
        """Overwrite every line with an event that carried a sample, or with the answer to it.

        Args:
            traces: What tells of the samples.
            dry_run: Only tell what would be done.

        Raises:
            VisionloopError: A collector's spool holds events that nobody reduces.
        """
        done = Blanked()
        self._settle()
        for info in self._files():
            done.read += 1
            done.bytes += info.size
            if is_blob(info.uri):
                if any(_tells(event, traces) for event, _ in _events_of(info)):
                    done.objects.append(info.uri)
                    if not dry_run:
                        open_storage(info.uri).delete(info.uri)
                continue
            spans = _spans(info, traces)
            if spans:
                done.lines += len(spans)
                done.files.append(info.uri)
                if not dry_run:
                    _overwrite(info, spans)
        return done

    def _files(self) -> list[FileInfo]:
        try:
            return find(self.where)
        except InputError:
            return []  # nothing was logged

    def _settle(self) -> None:
        if scheme_of(self.where) != "file":
            return
        left = wait_until_reduced(local_path(self.where), _SETTLE_SECONDS)
        if left:
            raise VisionloopError(
                f"{left} segments of logged events wait to be reduced to hashes, and hold pixels",
                where=self.where,
                remedy="Start `visionloop collect` on this folder until they are, then run the "
                "same command again",
            )


def _plain(info: FileInfo) -> bytes:
    data = open_storage(info.uri).read(info.uri)
    if not info.uri.endswith(".gz"):
        return data
    unpacked = bytearray()
    while data.strip(b"\0"):
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(data) + member.flush()
        except zlib.error:
            break  # broken: what came before counts, as for the harvest
        data = member.unused_data
    return bytes(unpacked)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield start, data[start:end]
        start = end


def _events_of(info: FileInfo) -> Iterator[tuple[Event, int]]:
    """Yield the events of a file, each with where its line begins."""
    if is_blob(info.uri):
        for event in blob_events(open_storage(info.uri).read(info.uri), info.uri):
            yield event, 0
        return
    for number, (start, line) in enumerate(_lines(_plain(info)), start=1):
        if line.strip():
            for event in parse_line(line, uri=info.uri, number=number):
                yield event, start


def _samples(event: Event) -> set[str]:
    if event.kind != "request":
        return set()
    half = see(event).half
    content = half.content if half else None
    return {one for one in content.samples if one} if isinstance(content, Request) else set()


def _tells(event: Event, traces: Traces) -> bool:
    if traces.in_text(event.metadata) or _samples(event) & traces.ids:
        return True
    if event.event_id not in traces.events or event.kind != "response":
        return False
    half = see(event).half
    return event.event_id not in traces.answered or (
        half is not None and half.body_sha256 in traces.answers
    )


def _spans(info: FileInfo, traces: Traces) -> list[tuple[int, int]]:
    """Return where the lines lie that go: first byte and length, without the line break."""
    found = []
    for number, (start, line) in enumerate(_lines(_plain(info)), start=1):
        plain = line.rstrip(b"\n")
        if plain.strip() and (
            traces.in_bytes(plain)
            or any(_tells(event, traces) for event in parse_line(line, uri=info.uri, number=number))
        ):
            found.append((start, len(plain)))
    return found


def _overwrite(info: FileInfo, spans: list[tuple[int, int]]) -> None:
    if scheme_of(info.uri) == "file" and not info.uri.endswith(".gz"):
        with local_path(info.uri).open("r+b") as file:
            for start, length in spans:
                file.seek(start)
                file.write(b" " * length)
            file.flush()
            os.fsync(file.fileno())
        return
    data = bytearray(_plain(info))
    for start, length in spans:
        data[start : start + length] = b" " * length
    whole = bytes(data)
    if info.uri.endswith(".gz"):
        # Readers skip zeros behind the end; of another size, the harvest would read it anew.
        whole = gzip.compress(whole, 9, mtime=0).ljust(info.size, b"\0")
    open_storage(info.uri).write(info.uri, whole)
