"""How far long work on vectors has come, for whoever shows it; nobody has to pass anything on.

```python
with shown(tell):          # whoever shows it
    ...
for row in steps("neighbours", rows):   # whoever works, however deep
    ...
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
# The name of the work, and the share of it that is done.
Tell = Callable[[str, float], None]

_PACE_S = 0.25
_tell: ContextVar[Tell | None] = ContextVar("tell", default=None)


@contextmanager
def shown(tell: Tell) -> Iterator[None]:
    """Have `tell` called every now and then from within the ``with`` block.

    Args:
        tell: Given the name of the work, and the share of it that is done.
    """
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def steps(name: str, items: Sequence[T] | Iterable[T], total: int | None = None) -> Iterable[T]:
    """Return the items of a loop, and tell how many of them are done.

    What is told is the outermost loop; loops inside one of its steps are silent, and so is work
    that takes less than a moment.

    Args:
        name: What the loop does, in a word or two.
        items: What it goes over.
        total: Their number; None for their length.
    """
    tell = _tell.get()
    if tell is None:
        return items
    return _told(tell, name, items, len(items) if isinstance(items, Sequence) else total or 0)


def _told(tell: Tell, name: str, items: Iterable[T], total: int) -> Iterator[T]:
    _tell.set(None)
    last = time.monotonic()
    try:
        for done, item in enumerate(items, 1):
            yield item
            if total and time.monotonic() >= last + _PACE_S:
                last = time.monotonic()
                tell(name, min(1.0, done / total))
    finally:  # also where the loop is left early
        _tell.set(tell)
