"""Appends lines to segment files, and says when a line is safe.

A line is safe from a ``kill -9`` once write(2) returned, since the kernel holds it then; it is safe
from a power cut once fdatasync(2) returned, which is the option `durable`. One thread writes:
whatever queued up while it was busy goes out as one write and one sync, so that many clients share
them.

Each writer has files of its own, named by time, host, process and a random word: several
collectors can share a folder. A segment is closed when it is large or old; a new one begins with
the next line. Its file was made beforehand, under a hidden name that is on the disk already, so
that no line waits for a folder's sync. Where a power cut loses the change of that name, the next
writer on the folder makes it (`adopt`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from visionloop.errors import VisionloopError
from visionloop.progress import log

SUFFIX = ".events.jsonl"

# One write(2) carries at most this much: a client waits for no more than what goes with its line.
_BATCH_BYTES = 8 * 1024 * 1024
_BUFFERS = 512  # of one writev(2); Linux takes 1,024

# A file that is being made is locked, then gets the hidden name under which it waits to be used.
_SPARE, _MADE = ".part", ".new"
_STALE_SECONDS = 60.0


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
    buffers: Sequence[bytes]
    size: int
    done: Callable[[bool], None] = field(repr=False)


class SegmentWriter:
    """Writes lines to segments in a local folder.

    Args:
        folder: The folder, made where it is missing.
        max_bytes: A segment that reached this size is closed.
        max_seconds: A segment that is this old is closed.
        durable: Wait for fdatasync(2) before a line counts as written.
        closed: Called with the path of each segment that was closed.
        suffix: End of the segments' names.
        mode: Rights on the segments, which hold what production sent: others may not read them.

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
        mode: int = 0o640,
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
        self._spare: tuple[int, Path] | None = None
        self._making: threading.Thread | None = None
        try:
            make_folder(folder, durable=durable)
            probe = folder / f".{secrets.token_hex(8)}"
            probe.touch()
            probe.unlink()
            adopt(folder, suffix)
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

    def write(self, buffers: Sequence[bytes], done: Callable[[bool], None]) -> None:
        """Queue one line, line break included.

        Args:
            buffers: The line, in pieces: they are written without being joined.
            done: Called from the writer's thread with whether the line is safe.
        """
        size = sum(len(buffer) for buffer in buffers)
        with self._lock:
            self._queued += size
        self._queue.put(_Line(buffers, size, done))

    def close(self) -> None:
        """Write what is queued, close the segment and end the thread."""
        self._queue.put(None)
        self._thread.join()
        if self._making:
            self._making.join()
        if self._spare:
            with contextlib.suppress(OSError):  # the next writer on the folder finds it
                self._spare[1].unlink(missing_ok=True)
                os.close(self._spare[0])
            self._spare = None

    def _work(self) -> None:
        for batch in self._batches():
            if batch:
                size = sum(line.size for line in batch)
                ok = self._append([buffer for line in batch for buffer in line.buffers], size)
                with self._lock:
                    self._queued -= size
                if ok:
                    self.written.lines += len(batch)
                    self.written.bytes += size
                else:
                    self.written.failed += len(batch)
                for line in batch:
                    with contextlib.suppress(RuntimeError):  # its event loop is gone
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
                size += line.size
                if size >= _BATCH_BYTES:
                    break
                try:
                    line = self._queue.get_nowait()
                except queue.Empty:
                    break
            yield batch
            if line is None:
                return

    def _append(self, buffers: list[bytes], size: int) -> bool:
        try:
            if self._file is None:
                self._begin_segment()
            assert self._file is not None
            _write_all(self._file, buffers)
            if self._durable:
                os.fdatasync(self._file)
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            self.written.error = f"{why} ({self._path or self._folder})"
            self._undo()
            return False
        self._size += size
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
        if self._making:
            self._making.join()
            self._making = None
        if self._spare is None:
            self._make_spare()
        assert self._spare is not None
        (file, spare), self._spare = self._spare, None
        path = self._folder / _name(self._suffix)
        try:
            spare.rename(path)
        except OSError:
            os.close(file)
            raise
        self._file, self._path, self._size, self._born = file, path, 0, time.monotonic()
        self.written.segments += 1
        self._making = threading.Thread(target=self._make_next, name="spare", daemon=True)
        self._making.start()

    def _make_next(self) -> None:
        with contextlib.suppress(OSError):  # who needs it tries again, and says why it cannot be
            self._make_spare()

    def _make_spare(self) -> None:
        """Make the file of the next segment, so that its hidden name survives a power cut."""
        word = secrets.token_hex(8)
        made = self._folder / f".{word}{self._suffix}{_MADE}"
        file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, self._mode)
        try:
            # The lock tells others that this segment has a living writer; none of them looks for
            # it, and locks it, before.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            spare = self._folder / f".{word}{self._suffix}{_SPARE}"
            made.rename(spare)
            if self._durable:
                _sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        self._spare = (file, spare)

    def _end_segment(self) -> None:
        if self._file is None:
            return
        try:
            os.close(self._file)
        except OSError as error:  # it is closed all the same, and what was synced is safe
            log(f"collect: closing {self._path}: {error.strerror}")
        self._file = None
        path, self._path = self._path, None
        if self._closed and path:
            self._closed(path)


def _name(suffix: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    host = socket.gethostname().split(".")[0]
    return f"{stamp}-{host}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def _write_all(file: int, buffers: list[bytes]) -> None:
    for start in range(0, len(buffers), _BUFFERS):
        some = buffers[start : start + _BUFFERS]
        rest = sum(len(buffer) for buffer in some) - os.writev(file, some)
        if rest:  # the disk is nearly full, or a signal came
            view = memoryview(b"".join(some))[-rest:]
            while view:
                view = view[os.write(file, view) :]


def make_folder(folder: Path, *, durable: bool, mode: int = 0o777) -> None:
    """Make a folder, and those above it.

    Args:
        folder: The folder.
        durable: Their names shall survive a power cut.
        mode: Rights on it.

    Raises:
        OSError: It cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for one in missing if durable else []:
        _sync_folder(one.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def adopt(folder: Path, suffix: str = SUFFIX) -> None:
    """Give the segments a name whose writer died before the disk knew it; empty ones go."""
    for path in folder.glob(f".*{suffix}{_SPARE}"):
        with _unheld(path) as free:
            if not free:
                continue
            if path.stat().st_size:
                path.rename(folder / _name(suffix))
            else:
                path.unlink()
    for path in folder.glob(f".*{suffix}{_MADE}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def abandoned(folder: Path) -> list[Path]:
    """Return the segments of a folder that no living writer holds."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with _unheld(path) as free:
            if free:
                found.append(path)
    return found


@contextlib.contextmanager
def _unheld(path: Path) -> Iterator[bool]:
    """Hold a segment's lock where no living writer does; false where one does, or it is gone."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        yield False
        return
    try:
        # Another may have had the lock, and changed the name, since the file was opened.
        yield path.exists()
    finally:
        os.close(file)
