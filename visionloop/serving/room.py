"""How much room there is for events: in memory, in the spool, on the disk.

What was acknowledged is never dropped. Where room runs out the newest events are refused, before
they are read:

=============== ==================================================================================
``overload``    more bytes arrive and wait to be written than may be in memory
``spool_full``  more bytes wait to be reduced, or for a bucket that is away, than the spool may hold
``disk_full``   less is free on the disk than shall stay free
=============== ==================================================================================
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    """What may be used.

    Attributes:
        memory: Bytes that may arrive and wait to be written.
        spool: Bytes that may wait on the disk.
        free: Bytes that stay free on the disk.
    """

    memory: int = 256 * 1024 * 1024
    spool: int = 1024 * 1024 * 1024
    free: int = 64 * 1024 * 1024


class Room:
    """Looks at the disk five times a second; between two looks, memory bounds what comes.

    Args:
        limits: What may be used.
        folder: Folder on the disk that events are written to.
        waiting: Returns the bytes that wait in the spool.
    """

    def __init__(self, limits: Limits, folder: Path, waiting: Callable[[], int]) -> None:
        self._limits = limits
        self._folder = folder
        self._count = waiting
        self._ending = threading.Event()
        self.waiting = 0
        self.free = 0
        self.arriving = 0
        self._look()
        self._thread = threading.Thread(target=self._watch, name="room", daemon=True)
        self._thread.start()

    def lacks(self, size: int, queued: int) -> str:
        """Return what there is no room in for so many bytes more; empty where there is room.

        Args:
            size: Bytes that want in.
            queued: Bytes that wait to be written.
        """
        memory = self.arriving + queued + size
        if memory > self._limits.memory:
            return "overload"
        # What was written since the last look is at most a moment's traffic.
        if self.waiting + memory > self._limits.spool:
            return "spool_full"
        if self.free - memory < self._limits.free:
            return "disk_full"
        return ""

    def close(self) -> None:
        """Look no more."""
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        # What cannot be looked at is as it was; writing to it says what is wrong.
        with contextlib.suppress(OSError):
            self.waiting = self._count()
        with contextlib.suppress(OSError):
            disk = os.statvfs(self._folder)
            self.free = disk.f_bavail * disk.f_frsize
