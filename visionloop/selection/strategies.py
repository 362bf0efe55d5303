"""From the configuration to objectives over the candidates: presets and the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visionloop.selection.amounts import Ranged
from visionloop.selection.badge import Badge
from visionloop.selection.cold import flag_of, nothing_known, says_nothing
from visionloop.selection.config import Schedule
from visionloop.selection.custom import objectives_of
from visionloop.selection.limits import Limit
from visionloop.selection.lines import FILTERS
from visionloop.selection.naming import RANGE, WEIGHT, parts_of, sign_of
from visionloop.selection.objectives import Balance, Fixed, Lots, Objective
from visionloop.selection.request import (
    Request,
    badge,
    coverage,
    deployed,
    diversity,
    probcover,
    scored,
)


@dataclass(frozen=True)
class Plan:
    """What a selection is made by.

    Attributes:
        objectives: At least one, over the candidates.
        limits: Stopping conditions.
        notes: What was not as configured, in words such as `cold_start`; the caller shows them.
    """

    objectives: list[Objective]
    limits: list[Limit]
    notes: list[str]

    @property
    def strengths(self) -> dict[str, float]:
        """Each objective's strength by its name."""
        return {one.name: one.strength for one in self.objectives}

    @property
    def drawn(self) -> bool:
        """Whether chance decides who is picked, and nobody's probability of it is known."""
        return any(isinstance(one, Badge | Lots) and one.strength for one in self.objectives)


def build_objectives(request: Request) -> Plan:
    """Return what the configuration means for this pool.

    Raises:
        InputError: The configuration names what the pool does not have.
    """
    config, notes = request.config, []
    objectives: list[Objective] = []
    limits: list[Limit] = []
    preset = config.strategy
    if preset in {"uncertainty", "badge"} and not _knows_score(request):
        notes.append("cold_start")
        preset = "typicality"
    if preset == "typicality":
        objectives = [coverage(request)]
    elif preset == "diversity":
        objectives = [diversity(request)]
    elif preset == "probcover":
        objectives = [probcover(request)]
    elif preset == "uncertainty":
        objectives = [scored(request, config.score)]
    elif preset == "badge":
        objectives = [badge(request)]
    elif preset == "auto":
        objectives = _scheduled(request)
        if _unheard(request):
            notes.append("cold_start")
    else:
        for line in config.strategies:
            if line.strategy.type in FILTERS:
                continue
            found, stopping = objectives_of(request, line)
            limits += stopping
            objectives += found
            if line.input.dataset_id:
                notes.append("dataset_id_without_effect")
    _name_by_use(objectives)
    for objective in objectives:
        plain = parts_of(objective.name)[2]
        if isinstance(objective, Fixed) and objective.name in request.pool.whole:
            objective.restate(*request.pool.whole[objective.name])
        if preset == "custom" and not getattr(objective, "informed", True):
            notes.append(f"unknown_{plain}")
        if isinstance(objective, Balance) and objective.absent:
            notes.append(f"absent_{plain}")
    if preset == "custom" and request.cold != "keep" and says_nothing(objectives):
        if request.cold == "refuse":
            names = " and ".join(dict.fromkeys(parts_of(one.name)[2] for one in objectives))
            raise nothing_known(names, request.pool, config.strategies)
        flag = flag_of(config.strategies, request.pool)
        return Plan([coverage(request)], [], [flag, *notes])
    return Plan(objectives, limits, notes)


def missed_ranges(objectives: Sequence[Objective]) -> list[str]:
    """Return a flag for each range of which something is known and that the sum is outside of."""
    ranges = [one for one in objectives if isinstance(one, Ranged) and one.informed]
    return [f"{one.missed()}_{parts_of(one.name)[2]}" for one in ranges if one.missed()]


def uncertainty_weight(schedule: Schedule, n_labels: int, n_classes: int) -> float:
    """Return how far the schedule has moved from typicality (0) to uncertainty (1).

    Args:
        schedule: Labels a class at which it begins to move and has moved.
        n_labels: Labels so far.
        n_classes: Number of classes.
    """
    per_class = n_labels / max(1, n_classes)
    if per_class >= schedule.uncertainty_from:
        return 1.0
    if per_class <= schedule.typicality_until:
        return 0.0
    span = schedule.uncertainty_from - schedule.typicality_until
    return float((per_class - schedule.typicality_until) / span)


def _scheduled(request: Request) -> list[Objective]:
    schedule, score = request.config.schedule, request.config.score
    weight = _weight(request) if _knows_score(request) else 0.0
    objectives: list[Objective] = []
    if weight < 1:
        objectives.append(coverage(request, 1 - weight))
    if weight > 0:
        objectives.append(scored(request, score, weight))
        if schedule.diversity:
            objectives.append(diversity(request, schedule.diversity * weight))
    if schedule.deployed:
        # Already before the own model's uncertainty counts: production says where it struggles.
        objectives += deployed(request, score, schedule.deployed * max(weight, 0.5))
    return objectives


def _weight(request: Request) -> float:
    labels = len(request.labelled.sample_ids)
    return uncertainty_weight(request.config.schedule, labels, request.n_classes)


def _unheard(request: Request) -> bool:
    """Whether uncertainty has a weight by the schedule and nothing is predicted."""
    return _weight(request) > 0 and not _knows_score(request)


def _knows_score(request: Request) -> bool:
    return bool(np.isfinite(request.score(request.config.score)).any())


def _name_by_use(objectives: Sequence[Objective]) -> None:
    """Give objectives the names under which their values are shown, no two the same."""
    seen: dict[str, int] = {}
    for objective in objectives:
        objective.name = sign_of(objective.strength) + _kind(objective) + objective.name
        seen[objective.name] = seen.get(objective.name, 0) + 1
        if seen[objective.name] > 1:
            objective.name = f"{objective.name}_{seen[objective.name]}"


def _kind(objective: Objective) -> str:
    if isinstance(objective, Ranged):
        return RANGE
    # Others of its kind are on scales of their own, which is what their names mean.
    over_largest = type(objective) is Fixed and objective.scale is None
    return WEIGHT if over_largest and objective.name != "typicality" else ""
