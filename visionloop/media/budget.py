"""How many pixels a process decodes at a time: many small pictures, or one large one."""

from __future__ import annotations

import threading
from types import TracebackType


class PixelBudget:
    """Bounds the pixels that threads have in memory together.

    A picture takes 10 to 15 bytes of memory per pixel while it is decoded and reduced. One that is
    larger than the whole budget is decoded once nothing else is.

    Args:
        pixels: How many at a time.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._free = threading.Condition()

    def share(self) -> Share:
        """Return a share, to be used as ``with budget.share() as share``."""
        return Share(self)

    def take(self, pixels: int) -> None:
        """Wait until there is room, and take it."""
        with self._free:
            self._free.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels

    def give(self, pixels: int) -> None:
        """Give back what was taken."""
        with self._free:
            self._taken -= pixels
            self._free.notify_all()


class Share:
    """What one thread holds of a budget; given back at the end of a with-block.

    Take once in a block: a thread that waits for more while it holds some may wait for ever.
    """

    def __init__(self, budget: PixelBudget) -> None:
        self._budget = budget
        self.pixels = 0

    def take(self, pixels: int) -> None:
        """Wait for so many pixels."""
        self._budget.take(pixels)
        self.pixels += pixels

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._budget.give(self.pixels)
        self.pixels = 0


# 24-megapixel photographs by twos; larger ones one at a time. Below 1 GB of memory.
DECODING = PixelBudget(64_000_000)
