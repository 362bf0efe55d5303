"""How much a process has in memory at a time: many small pictures, or one large one."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Budget:
    """Bounds what threads have in memory together, of pixels or of bytes.

    Who waits gets room in the order of asking, so that small ones do not hold up a large one for
    ever. What is larger than the whole budget gets it once nobody else has any.

    Args:
        most: How much at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._free = threading.Condition()
        self._line: deque[object] = deque()

    def share(self) -> Share:
        """Return a share, to be used as ``with budget.share() as share``."""
        return Share(self)

    def take(self, amount: int) -> None:
        """Wait until there is room, and take it."""
        turn = object()
        with self._free:
            self._line.append(turn)
            try:
                self._free.wait_for(
                    lambda: (
                        self._line[0] is turn
                        and (not self._taken or self._taken + amount <= self._most)
                    )
                )
                self._taken += amount
            finally:
                self._line.remove(turn)
                self._free.notify_all()  # the next may fit as well

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        with self._free:
            self._taken -= amount
            self._free.notify_all()


class Share:
    """What one thread holds of a budget; given back at the end of a with-block, or by `give`.

    Take once in a block: a thread that waits for more while it holds some may wait for ever.

    Attributes:
        taken: How much it holds.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken = 0

    def take(self, amount: int) -> None:
        """Wait for so much."""
        self._budget.take(amount)
        self.taken += amount

    def give(self) -> None:
        """Give it back."""
        self._budget.give(self.taken)
        self.taken = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give()


# Of pixels, each 10 to 15 bytes of memory while a picture is decoded and reduced. 24-megapixel
# photographs by twos; larger ones one at a time. Below 1 GB of memory.
DECODING = Budget(64_000_000)
