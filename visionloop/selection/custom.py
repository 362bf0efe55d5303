"""From the lines of a configuration to objectives: each is an input and a strategy on it."""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.amounts import Counted, Ranged
from visionloop.selection.inputs import amounts_of, column_of, predictions_of
from visionloop.selection.limits import Limit
from visionloop.selection.lines import SIMILAR, UNCERTAINTIES
from visionloop.selection.lines import Objective as Line
from visionloop.selection.lots import lots
from visionloop.selection.neighbours import Floats
from visionloop.selection.objectives import (
    FLOOR,
    Balance,
    Fixed,
    Lots,
    Objective,
    Similarity,
    density_typicality,
    query_distances,
)
from visionloop.selection.pool import named
from visionloop.selection.request import (
    Request,
    badge,
    coverage,
    deployed,
    diversity,
    probcover,
)


def objectives_of(request: Request, line: Line) -> tuple[list[Objective], list[Limit]]:
    """Return the objectives of one line and its stopping conditions.

    A line of deployed scores becomes two objectives, see `visionloop.selection.request.deployed`.

    Raises:
        InputError: The line names what the pool does not have.
    """
    match line.strategy.type:
        case "TYPICALITY":
            return _typicality(request, line)
        case "WEIGHTS" if line.input.type != "RANDOM":
            return _weights(request, line)
    return [_objective(request, line)], []


def _objective(request: Request, line: Line) -> Objective:
    source, strategy = line.input, line.strategy
    strength, space = strategy.strength, source.space
    match source.type, strategy.type:
        case "EMBEDDINGS", "DIVERSITY":
            floor = strategy.stopping_condition_minimum_distance
            return diversity(request, strength, space=space, minimum_distance=floor)
        case "EMBEDDINGS", "COVERAGE":
            return coverage(request, strength, space=space)
        case "EMBEDDINGS", "PROBCOVER":
            radius, purity = strategy.radius, strategy.purity
            return probcover(request, strength, space=space, radius=radius, purity=purity)
        case "EMBEDDINGS", "BADGE":
            return badge(request, strength, space=space)
        case "EMBEDDINGS", "SIMILARITY":
            return _similarity(request, line)
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


def _typicality(request: Request, line: Line) -> tuple[list[Objective], list[Limit]]:
    strategy = line.strategy
    x = request.vectors(request.space(line.input.space))[0]
    values = density_typicality(x, strategy.num_nearest_neighbors or 20)
    limits = []
    if strategy.stopping_condition_minimum_typicality is not None:
        enough = values >= strategy.stopping_condition_minimum_typicality
        limits.append(Limit("minimum_typicality", allowed=enough))
    return [Fixed("typicality", values, strategy.strength)], limits


def _amounts(request: Request, line: Line) -> tuple[str, NDArray[np.float64]]:
    space = request.config.space
    source = line.input
    if source.type == "SCORES" and source.score_name().startswith(SIMILAR):
        space = request.space()
    name, values = amounts_of(
        request.pool, source, reducer=request.config.reducer, space=space, empty=request.empty
    )
    values = values[request.rows]
    if np.nanmin(values, initial=0.0) < 0:
        raise InputError(
            f"{name!r} has negative values; WEIGHTS multiply, so they must be 0 or more",
            where="selection.strategies",
        )
    return name, values


def _weights(request: Request, line: Line) -> tuple[list[Objective], list[Limit]]:
    source, strategy = line.input, line.strategy
    name, values = _amounts(request, line)
    limits = []
    if strategy.stopping_condition_max_sum is not None:
        most = strategy.stopping_condition_max_sum
        limits.append(Limit("max_sum", amounts=values, most=most))
    if strategy.target_range is not None:
        wanted = strategy.target_range
        high = float("inf") if wanted.max_sum is None else wanted.max_sum
        ranged = Ranged(name, values, request.n, wanted.min_sum, high, strategy.strength)
        return [ranged], limits
    direct = name.removeprefix("deployed_")
    if source.type == "SCORES" and name.startswith("deployed_") and direct in UNCERTAINTIES:
        both = deployed(request, direct, strategy.strength)
        if both:
            return list(both), limits
    bounded = source.type == "SCORES" and name != "object_frequency"
    if bounded and name in UNCERTAINTIES:
        bounded = (source.reducer or request.config.reducer) != "sum"
    return [Fixed(name, values, strategy.strength, scale=1.0 if bounded else None)], limits


def _random(request: Request, seed: int, strength: float = 1.0) -> Lots:
    # By the sample's id alone, so that filters do not change anyone's luck.
    draws = lots([request.pool.sample_ids[row] for row in request.rows], seed)
    return Lots("random", np.maximum(draws, FLOOR), strength)


