"""The selection among what the shards propose: one pool of candidates, the ordinary engine over it.

Guards hold as in a selection of one task: of every candidate all is read again, and near duplicates
are refused wherever they come from. Where each sample has a number for itself, the picks are those
of one task: scales are measured over all shards, the totals of everybody are formed from what the
shards wrote down, and whoever has the largest is among the candidates. Where distances count they
are those of two-stage greedy, see `visionloop.selection.shards`. What needs everybody at once is
selected from a uniform sample of the pool, see `visionloop.selection.sampled`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionloop.lake import parts
from visionloop.selection.eligibility import LABELLED
from visionloop.selection.engine import STOPPING, Pick, Selection
from visionloop.selection.extract import Extract
from visionloop.selection.greedy import comparable
from visionloop.selection.material import Material, read_material
from visionloop.selection.objectives import Fixed, Similarity
from visionloop.selection.proposals import (
    IDS,
    VALUES,
    Proposed,
    read_proposed,
    sum_of,
)
from visionloop.selection.record import select_material
from visionloop.selection.sampled import read_sample
from visionloop.selection.shards import farthest
from visionloop.selection.spread import at_least
from visionloop.selection.spread_files import Spread, read_table
from visionloop.vectors.exact import Floats

if TYPE_CHECKING:
    from visionloop.lake import Lake

_MORE = 4  # times as many of the largest totals, where near duplicates have used them up


@dataclass(frozen=True)
class Joined:
    """The selection over all shards.

    Attributes:
        selection: As a selection of one task, with the flag `selected_in_shards`, and
            `sampled_pool` where not all that is eligible is in the sample.
        material: What was read of the candidates.
        candidates: How many there were.
        bound: Where distances alone count: no eligible sample is farther than this from one that is
            picked or labelled. None otherwise.
        least: Likewise: whatever so many are picked, some eligible sample is at least this far.
        of: Of how many samples the candidates are a uniform sample; 0 where they are none.
    """

    selection: Selection
    material: Material
    candidates: int
    bound: float | None
    least: float | None
    of: int


def join(lake: Lake, spread: Spread) -> Joined:
    """Select among what all shards propose.

    Args:
        lake: The lake.
        spread: The selection.

    Raises:
        VisionloopError: A shard has not proposed.

    Memory: the candidates, one shard's ids at a time, and 40 bytes a sample where each has a number
    for itself.
    """
    shards = [read_proposed(lake, shard) for shard in spread.shards]
    config = spread.config
    n_eligible = sum(shard.told["eligible"] for shard in shards)
    n = config.n_samples
    if config.proportion_samples is not None:
        n = max(1, round(config.proportion_samples * n_eligible))
    found = _of_sample if spread.sample else _of_candidates
    selection, material, candidates = found(lake, spread, shards, n, n_eligible)
    return _over_all(lake, spread, shards, selection, material, n_eligible, candidates)


def _of_sample(
    lake: Lake, spread: Spread, shards: Sequence[Proposed], n: int, n_eligible: int
) -> tuple[Selection, Material, int]:
    """Select among a uniform sample of what is eligible; with all of it, as one task does."""
    known_to = min(shard.told["lot"] for shard in shards)
    labelled: Collection[str] = spread.labelled
    for space in _other_spaces(spread):
        labelled = lake.embeddings(space, sorted(labelled), version=spread.version)[0]
    named = [shard.table for shard in shards]
    sample = read_sample(lake, spread, named, known_to, sorted(labelled))
    material = _material(lake, spread, sample.sample_ids, sample.x, {})
    selection = select_material(material, n, seed=spread.seed, unattended=True)
    if sample.size < n_eligible:
        selection = replace(selection, flags=("sampled_pool", *selection.flags))
    return selection, material, sample.size


def _of_candidates(
    lake: Lake, spread: Spread, shards: Sequence[Proposed], n: int, n_eligible: int
) -> tuple[Selection, Material, int]:
    """Select among candidates of which the shards have proposed the best."""
    scaled: list[dict[str, Any]] = next(
        (shard.told["scaled"] for shard in shards if "scaled" in shard.told), []
    )
    totals, whole = _totals(lake, spread, shards, scaled, keep=not spread.diverse)
    known = dict(spread.known)
    for shard in shards:
        known |= shard.vectors
    named = {name for shard in shards for name in shard.table["sample_id"].to_pylist()}
    wanted = at_least(min(n, n_eligible))
    while True:
        first = _largest(lake, spread, shards, totals, wanted)
        missing = first - known.keys()
        found = lake.embeddings(spread.config.space, sorted(missing), version=spread.version)
        known |= zip(*found, strict=True)
        ids = sorted(named | first)
        width = len(next(iter(known.values()), ()))
        x = np.array([known[name] for name in ids], dtype=np.float32).reshape(len(ids), width)
        material = _material(lake, spread, ids, x, whole)
        selection = select_material(material, n, seed=spread.seed, unattended=True)
        selected = {pick.sample_id for pick in selection.picks if pick.arm == "selected"}
        # Whoever is picked beyond the first was one of the others' candidates, by chance there.
        if not first or wanted >= n_eligible or selected <= first:
            return selection, material, len(ids)
        wanted *= _MORE


def _totals(
    lake: Lake,
    spread: Spread,
    shards: Sequence[Proposed],
    scaled: list[dict[str, Any]],
    *,
    keep: bool,
) -> tuple[NDArray[np.float64] | None, dict[str, tuple[float, float]]]:
    """Return everybody's total in the order of the shards, and each objective's scale."""
    totals: NDArray[np.float64] | None = None
    whole = {}
    for objective in scaled:
        name = objective["name"]
        values = np.concatenate(
            [
                read_table(lake, shard + VALUES, [name])[name].to_numpy()
                for shard, found in zip(spread.shards, shards, strict=True)
                if found.told["eligible"]
            ]
        )
        if objective["similar"]:
            one: Fixed = Similarity(values, objective["strength"])
        else:
            one = Fixed(name, values, objective["strength"], scale=objective["scale"])
        whole[name] = one.measure(values)
        if keep:
            if totals is None:
                totals = np.zeros(len(values))
            totals += sum_of([one])
    if totals is not None:
        totals = comparable(totals, [float(objective["strength"]) for objective in scaled])
    return totals, whole


def _largest(
    lake: Lake,
    spread: Spread,
    shards: Sequence[Proposed],
    totals: NDArray[np.float64] | None,
    wanted: int,
) -> set[str]:
    """Return the samples of the largest totals; of equals those of the smallest ids."""
    if totals is None:
        return set()
    wanted = min(wanted, len(totals))
    least = np.partition(totals, -wanted)[-wanted]
    above: set[str] = set()
    equal: list[str] = []
    start = 0
    for shard, found in zip(spread.shards, shards, strict=True):
        here = totals[start : start + found.told["eligible"]]
        start += len(here)
        more, same = np.flatnonzero(here > least), np.flatnonzero(here == least)[:wanted]
        if len(more) or len(same):
            ids = read_table(lake, shard + IDS)["sample_id"]
            above.update(ids.take(more).to_pylist())
            equal += ids.take(same).to_pylist()
    return above.union(sorted(equal)[: wanted - len(above)])


def _material(
    lake: Lake, spread: Spread, ids: list[str], x: Floats, whole: dict[str, tuple[float, float]]
) -> Material:
    space, others = spread.config.space, _other_spaces(spread)
    extract = Extract(lake, spread.version, space, ids, x, spread.known, spread.harvested, others)
    material = read_material(
        lake,
        spread.config,
        classes=spread.classes,
        version=spread.version,
        task=spread.task,
        extract=extract,
    )
    return replace(material, pool=replace(material.pool, whole=whole))


def _other_spaces(spread: Spread) -> list[str]:
    spaces = {line.input.space for line in spread.config.strategies}
    return sorted(spaces - {"", spread.config.space})


def _reach(material: Material, picks: Sequence[Pick]) -> float:
    """Return the distance of the candidate that is farthest from what is picked or labelled."""
    x = material.pool.embeddings[material.space]
    if not len(x):
        return 0.0
    centres = x[np.searchsorted(material.pool.sample_ids, [pick.sample_id for pick in picks])]
    labelled = material.labelled.embeddings[material.space]
    if len(labelled):
        centres = np.concatenate([labelled, centres])
    return farthest(x, centres) if len(centres) else float("inf")


def _over_all(
    lake: Lake,
    spread: Spread,
    shards: Sequence[Proposed],
    selection: Selection,
    material: Material,
    n_eligible: int,
    candidates: int,
) -> Joined:
    """Return the selection with counts, propensities and radii of all shards."""
    n_all = n_eligible
    removed: dict[str, int] = {}
    n_pool = sum(shard.told["pool"] for shard in shards)
    everyone = parts.count(lake, "samples", "split", "pool", spread.version)
    if everyone > n_pool:
        removed[f"not embedded in {spread.config.space}"] = everyone - n_pool
    for shard in shards:
        for reason, number in shard.told["removed"].items():
            removed[reason] = removed.get(reason, 0) + number
    # Who is eligible for itself and yet is not, beside the others of a sample.
    late = {reason: n for reason, n in selection.removed.items() if reason != LABELLED}
    late = late if spread.sample else {}
    for reason, number in late.items():
        where = " of the sample" if candidates < n_eligible else ""
        removed[reason + where] = removed.get(reason + where, 0) + number
    fewer = (selection.eligible + sum(late.values())) / max(1, n_eligible)
    n_eligible -= sum(late.values())
    sampled = "sampled_pool" in selection.flags

    def chance(pick: Pick) -> float | None:
        if pick.arm == "random" and pick.propensity is not None:
            return pick.propensity * fewer
        return None if sampled else pick.propensity  # who is in a sample is up to chance

    picks = tuple(replace(pick, propensity=chance(pick)) for pick in selection.picks)
    flags = ["selected_in_shards", *selection.flags]
    if len(picks) < min(selection.requested, n_eligible) and not STOPPING & set(flags):
        flags = [flag for flag in flags if flag != "budget_exceeds_pool"]
        flags.append("candidates_used_up")
    befores = [shard.told["before"] for shard in shards]
    before = float("inf") if None in befores else max(befores)
    bound = least = None
    # No eligible sample is farther than this from one that is picked or labelled.
    reach = float("inf") if sampled or not spread.sample else selection.radius
    if spread.only_diverse and not spread.sample:
        of_shards = max(shard.told["radius"] for shard in shards)
        # A shard's candidates are more than the picks, and all this far apart.
        bound, least = of_shards + _reach(material, picks), of_shards / 2
        reach = bound
    rests = [shard.told["rest"] for shard in shards]
    after = before if None in rests else min(before, max([reach, *rests]))
    exact = spread.sample and not sampled and after == selection.radius
    return Joined(
        replace(
            selection,
            picks=picks,
            eligible=n_eligible,
            removed=removed,
            pool=everyone,
            flags=tuple(dict.fromkeys(flags)),
            radius_before=before,
            radius=after if np.isfinite(after) else float("nan"),
            radius_at_most=bool(np.isfinite(after) and not exact),
        ),
        material,
        candidates,
        bound,
        least,
        n_all if spread.sample else 0,
    )
