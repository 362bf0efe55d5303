"""Reads many objects at once, and holds some of their bytes at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from visionloop.lake.storage.interface import Storage, StorageError

# Bytes that are read ahead of the object whose turn it is, and objects for each thread.
AHEAD_BYTES = 128 << 20
_AHEAD = 8

_Read = tuple[str, bytes | StorageError]


class _Ahead:
    """How many bytes wait for their turn; readers wait while those are too many."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._bytes = 0
        self._turn = 0
        self._over = False

    def wait(self, place: int) -> None:
        # Whose turn it is does not wait: nothing is taken before it comes.
        with self._change:
            self._change.wait_for(
                lambda: self._bytes < AHEAD_BYTES or place <= self._turn or self._over
            )

    def came(self, size: int) -> None:
        with self._change:
            self._bytes += size

    def taken(self, size: int) -> None:
        with self._change:
            self._bytes -= size
            self._turn += 1
            self._change.notify_all()

    def end(self) -> None:
        with self._change:
            self._over = True
            self._change.notify_all()


def read_together(storage: Storage, uris: Iterable[str], threads: int) -> Iterator[_Read]:
    """Read by several threads, for a storage's `Storage.read_many`; see `Storage.read_many`.

    Args:
        storage: What reads each object.
        uris: In any number: no more are asked for than are read ahead.
        threads: Objects that are read at once.
    """
    ahead = _Ahead()

    def read(place: int, uri: str) -> _Read:
        ahead.wait(place)
        try:
            data = storage.read(uri)
        except StorageError as error:
            return uri, error
        ahead.came(len(data))
        return uri, data

    numbered = enumerate(uris)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Read]] = deque()
        try:
            waiting.extend(pool.submit(read, *one) for one in islice(numbered, threads * _AHEAD))
            while waiting:
                uri, data = waiting.popleft().result()
                ahead.taken(len(data) if isinstance(data, bytes) else 0)
                yield uri, data
                waiting.extend(pool.submit(read, *one) for one in islice(numbered, 1))
        finally:
            for future in waiting:
                future.cancel()
            ahead.end()
