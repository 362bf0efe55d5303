"""Rows on the disk while a harvest works: parts of the events by their ids, and what to write.

They lie in a folder of their own among the temporary files (``TMPDIR``), about as many bytes as the
lake's new rows have before compression, twice at most. Whoever works there holds a lock on the
folder; the kernel frees it with the process, however it ended, and the next harvest on the machine
removes what nobody holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.errors import VisionloopError
from visionloop.progress import log
from visionloop.serving.key_hashes import hashes

PREFIX = "visionloop-harvest-"
_LOCK = "in-use"


class Scratch(AbstractContextManager[Path]):
    """A folder for one harvest, gone after it; also those that killed harvests left.

    Raises:
        VisionloopError: There is no room, or no right to write there.
    """

    def __enter__(self) -> Path:
        place = Path("TMPDIR")
        try:
            place = Path(tempfile.gettempdir())
            _sweep(place)
            while True:
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
                self._lock = _held(self._folder / _LOCK)
                if self._lock is not None and os.fstat(self._lock.fileno()).st_nlink:
                    return self._folder
                # Another harvest took it for a leftover, before it was locked.
        except OSError as error:
            raise _unwritable(error, place) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        assert self._lock is not None
        self._lock.close()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _unwritable(error, self._folder.parent) from error


def _unwritable(error: OSError, place: Path) -> VisionloopError:
    return VisionloopError(
        f"the harvest cannot keep its temporary rows: {error.strerror}",
        where=str(place),
        remedy="Make room there, or set TMPDIR to a folder on a larger disk; the lake is as it was",
    )


def _held(path: Path) -> IO[bytes] | None:
    """Lock a file; None where another process holds it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _sweep(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        # Another user's are not ours to remove; one without its lock is being made right now.
        with suppress(OSError):
            if not (folder / _LOCK).exists():
                continue
            lock = _held(folder / _LOCK)
            if lock is not None:
                log(f"harvest: removed the temporary rows of a harvest that was killed: {folder}")
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()


class Rows:
    """Rows of one table on the disk, written once and then read once.

    Args:
        path: The file; it is there once there are rows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._sink: pa.OSFile | None = None
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        """Write rows behind those that are there."""
        if not rows.num_rows:
            return
        if self._writer is None:
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pa.ipc.new_stream(self._sink, rows.schema)
        self._writer.write_table(rows)
        self.rows += rows.num_rows

    def close(self) -> None:
        """End the writing."""
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._writer = self._sink = None

    def parts(self, size: int) -> Iterator[pa.Table]:
        """Yield the rows in tables of about so many bytes; the file is removed at the end."""
        self.close()
        if not self.rows:
            return
        held: list[pa.RecordBatch] = []
        total = 0
        with pa.OSFile(str(self._path), "rb") as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                held.append(batch)
                total += batch.nbytes
                if total >= size:
                    yield pa.Table.from_batches(held)
                    held, total = [], 0
        if held:
            yield pa.Table.from_batches(held)
        self._path.unlink()

    def whole(self) -> pa.Table | None:
        """Return all rows, None where there are none; the file is removed."""
        return next(self.parts(2**62), None)


class Partitions:
    """Rows in as many files as wanted, all rows with one id in the same one.

    Args:
        folder: Where the files lie.
        name: Begins their names.
        count: Number of partitions.
    """

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self._files = [Rows(folder / f"{name}-{number}.arrow") for number in range(count)]

    def add(self, rows: pa.Table) -> np.ndarray:
        """Put rows of `harvest_events` into their partitions, in their order there.

        Returns:
            uint64 [n]: the hash of each row's event id, of its digest where there is none.
        """
        key = hashes(pc.coalesce(rows["event_id"], rows["line_sha256"]))
        place = key % np.uint64(len(self._files))
        order = np.argsort(place, kind="stable")
        ordered = rows.take(pa.array(order)).combine_chunks()
        ends = np.searchsorted(place[order], np.arange(len(self._files)), side="right")
        start = 0
        for file, end in zip(self._files, ends.tolist(), strict=True):
            if end > start:
                file.add(ordered.slice(start, end - start))
            start = end
        return key

    def close(self) -> None:
        """End the writing."""
        for file in self._files:
            file.close()

    def take(self, number: int) -> pa.Table | None:
        """Return a partition's rows, None where it has none; its file is removed."""
        return self._files[number].whole()
