"""Appends lines to segment files, and says when a line is safe.

A line is safe from a ``kill -9`` once write(2) returned, since the kernel holds it then; it is safe
from a power cut once fsync(2) returned, which is the option `durable`. One thread writes: whatever
queued up while it was busy goes out as one write, so that many clients share one call.

Each writer has files of its own, named by time, host, process and a random word: several
collectors can share a folder. A segment is closed when it is large or old; a new one begins with
the next line.
"""

from __future__ import annotations

import fcntl
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from visionloop.errors import VisionloopError

SUFFIX = ".events.jsonl"

# One write(2) carries at most this much: a client waits for no more than what goes with its line.
_BATCH_BYTES = 8 * 1024 * 1024


@dataclass
class Written:
    """What a writer did so far.

    Attributes:
        lines: Lines that are safe.
        bytes: Their bytes.
        failed: Lines that could not be written, for lack of space for example.
        segments: Segments begun.
        error: The last failure, empty when the last write succeeded.
    """

    lines: int = 0
    bytes: int = 0
    failed: int = 0
    segments: int = 0
    error: str = ""


@dataclass(frozen=True)
class _Line:
    data: bytes
    done: Callable[[bool], None] = field(repr=False)


class SegmentWriter:
    """Writes lines to segments in a local folder.

    Args:
        folder: The folder, made where it is missing.
        max_bytes: A segment that reached this size is closed.
        max_seconds: A segment that is this old is closed.
        durable: Wait for fsync(2) before a line counts as written.
        closed: Called with the path of each segment that was closed.
        suffix: End of the segments' names.
        mode: Rights on the segments.

    Raises:
        VisionloopError: The folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_seconds: float = 300.0,
        durable: bool = False,
        closed: Callable[[Path], None] | None = None,
        suffix: str = SUFFIX,
        mode: int = 0o644,
    ) -> None:
        self.written = Written()
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._durable = durable
        self._closed = closed
        self._suffix = suffix
        self._mode = mode
        self._queue: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._queued = 0
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._born = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{secrets.token_hex(8)}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise VisionloopError(
                f"cannot write: {error.strerror}",
                where=str(folder),
                remedy="Check the free space and the rights on the folder",
            ) from error
        self._thread = threading.Thread(target=self._work, name="segments", daemon=True)
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._queued

    def write(self, data: bytes, done: Callable[[bool], None]) -> None:
        """Queue one line, line break included.

        Args:
            data: The line.
            done: Called from the writer's thread with whether the line is safe.
        """
        with self._lock:
            self._queued += len(data)
        self._queue.put(_Line(data, done))

    def close(self) -> None:
        """Write what is queued, close the segment and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        for batch in self._batches():
            if batch:
                ok = self._append(b"".join(line.data for line in batch))
                size = sum(len(line.data) for line in batch)
                with self._lock:
                    self._queued -= size
                if ok:
                    self.written.lines += len(batch)
                    self.written.bytes += size
                else:
                    self.written.failed += len(batch)
                for line in batch:
                    line.done(ok)
            if self._path and (
                self._size >= self._max_bytes or time.monotonic() - self._born >= self._max_seconds
            ):
                self._end_segment()
        self._end_segment()

    def _batches(self) -> Iterator[list[_Line]]:
        """Yield what is queued, together; an empty list where nothing came for a while."""
        while True:
            try:
                line = self._queue.get(timeout=max(0.05, min(1.0, self._max_seconds / 2)))
            except queue.Empty:
                yield []
                continue
            batch: list[_Line] = []
            size = 0
            while line is not None:
                batch.append(line)
                size += len(line.data)
                if size >= _BATCH_BYTES:
                    break
                try:
                    line = self._queue.get_nowait()
                except queue.Empty:
                    break
            yield batch
            if line is None:
                return

    def _append(self, data: bytes) -> bool:
        try:
            if self._file is None:
                self._begin_segment()
            assert self._file is not None
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if self._durable:
                os.fsync(self._file)
        except OSError as error:
            self.written.error = f"{error.strerror} ({self._path})"
            self._undo()
            return False
        self._size += len(data)
        self.written.error = ""
        return True

    def _undo(self) -> None:
        """Cut a line that was written in part: the next one must not grow into it."""
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._end_segment()

    def _begin_segment(self) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        host = socket.gethostname().split(".")[0]
        name = f"{stamp}-{host}-{os.getpid()}-{secrets.token_hex(4)}{self._suffix}"
        self._path = self._folder / name
        part = self._folder / f".{name}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(part, flags, self._mode)
        # The lock tells others that this segment has a living writer; none of them may see it, and
        # lock it, before.
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.rename(self._path)
        self._size = 0
        self._born = time.monotonic()
        self.written.segments += 1
        if self._durable:
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _end_segment(self) -> None:
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        path, self._path = self._path, None
        if self._closed and path:
            self._closed(path)


def abandoned(folder: Path) -> list[Path]:
    """Return the segments of a folder that no living writer holds."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found.append(path)
        except OSError:
            pass
        finally:
            os.close(file)
    return found
