"""Objectives on amounts that add up over the batch, and values that only some candidates have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.objectives import FLOOR, Balance, Fixed, Values


class Ranged:
    """How well a candidate's amount leads the sum of the batch into a range (`target_range`).

    With r picks to come and the sum S so far, an amount between `(min - S)/r` and `(max - S)/r` is
    as good as any; outside it counts `exp(-distance/scale)`, the scale being the mean amount. So
    every pick moves the sum towards the range, and the last one brings it there if any candidate
    can. Its logarithm has no smallest number, as the number itself has: of two that are both far
    from what is needed, the nearer one leads. Cost O(m) a step.

    Args:
        name: Shown in the explanation.
        amounts: float64 [m], 0 or more; NaN is unknown and counts as the median.
        picks: How many the batch will have.
        minimum: The smallest sum wanted.
        maximum: The largest sum wanted; infinite for none.
        strength: Multiplies the log-objective.
    """

    def __init__(
        self,
        name: str,
        amounts: Values,
        picks: int,
        minimum: float,
        maximum: float,
        strength: float = 1.0,
    ) -> None:
        self.name = name
        self.strength = strength
        self._known: NDArray[np.bool_] = np.isfinite(amounts)
        self.informed = bool(self._known.any())
        some = amounts[self._known]
        self._amounts = np.where(self._known, amounts, np.median(some) if len(some) else 0.0)
        self._scale = max(float(some.mean()) if len(some) else 1.0, FLOOR)
        self._left = picks
        self._range = (minimum, maximum)
        self._sum = 0.0

    def logs(self) -> Values:
        """Return float64 [m], the logarithms of the values."""
        left = max(1, self._left)
        low, high = ((bound - self._sum) / left for bound in self._range)
        outside = np.maximum(np.maximum(low - self._amounts, self._amounts - high), 0.0)
        return np.asarray(-outside / self._scale)

    def values(self) -> Values:
        """Return float64 [m]; where it matters which of two is larger, take `logs`."""
        return np.clip(np.exp(self.logs()), FLOOR, 1.0)

    def missed(self) -> str:
        """Return `short_of` or `beyond` where the sum is outside the range; "" where it is not."""
        low, high = self._range
        slack = 1e-9 * max(1.0, abs(self._sum))
        if self._sum < low - slack:
            return "short_of"
        return "beyond" if self._sum > high + slack else ""

    def known(self, candidate: int) -> bool:
        """Tell whether the candidate's amount is known."""
        return bool(self._known[candidate])

    def choose(self, candidate: int) -> None:
        """Add the chosen sample's amount to the sum."""
        self._left -= 1
        if self._known[candidate]:
            self._sum += float(self._amounts[candidate])


class Some(Fixed):
    """Values that only some candidates have of this kind; the others have theirs of another kind.

    Two of them stand for one objective: who has no value in one has it in the other, and a missing
    one does not count. So the product is the value, and the explanation names its kind.

    Args:
        name: Shown in the explanation.
        values: float64 [m] in [0, 1]; NaN where the other kind counts, or nothing is known.
        neutral: What counts where nothing is known of either kind.
        nothing: bool [m], where nothing is known of either kind.
        strength: Multiplies the log-objective.
    """

    def __init__(
        self,
        name: str,
        values: Values,
        neutral: float,
        nothing: NDArray[np.bool_],
        strength: float = 1.0,
    ) -> None:
        filled = np.where(np.isnan(values), np.where(nothing, neutral, 1.0), values)
        super().__init__(name, filled, strength, scale=1.0)
        self._known = ~np.isnan(values)

    def restate(self, neutral: float, top: float) -> None:
        """Change nothing: a value is filled by what counts beside the other kind."""
        self.informed = True
        self._values = np.clip(self.given, FLOOR, 1.0)


class Counted(Balance):
    """A balance over things of which an image can hold several, such as detected objects.

    A candidate's need is the mean need of what it holds; what is counted when it is chosen is all
    of it.

    Args:
        name: Shown in the explanation.
        amounts: float64 [m, V], how much of each value a candidate holds; NaN rows are unknown.
        target: float64 [V], wanted shares.
        counts: float64 [V], what is labelled already.
        strength: Multiplies the log-objective.
    """

    def __init__(
        self, name: str, amounts: Values, target: Values, counts: Values, strength: float = 1.0
    ) -> None:
        total = amounts.sum(axis=1)
        held = np.flatnonzero(total > 0)
        shares = np.full(amounts.shape, np.nan)  # who holds nothing balances nothing
        shares[held] = amounts[held] / total[held, None]
        super().__init__(name, shares, target, counts, strength)
        self._amounts = np.nan_to_num(amounts)

    def choose(self, candidate: int) -> None:
        """Count all that the chosen sample holds."""
        self._counts += self._amounts[candidate]
