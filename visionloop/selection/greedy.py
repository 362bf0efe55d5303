"""One sample at a time: the largest product of the objectives, each to the power of its strength.

Source: the combination rule that LightlyOne documents, `argmax Π objective^strength`, here as a sum
of logarithms. Cost of k picks out of m: O(k·m·(objectives + d)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.accelerated import device_greedy
from visionloop.selection.amounts import Ranged
from visionloop.selection.badge import Badge
from visionloop.selection.lazy import lazy_greedy
from visionloop.selection.objectives import Coverage, Diversity, Fixed, Objective
from visionloop.vectors.exact import Floats

# Totals closer than this are equal, and equals go to the smaller sample id: float32 products differ
# by their last bits between processors and thread counts, and must not decide.
_TIE_DECIMALS = 6


@dataclass(frozen=True)
class Picked:
    """One pick of the greedy rule.

    Args:
        candidate: Row of the candidate.
        values: Each objective's value at this step; None where it was not known.
    """

    candidate: int
    values: dict[str, float | None]


@dataclass
class Course:
    """How far a selection has come: all that has to be kept to go on with it later.

    Args:
        picked: The picks so far, in order.
        refused: Candidates that were refused so far.
    """

    picked: list[Picked] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)


def comparable(total: NDArray[np.float64], strengths: Iterable[float]) -> NDArray[np.float64]:
    """Return totals in which equals are equal, whatever factor all strengths have in common.

    Args:
        total: float64 [m], `Σ strength · ln objective`.
        strengths: Those of all objectives.
    """
    largest = max(map(abs, strengths), default=0.0) or 1.0
    return np.asarray(np.round(total / largest, _TIE_DECIMALS))


def greedy(
    objectives: Sequence[Objective],
    allowed: NDArray[np.bool_],
    k: int,
    *,
    accept: Callable[[int], bool],
    course: Course | None = None,
    watch: Callable[[Course], None] | None = None,
    device: str = "",
) -> tuple[list[Picked], str]:
    """Pick up to k candidates.

    Args:
        objectives: At least one, all over the same m candidates in the order of their ids.
        allowed: bool [m], who may be picked at all; not changed.
        k: How many.
        accept: Asked at the moment of the pick; refuses a near duplicate of a chosen sample. A
            candidate that was refused is not asked about again.
        course: How far an interrupted call had come. It is gone on with: the picks are those that
            the call would have made, and `accept` is asked about the earlier ones again, in order.
            Is changed, and complete whenever `watch` is called.
        watch: Called after every pick; what it raises ends the selection.
        device: Accelerator to compute on, as PyTorch names it, where only diversity changes from
            step to step; empty for the processor. The picks are the same.

    Returns:
        The picks in order, and why it stopped before k ("" when it did not): `minimum_distance`
        or `exhausted`.

    Raises:
        ValueError: `accept` refuses what the course has as picked.
    """
    course = Course() if course is None else course
    open_to = allowed.copy()
    open_to[course.refused] = False
    for pick in course.picked:
        open_to[pick.candidate] = False
        if not accept(pick.candidate):
            raise ValueError(f"candidate {pick.candidate} was picked before and is refused now")
        for objective in objectives:
            objective.choose(pick.candidate)

    def ask(candidate: int) -> bool:
        accepted = accept(candidate)
        if not accepted:
            course.refused.append(candidate)
        return accepted

    def note(pick: Picked) -> None:
        course.picked.append(pick)
        if watch is not None:
            watch(course)

    left = k - len(course.picked)
    why = _pick(objectives, open_to, left, ask, note, device) if left > 0 else ""
    return course.picked, why


def _pick(
    objectives: Sequence[Objective],
    allowed: NDArray[np.bool_],
    k: int,
    accept: Callable[[int], bool],
    note: Callable[[Picked], None],
    device: str,
) -> str:
    """Pick k candidates, note each, and tell why it were fewer."""
    moving = [o for o in objectives if not isinstance(o, Fixed)]
    if len(moving) == 1 and isinstance(moving[0], Diversity) and moving[0].strength > 0:
        return _lazily(objectives, moving[0], allowed, k, accept, note, device)
    return _step_by_step(objectives, moving, allowed, k, accept, note)


def _lazily(
    objectives: Sequence[Objective],
    diversity: Diversity,
    allowed: NDArray[np.bool_],
    k: int,
    accept: Callable[[int], bool],
    note: Callable[[Picked], None],
    device: str = "",
) -> str:
    """Pick with diversity as the only objective that changes from step to step."""
    still = _total([o for o in objectives if isinstance(o, Fixed)], len(allowed))
    still[~allowed] = -np.inf
    floor = diversity.minimum_distance
    strengths = [objective.strength for objective in objectives]

    def score(rows: NDArray[np.intp], squared: Floats) -> NDArray[np.float64]:
        total = still[rows] + diversity.strength * np.log(diversity.value_of(squared))
        if floor is not None:
            total[np.sqrt(squared) < floor] = -np.inf
        return comparable(total, strengths)

    picked = 0
    asked = 0

    def count(candidate: int) -> bool:
        nonlocal asked
        asked += 1
        return accept(candidate)

    pick = partial(device_greedy, device=device) if device else lazy_greedy
    found = pick(diversity.x, diversity.centres(), k, score=score, accept=count)
    for candidate, squared in found:
        at_this_step = np.array([squared], dtype=np.float32)
        values: dict[str, float | None] = {}
        for objective in objectives:
            if objective is diversity:
                known = np.isfinite(squared)
                values[objective.name] = (
                    float(diversity.value_of(at_this_step)[0]) if known else None
                )
            else:
                values[objective.name] = _value_at(objective, candidate)
        note(Picked(candidate, values))
        picked += 1
    if picked == k:
        return ""
    return "minimum_distance" if asked < int(allowed.sum()) else "exhausted"


def _step_by_step(
    objectives: Sequence[Objective],
    moving: Sequence[Objective],
    allowed: NDArray[np.bool_],
    k: int,
    accept: Callable[[int], bool],
    note: Callable[[Picked], None],
) -> str:
    """Pick with any objectives, weighing every candidate anew at every step."""
    open_to = allowed.copy()
    floors = [o for o in moving if isinstance(o, Diversity) and o.minimum_distance is not None]
    coverages = [o for o in moving if isinstance(o, Coverage)]
    for coverage in coverages:
        coverage.leave_out(np.flatnonzero(~open_to))
    still = _total([o for o in objectives if isinstance(o, Fixed)], len(allowed))
    total, values = _weigh(objectives, still, open_to, floors)
    picked = 0
    while picked < k:
        candidate = int(total.argmax())
        if total[candidate] == -np.inf:
            return "minimum_distance" if open_to.any() else "exhausted"
        open_to[candidate] = False
        total[candidate] = -np.inf
        if not accept(candidate):
            # Refused for good: the totals hold, unless a cluster has another best candidate now.
            for coverage in coverages:
                coverage.leave_out(np.array([candidate]))
            if coverages:
                total, values = _weigh(objectives, still, open_to, floors)
            continue
        shown: dict[str, float | None] = {
            o.name: float(values[i][candidate]) if o.known(candidate) else None
            for i, o in enumerate(objectives)
        }
        for objective in objectives:
            objective.choose(candidate)
        note(Picked(candidate, shown))
        picked += 1
        if picked < k:
            total, values = _weigh(objectives, still, open_to, floors)
    return ""


def _weigh(
    objectives: Sequence[Objective],
    still: NDArray[np.float64],
    open_to: NDArray[np.bool_],
    floors: Sequence[Diversity],
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return the totals of all candidates, minus infinity of who is out, and what they are of."""
    values = [objective.values() for objective in objectives]
    total = still.copy()
    for objective, found in zip(objectives, values, strict=True):
        if isinstance(objective, Fixed):
            continue
        if objective.strength:
            if isinstance(objective, Coverage | Ranged):
                total += objective.strength * objective.logs()
            else:
                total += objective.strength * np.log(found)
        if isinstance(objective, Badge):
            total += objective.noise()
    total = comparable(total, [objective.strength for objective in objectives])
    total[~open_to] = -np.inf
    for diversity in floors:
        total[~diversity.allowed()] = -np.inf
    return total, values


def values_at(objectives: Sequence[Objective], candidate: int) -> dict[str, float | None]:
    """Return each objective's value of one candidate as things stand; None where not known."""
    return {o.name: _value_at(o, candidate) for o in objectives}


def _value_at(objective: Objective, candidate: int) -> float | None:
    return float(objective.values()[candidate]) if objective.known(candidate) else None


def _total(objectives: Sequence[Objective], m: int) -> NDArray[np.float64]:
    total = np.zeros(m)
    for objective in objectives:
        if objective.strength:
            total += objective.strength * np.log(objective.values())
    return total
