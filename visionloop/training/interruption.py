"""SIGTERM: a node that goes away, or a run that is cancelled, gives notice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def notice(
    *, wanted: bool = True, then: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], bool]]:
    """Take SIGTERM as a notice inside the ``with`` block instead of as the end.

    Args:
        wanted: Whether to: otherwise SIGTERM ends the process as ever.
        then: Called when it comes, between two instructions of the main thread.

    Yields:
        Whether the notice has come. In another thread than the main one, where Python can set no
        handler, it never does.
    """
    came = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        came.set()
        then()

    if not wanted or threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
