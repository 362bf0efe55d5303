"""Carries closed segments from a local spool to a bucket."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

from visionloop.lake.storage import StorageError, join, normalise, open_storage
from visionloop.progress import log
from visionloop.serving.segment_writer import abandoned


class Uploader:
    """Carries closed segments to a bucket, and removes them here once they are there.

    Segments that an earlier collector left behind are carried too.

    Args:
        events: The prefix that they go to.
        folder: The local folder that they come from.
    """

    def __init__(self, events: str, folder: Path) -> None:
        self._events = normalise(events)
        self._storage = open_storage(events)
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self.waiting = 0
        for path in abandoned(folder) if folder.is_dir() else []:
            self.add(path)
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def add(self, path: Path) -> None:
        """Queue a closed segment."""
        self.waiting += 1
        self._queue.put(path)

    def close(self) -> None:
        """Upload what is queued, and end."""
        self._queue.put(None)
        self._thread.join(timeout=60)

    def _work(self) -> None:
        while (path := self._queue.get()) is not None:
            for attempt in range(6):
                try:
                    self._storage.write(join(self._events, path.name), path.read_bytes())
                    path.unlink(missing_ok=True)
                    break
                except FileNotFoundError:
                    break
                except StorageError as error:
                    log(f"collect: {error}")
                    time.sleep(min(30.0, 0.5 * 2**attempt))
            # What failed for good stays in the spool, where the next start finds it.
            self.waiting -= 1