def _similarity(request: Request, line: Line) -> Fixed:
    space = request.space(line.input.space)
    vectors: dict[str, Floats] = {}
    wanted = set(line.query)
    for some in (request.queries, request.labelled, request.pool):
        of_some = zip(some.sample_ids, some.embeddings.get(space, ()), strict=False)
        vectors.update((name, vector) for name, vector in of_some if name in wanted)
    missing = [sample_id for sample_id in line.query if sample_id not in vectors]
    if missing:
        raise InputError(
            f"{len(missing)} query samples have no embedding in the space {space!r}: "
            + named(missing),
            where="selection.strategies",
        )
    x = request.vectors(space)[0]
    odd = [sample for sample in line.query if len(vectors[sample]) != x.shape[1]]
    if odd:
        raise InputError(
            f"{len(odd)} query samples have embeddings of {len(vectors[odd[0]])} dimensions, the "
            f"pool of {x.shape[1]}: {named(odd)}",
            where=f"embeddings of the space {space!r}",
            remedy="Two models' embeddings were mixed; embed all samples again",
        )
    query = np.stack([vectors[sample_id] for sample_id in line.query])
    return Similarity(query_distances(x, query), line.strategy.strength)


def _balance_metadata(request: Request, line: Line) -> Balance:
    key = str(line.input.key)
    texts = _as_texts(column_of(request.pool, key)[request.rows])
    before = _as_texts(request.labelled.metadata.get(key, np.array([], dtype=object)))
    names = sorted({t for t in (*texts, *before) if t is not None})
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
    name = f"balance_{key}"
    there = {t for t in _as_texts(column_of(request.pool, key)) if t is not None}
    line = _with_times_as_held(line, there.union(names))
    # Who had a wanted value may all be labelled or filtered out: the others go on without them.
    absent = set(line.strategy.target or ()) - set(names)
    if not request.pool.partial:
        absent &= there
    names += sorted(absent)
    membership = np.pad(membership, ((0, 0), (0, len(absent))))
    membership[[text is None for text in texts]] = np.nan
    counts = np.pad(counts, (0, len(absent)))
    if _merges(request, line, names):
        names, membership, counts = _merged(names, membership, counts, line)
    target = _target(name, names, membership, line)
    return Balance(name, membership, target, counts, line.strategy.strength, absent=absent)


def _with_times_as_held(line: Line, names: Set[str]) -> Line:
    """Return a line whose target names the times of a column as the column has them.

    Args:
        line: A BALANCE, whose target may say ``2026-03-02`` or ``2026-03-02T00:00Z``.
        names: What the column has.
    """
    if line.strategy.target is None or not any(_as_time(name) == name for name in names):
        return line
    target: dict[str, float] = {}
    for key, share in line.strategy.target.items():
        held = key if key in names else _as_time(key) or key
        target[held] = target.get(held, 0.0) + share
    return line.model_copy(update={"strategy": line.strategy.model_copy(update={"target": target})})


def _as_time(text: str) -> str | None:
    """Return a time in ISO 8601 as columns of times have it, in UTC; None where it is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return str(moment.astimezone(UTC))


def _balance_predictions(request: Request, line: Line) -> Balance:
    names, all_amounts = predictions_of(request.pool, line.input)
    held = all_amounts[request.rows]
    if not names:  # before the first model nothing tells what it will find
        names = sorted(line.strategy.target or ())
        held = np.full((len(held), len(names)), np.nan)
    counts = np.array([float(request.labelled.labels.count(name)) for name in names])
    if _merges(request, line, names):
        names, held, counts = _merged(names, held, counts, line)
    target = _target("balance_classes", names, held, line)
    return Counted("balance_classes", held, target, counts, line.strategy.strength)


def _merges(request: Request, line: Line, names: list[str]) -> bool:
    """Tell whether values that the target leaves open count as one, as LightlyOne has it."""
    target = line.strategy.target
    return request.config.dialect == "lightly" and target is not None and set(target) <= set(names)


def _merged(
    names: list[str],
    membership: NDArray[np.float64],
    counts: NDArray[np.float64],
    line: Line,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    target = line.strategy.target or {}
    mine = [i for i, name in enumerate(names) if name in target]
    rest = [i for i, name in enumerate(names) if name not in target]
    if not rest:
        return names, membership, counts
    return (
        [*(names[i] for i in mine), "(others)"],
        np.column_stack([membership[:, mine], membership[:, rest].sum(axis=1)]),
        np.append(counts[mine], counts[rest].sum()),
    )


def _target(
    name: str, names: list[str], membership: NDArray[np.float64], line: Line
) -> NDArray[np.float64]:
    """Return the wanted share of each value, float64 [V]."""
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
        return target
    if strategy.distribution == "UNIFORM":
        return np.full(len(names), 1.0 / max(1, len(names)))
    total = np.nansum(membership, axis=0)
    return np.asarray(total / total.sum()) if total.sum() > 0 else np.zeros(len(names))


def _as_texts(values: NDArray[np.generic]) -> list[str | None]:
    if values.dtype == object:
        return list(values)
    return [None if np.isnan(v) else _as_text(float(v)) for v in values]


def _as_text(number: float) -> str:
    """Return a number as a person writes it, no two as the same text."""
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
