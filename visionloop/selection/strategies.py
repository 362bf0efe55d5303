"""From the configuration to objectives over the candidates: presets, the schedule, custom lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.badge import Badge
from visionloop.selection.clusters import kmeans
from visionloop.selection.config import Objective as Line
from visionloop.selection.config import Schedule, SelectionConfig
from visionloop.selection.inputs import column_of, score_of, space_of
from visionloop.selection.neighbours import Floats
from visionloop.selection.objectives import (
    FLOOR,
    Balance,
    Coverage,
    Diversity,
    Fixed,
    Objective,
    density_typicality,
    local_typicality,
    query_similarity,
)
from visionloop.selection.pool import Pool, Reference, named

MOST_CLUSTERS = 500


@dataclass(frozen=True)
class Request:
    """One selection to make.

    Args:
        pool: What there is.
        rows: The eligible rows of the pool, ascending; objectives are over these.
        config: What is wanted.
        labelled: What is labelled already.
        n: How many are wanted.
        n_classes: Number of classes of the task.
        seed: Of everything drawn.
    """

    pool: Pool
    rows: NDArray[np.intp]
    config: SelectionConfig
    labelled: Reference
    n: int
    n_classes: int
    seed: int

    def vectors(self, space: str) -> tuple[Floats, Floats]:
        """Return the candidates' embeddings and those of what is labelled in the same space.

        Raises:
            InputError: The two have other dimensions.
        """
        x = self.pool.embeddings[space]
        already = self.labelled.embeddings.get(space)
        if already is None or not len(already):
            already = np.zeros((0, x.shape[1]), dtype=np.float32)
        if already.shape[1] != x.shape[1]:
            raise InputError(
                f"the pool's embeddings have {x.shape[1]} dimensions, those of the labelled "
                f"samples {already.shape[1]}: " + named(self.labelled.sample_ids),
                where=f"embeddings of the space {space!r}",
                remedy="Two models' embeddings were mixed; embed all samples again",
            )
        return x[self.rows], already


def build_objectives(request: Request) -> tuple[list[Objective], dict[str, float], list[str]]:
    """Return the objectives, their strengths by name, and notes on what was not as configured.

    Notes are words such as `cold_start`; the caller shows them.

    Raises:
        InputError: The configuration names what the pool does not have.
    """
    config, notes = request.config, []
    objectives: list[Objective] = []
    preset = config.strategy
    if preset in {"auto", "uncertainty", "badge"} and not _knows_score(request):
        if preset != "auto":
            notes.append("cold_start")
        preset = "typicality"
    if preset == "typicality":
        objectives = [_coverage(request)]
    elif preset == "diversity":
        objectives = [_diversity(request)]
    elif preset == "uncertainty":
        objectives = [_score(request, config.score)]
    elif preset == "badge":
        objectives = [_badge(request)]
    elif preset == "auto":
        objectives = _scheduled(request)
    else:
        objectives = [
            _from_line(request, line)
            for line in config.strategies
            if line.strategy.type != "THRESHOLD"
        ]
        for objective in objectives:
            if isinstance(objective, Fixed | Badge) and not objective.informed:
                notes.append(f"unknown_{objective.name}")
    _number_equal_names(objectives)
    return objectives, {o.name: o.strength for o in objectives}, notes


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
    weight = uncertainty_weight(schedule, len(request.labelled.sample_ids), request.n_classes)
    objectives: list[Objective] = []
    if weight < 1:
        objectives.append(_coverage(request, 1 - weight))
    if weight > 0:
        objectives.append(_score(request, score, weight))
        if schedule.diversity:
            objectives.append(_diversity(request, schedule.diversity * weight))
    deployed = f"deployed_{score}"
    known = np.isfinite(score_of(request.pool, deployed)[request.rows])
    if schedule.deployed and known.any():
        # Already before the own model's uncertainty counts: production says where it struggles.
        objectives.append(_score(request, deployed, schedule.deployed * max(weight, 0.5)))
    return objectives


def _from_line(request: Request, line: Line) -> Objective:
    source, strategy = line.input, line.strategy
    strength = strategy.strength
    match source.type, strategy.type:
        case "EMBEDDINGS", "DIVERSITY":
            floor = strategy.stopping_condition_minimum_distance
            return _diversity(request, strength, space=source.space, minimum_distance=floor)
        case "EMBEDDINGS", "TYPICALITY":
            x = request.vectors(_space(request, source.space))[0]
            values = density_typicality(x, strategy.num_nearest_neighbors or 20)
            return Fixed("typicality", values, strength)
        case "EMBEDDINGS", "COVERAGE":
            return _coverage(request, strength, space=source.space)
        case "EMBEDDINGS", "BADGE":
            return _badge(request, strength, space=source.space)
        case "EMBEDDINGS", "SIMILARITY":
            return _similarity(request, line)
        case "SCORES", "WEIGHTS":
            return _score(request, source.score_name(), strength)
        case "METADATA", "WEIGHTS":
            return _weights(request, str(source.key), strength)
        case "METADATA", "BALANCE":
            return _balance_metadata(request, line)
        case "PREDICTIONS", "BALANCE":
            return _balance_predictions(request, line)
        case "RANDOM", _:
            seed = request.seed if source.random_seed is None else source.random_seed
            return _random(request, seed, strength)
    raise InputError(
        f"{strategy.type} on {source.type} is not supported", where="selection.strategies"
    )


def _space(request: Request, space: str = "") -> str:
    return space_of(request.pool, space or request.config.space)


def _knows_score(request: Request) -> bool:
    return bool(np.isfinite(score_of(request.pool, request.config.score)[request.rows]).any())


def _score(request: Request, name: str, strength: float = 1.0) -> Fixed:
    return Fixed(name, score_of(request.pool, name)[request.rows], strength, scale=1.0)


def _random(request: Request, seed: int, strength: float = 1.0) -> Fixed:
    # One number for each sample of the pool, so that filters do not change anyone's luck.
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(request.pool))
    return Fixed("random", np.maximum(draws[request.rows], FLOOR), strength, scale=1.0)


def _diversity(
    request: Request,
    strength: float = 1.0,
    *,
    space: str = "",
    minimum_distance: float | None = None,
) -> Diversity:
    x, already = request.vectors(_space(request, space))
    return Diversity(x, already, strength, minimum_distance=minimum_distance)


def _coverage(request: Request, strength: float = 1.0, *, space: str = "") -> Coverage:
    x, already = request.vectors(_space(request, space))
    everything = np.concatenate([x, already]) if len(already) else x
    wanted = min(len(already) + request.n, MOST_CLUSTERS)
    k = max(1, min(wanted, len(everything)))
    member = kmeans(everything, k, seed=request.seed)
    typicality = local_typicality(everything, member, k)
    m = len(x)
    return Coverage(
        member[:m],
        np.bincount(member, minlength=k),
        np.bincount(member[m:], minlength=k),
        typicality[:m],
        strength,
    )


def _badge(request: Request, strength: float = 1.0, *, space: str = "") -> Badge:
    x = request.vectors(_space(request, space))[0]
    probabilities = request.pool.probabilities
    if probabilities is None:
        probabilities = np.full((len(request.pool), 1), np.nan, dtype=np.float32)
    return Badge(probabilities[request.rows], x, strength, seed=request.seed)


def _similarity(request: Request, line: Line) -> Fixed:
    space = _space(request, line.input.space)
    place = {s: i for i, s in enumerate(request.pool.sample_ids)}
    other = {s: i for i, s in enumerate(request.labelled.sample_ids)}
    known = request.labelled.embeddings.get(space)
    rows, missing = [], []
    for sample_id in line.input.query or ():
        if sample_id in place:
            rows.append(request.pool.embeddings[space][place[sample_id]])
        elif known is not None and sample_id in other:
            rows.append(known[other[sample_id]])
        else:
            missing.append(sample_id)
    if missing:
        raise InputError(
            f"{len(missing)} query samples have no embedding in the space {space!r}: "
            + named(missing),
            where="selection.strategies",
        )
    x = request.vectors(space)[0]
    return Fixed("similarity", query_similarity(x, np.stack(rows)), line.strategy.strength, scale=1)


def _weights(request: Request, key: str, strength: float) -> Fixed:
    values = column_of(request.pool, key)[request.rows]
    if values.dtype == object:
        raise InputError(
            f"the metadata column {key!r} holds text; WEIGHTS need numbers",
            where="selection.strategies",
            remedy="Use BALANCE for a column of text",
        )
    if np.nanmin(values, initial=0.0) < 0:
        raise InputError(
            f"the metadata column {key!r} has negative values; WEIGHTS multiply, so they must be 0 "
            "or more",
            where="selection.strategies",
        )
    return Fixed(key, values, strength)


def _balance_metadata(request: Request, line: Line) -> Balance:
    key = str(line.input.key)
    values = column_of(request.pool, key)[request.rows]
    texts = _as_texts(values)
    before = _as_texts(request.labelled.metadata.get(key, np.array([], dtype=object)))
    names = sorted({t for t in texts if t is not None} | {t for t in before if t is not None})
    place = {name: i for i, name in enumerate(names)}
    membership = np.full((len(texts), len(names)), np.nan)
    for row, text in enumerate(texts):
        if text is not None:
            membership[row] = 0.0
            membership[row, place[text]] = 1.0
    counts = np.zeros(len(names))
    for text in before:
        if text is not None:
            counts[place[text]] += 1
    return _balance(f"balance_{key}", names, membership, counts, line)


def _balance_predictions(request: Request, line: Line) -> Balance:
    probabilities = request.pool.probabilities
    names = list(request.pool.classes)
    if probabilities is None:
        membership = np.full((len(request.rows), len(names)), np.nan)
    else:
        membership = probabilities[request.rows].astype(np.float64)
    return _balance("balance_classes", names, membership, np.zeros(len(names)), line)


def _balance(
    name: str,
    names: list[str],
    membership: NDArray[np.float64],
    counts: NDArray[np.float64],
    line: Line,
) -> Balance:
    strategy = line.strategy
    if strategy.target is not None:
        unknown = sorted(set(strategy.target) - set(names))
        if unknown:
            raise InputError(
                f"`target` of {name} names values that the pool does not have: "
                + ", ".join(unknown),
                where="selection.strategies",
                remedy=f"The pool has {', '.join(names)}" if names else "The column is empty",
            )
        target = np.array([strategy.target.get(n, 0.0) for n in names])
        rest = [i for i, n in enumerate(names) if n not in strategy.target]
        if rest:  # what the target leaves open goes to the other values alike
            target[rest] = max(0.0, 1.0 - target.sum()) / len(rest)
    elif strategy.distribution == "UNIFORM":
        target = np.full(len(names), 1.0 / max(1, len(names)))
    else:
        known = ~np.isnan(membership).any(axis=1)
        target = membership[known].mean(axis=0) if known.any() else np.zeros(len(names))
    return Balance(name, membership, target, counts, strategy.strength)


def _as_texts(values: NDArray[np.generic]) -> list[str | None]:
    if values.dtype == object:
        return list(values)
    return [None if np.isnan(v) else f"{v:g}" for v in values.astype(np.float64)]


def _number_equal_names(objectives: list[Objective]) -> None:
    seen: dict[str, int] = {}
    for objective in objectives:
        seen[objective.name] = seen.get(objective.name, 0) + 1
        if seen[objective.name] > 1:
            objective.name = f"{objective.name}_{seen[objective.name]}"
