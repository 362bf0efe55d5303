"""Tests that are made again and again: how much of the level each look may spend.

Drift is judged with every harvest and every intake, for as long as a model serves. A level that
held for one look would be passed by chance sooner or later; so the level is that of all looks at
one reference together, and each look spends a share of it.
"""

from __future__ import annotations

import math

# The sum of 1 / (j ln(j)^2) over j from 2 on (OEIS A115563).
_SERIES = 2.109742801236892


def level_of_look(look: int, significance: float) -> float:
    """Return the level at which one look of an endless row of looks is tested.

    The levels of all looks add up to `significance`, so by Bonferroni's inequality that is the
    probability of any false alarm, however long the looks go on, when they end, and however they
    depend on each other, as those at one reference do (alpha spending: Tian and Ramdas, Online
    control of the familywise error rate, Statistical Methods in Medical Research 30, 2021). The
    look k gets a share of `1 / ((k + 1) ln(k + 1)^2)`, which falls hardly faster than 1/k: the
    hundredth look has four times the level, and the eight hundredth fourteen times, that the usual
    6 / (pi k)^2 would leave it.

    Args:
        look: Which look it is, from 1 on.
        significance: Probability of any false alarm in all looks, in (0, 1).

    Raises:
        ValueError: Looks are counted from 1.
    """
    if look < 1:
        raise ValueError(f"look {look}: looks are counted from 1")
    return significance / (_SERIES * (look + 1) * math.log(look + 1) ** 2)
