"""Makes what must be there once, although an answer may get lost and another job may be faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from visionloop.submission.refusals import ServerError

T = TypeVar("T")

# Tries of a request that a server did not answer or put off, and the longest pause between two.
TRIES = 5
_LONGEST_PAUSE_S = 10.0


def made_once(
    find: Callable[[], T | None], make: Callable[[], T], *, look_first: bool = True
) -> tuple[T, bool]:
    """Return what is there, or make it.

    A POST whose answer got lost may have been done: before it is sent again it is looked for. One
    that is refused because the thing exists was beaten by another job, whose thing is taken.

    Args:
        find: Looks for it.
        make: Makes it.
        look_first: Whether it may be there from before.

    Returns:
        The thing, and whether it was made here.

    Raises:
        ServerError: It could not be made.
    """
    if look_first:
        found = find()
        if found is not None:
            return found, False
    for tried in range(1, TRIES):
        try:
            return make(), True
        except ServerError as error:
            if not (error.exists or error.passing):
                raise
            ours = not error.exists
            time.sleep(error.pause_s or min(0.2 * 2**tried, _LONGEST_PAUSE_S))
            found = find()
            if found is not None:
                return found, ours
    return make(), True
