"""What ends a selection before its budget is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.greedy import Course


@dataclass(frozen=True)
class Limit:
    """One stopping condition.

    Args:
        reason: Word for the selection's flags.
        allowed: bool [m], who may be picked under it; None for everyone.
        amounts: float64 [m], what adds up over the picks, NaN counts nothing; None for nothing.
        most: The selection ends when the sum reaches this.
    """

    reason: str
    allowed: NDArray[np.bool_] | None = None
    amounts: NDArray[np.float64] | None = None
    most: float = field(default=float("inf"))

    def reached(self, chosen: Sequence[int]) -> bool:
        """Tell whether the sum over the chosen candidates has reached the most."""
        if self.amounts is None:
            return False
        return float(np.nansum(self.amounts[list(chosen)])) >= self.most


class Reached(Exception):
    """A sum has reached its most; the picks so far are the selection."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Watch:
    """Looks at the sums after every pick.

    Args:
        limits: The stopping conditions.
        before: Candidates chosen before the greedy rule began.
    """

    limits: Sequence[Limit]
    before: Sequence[int]

    def __call__(self, course: Course) -> None:
        """Look.

        Raises:
            Reached: A sum has reached its most.
        """
        for limit in self.limits:
            if limit.amounts is not None:
                chosen = [*self.before, *(pick.candidate for pick in course.picked)]
                if limit.reached(chosen):
                    raise Reached(limit.reason)
