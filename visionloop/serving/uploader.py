"""Carries closed segments from a local spool to a bucket."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from visionloop.lake.storage import join, normalise, open_storage
from visionloop.progress import log
from visionloop.serving.segment_writer import abandoned


class Uploader:
    """Carries closed segments to a bucket, and removes them here once they are there.

    Segments that an earlier collector left behind are carried too. While the bucket does not take
    them they stay where they are, and are offered again for as long as the process lives. One that
    cannot be read here waits behind the others.

    Args:
        events: The prefix that they go to.
        folder: The local folder that they come from.
        longest_pause: Seconds between two attempts at most; they begin with half a second.
    """

    def __init__(self, events: str, folder: Path, *, longest_pause: float = 30.0) -> None:
        self._events = normalise(events)
        self._storage = open_storage(events)
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._longest_pause = longest_pause
        self.waiting = 0
        for path in abandoned(folder) if folder.is_dir() else []:
            self.add(path)
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def add(self, path: Path) -> None:
        """Queue a closed segment."""
        self.waiting += 1
        self._queue.put(path)

    def close(self, *, seconds: float = 60.0) -> None:
        """Offer what is queued once more, and end.

        Args:
            seconds: What is not there by then is left to the next start.
        """
        self._queue.put(None)
        self._ending.set()
        self._thread.join(timeout=seconds)

    def _work(self) -> None:
        while (path := self._queue.get()) is not None:
            pause = min(0.5, self._longest_pause)
            # What a collector that ends could not carry stays in the spool, for the next start.
            while (carried := self._carried(path)) is None and not self._ending.wait(pause):
                pause = min(self._longest_pause, 2 * pause)
            if carried is False and not self._ending.wait(pause):
                self._queue.put(path)
            else:
                self.waiting -= 1

    def _carried(self, path: Path) -> bool | None:
        """Return whether a segment is there; false where it is its own fault, None the bucket's."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return True
        except (OSError, MemoryError) as error:
            log(f"collect: {path.name} cannot be read: {error}")
            return False
        try:
            self._storage.write(join(self._events, path.name), data)
        except Exception as error:  # whatever a cloud's library raises: without this thread the
            log(f"collect: {error}")  # spool would only fill
            return None
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log(f"collect: {path.name} is uploaded, and cannot be removed: {error}")
            return False
        return True
