"""Ctrl-C that cannot get lost.

Python turns SIGINT into an exception wherever the program happens to be. In the callback of a weak
reference (SQLAlchemy has one for every collection that is garbage), in a finalizer, or in compiled
code that clears what it did not expect, nobody can catch it, and the program goes on as if nothing
had been pressed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Until an interrupt counts as lost: time to keep what was done, too short to be waited for.
_LOST_S = 1.0


@contextmanager
def interrupts_arrive() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT, every second anew until the block has been left by it.

    Does nothing where SIGINT is not Python's own (ignored in a shell's background job) or outside
    of the main thread, which alone meets signals.
    """
    main = threading.main_thread()
    if (
        threading.current_thread() is not main
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    left = threading.Event()

    def again() -> None:
        if not left.wait(_LOST_S):
            # To the main thread: it alone meets signals, and is woken where it waits for something.
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if not left.is_set():
            threading.Thread(target=again, daemon=True).start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        left.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
