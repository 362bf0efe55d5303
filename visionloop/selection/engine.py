"""Select: guards, then the random share, then the greedy rule; every pick with its reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.config import SelectionConfig
from visionloop.selection.eligibility import Eligibility, eligible
from visionloop.selection.greedy import greedy, values_at
from visionloop.selection.inputs import space_of
from visionloop.selection.neighbours import hamming, nearest, squared_distances
from visionloop.selection.pool import Pool, Reference
from visionloop.selection.strategies import Request, build_objectives

# Classes that the schedule reckons with when the task's are not known.
DEFAULT_CLASSES = 10


@dataclass(frozen=True)
class Pick:
    """One picked sample and why.

    Args:
        sample_id: The sample.
        rank: From 0; the selected arm first, then the random arm.
        arm: `selected` (the objectives chose it) or `random` (the share drawn at random).
        propensity: Probability with which its arm picks it, given everything known before the
            round. `random`: number drawn / number eligible, the same for every eligible sample.
            `selected`: 1, because the rule is deterministic. An unbiased estimate over what was
            eligible weights the random arm alone by 1/propensity.
        objectives: Each objective's value in (0, 1] at the step at which it was picked; None where
            it was not known of this sample (and counted as the median of the others). For the
            random arm: at the start of the batch, shown but not used.
        nearest_chosen: The nearest sample that was labelled or chosen before; None for the first.
        nearest_distance: Its distance; NaN for the first.
    """

    sample_id: str
    rank: int
    arm: str
    propensity: float
    objectives: Mapping[str, float | None]
    nearest_chosen: str | None
    nearest_distance: float


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Args:
        picks: In the order of their ranks.
        requested: How many were asked for.
        eligible: How many could have been picked.
        removed: How many each filter removed; pool = eligible + Σ removed.
        pool: Number of samples before any filter.
        strengths: Each objective's strength in this batch.
        space: Embedding space of the distances; "" without embeddings.
        flags: What is not as one might expect: `budget_exceeds_pool`, `minimum_distance` (the
            stopping condition ended it), `cold_start`, `unknown_<objective>`.
    """

    picks: tuple[Pick, ...]
    requested: int
    eligible: int
    removed: Mapping[str, int]
    pool: int
    strengths: Mapping[str, float] = field(default_factory=dict)
    space: str = ""
    flags: tuple[str, ...] = ()

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """The picked samples in the order of their ranks."""
        return tuple(p.sample_id for p in self.picks)


def select(
    pool: Pool,
    config: SelectionConfig,
    n: int | None = None,
    *,
    seed: int | None = None,
    labelled: Reference | None = None,
    holdout: Reference | None = None,
    taken: Collection[str] = frozenset(),
    n_classes: int | None = None,
    excluded: Mapping[str, int] | None = None,
    unattended: bool = False,
) -> Selection:
    """Pick n samples of the pool. Pure: the same input gives the same picks.

    Args:
        pool: What to choose from.
        config: How.
        n: How many; None takes the configuration's number or proportion.
        seed: Of everything drawn; None takes the configuration's. A loop passes one that differs
            from round to round.
        labelled: Labelled samples: not picked again, nor copies of them; batches keep away from
            them.
        holdout: The frozen holdout: never picked, nor copies of it.
        taken: Ids that were selected or sent to labelling before.
        n_classes: Number of classes; None takes the pool's.
        excluded: Samples that are no part of the pool, by reason, for the counts.
        unattended: When fewer than n are left, take them and flag it instead of failing.

    Raises:
        InputError: Fewer than n are left (said after each filter), or the configuration names what
            the pool does not have.

    Cost: O(n·m·d) for m eligible samples, plus O(m·(L + n)·d·30) for the clusters of typicality.
    """
    labelled, holdout = labelled or Reference(), holdout or Reference()
    seed = config.seed if seed is None else seed
    found = eligible(
        pool, config, labelled=labelled, holdout=holdout, taken=taken, excluded=excluded or {}
    )
    wanted = _wanted(config, n, len(found.rows))
    flags: list[str] = []
    if len(found.rows) < wanted:
        if not unattended:
            raise _too_few(wanted, len(found.rows), found, "")
        flags.append("budget_exceeds_pool")
    budget = min(wanted, len(found.rows))
    rows = found.rows
    batch = _Batch(pool, _space(pool, config), labelled, config)
    drawn, propensity = _draw(pool, config, rows, budget, batch, seed)
    picks: list[Pick] = []
    strengths: dict[str, float] = {}
    shown: list[Mapping[str, float | None]] = [{} for _ in drawn]
    if config.strategy != "random" and budget:
        request = Request(
            pool=pool,
            rows=rows,
            config=config,
            labelled=labelled,
            n=budget,
            n_classes=n_classes or len(pool.classes) or DEFAULT_CLASSES,
            seed=seed,
        )
        objectives, strengths, notes = build_objectives(request)
        flags += notes
        places = np.searchsorted(rows, drawn)
        shown = [values_at(objectives, int(place)) for place in places]
        for place in places:
            for objective in objectives:
                objective.choose(int(place))
        open_to = np.ones(len(rows), dtype=np.bool_)
        open_to[places] = False
        picked, stopped = greedy(
            objectives,
            open_to,
            budget - len(drawn),
            accept=lambda candidate: batch.accept(int(rows[candidate])),
        )
        for pick in picked:
            row = int(rows[pick.candidate])
            nearest_before = batch.nearest_before[row]
            picks.append(
                Pick(
                    pool.sample_ids[row], len(picks), "selected", 1.0, pick.values, *nearest_before
                )
            )
        if stopped == "minimum_distance":
            flags.append("minimum_distance")
    for row, values in zip(drawn, shown, strict=True):
        nearest_before = batch.nearest_before[row]
        picks.append(
            Pick(pool.sample_ids[row], len(picks), "random", propensity, values, *nearest_before)
        )
    if len(picks) < budget and "minimum_distance" not in flags:
        text = f"{batch.refused} near duplicates of others in the batch were left out"
        if not unattended:
            raise _too_few(wanted, len(picks), found, text)
        flags.append("budget_exceeds_pool")
    return Selection(
        tuple(picks),
        wanted,
        len(found.rows),
        {reason: number for reason, number in found.removed.items() if number},
        found.pool,
        strengths,
        batch.space,
        tuple(dict.fromkeys(flags)),
    )


class _Batch:
    """What was chosen in this batch, and what is too close to it."""

    def __init__(
        self, pool: Pool, space: str, labelled: Reference, config: SelectionConfig
    ) -> None:
        self.space = space
        self._pool = pool
        self._copy_distance = config.copy_distance
        self._duplicate_distance = config.duplicate_distance
        self._rows: list[int] = []
        self._labelled = labelled if space in labelled.embeddings else Reference()
        self.refused = 0
        self.nearest_before: dict[int, tuple[str | None, float]] = {}

    def accept(self, row: int) -> bool:
        """Take the row in unless it nearly equals one that is in already."""
        if self._rows and self._is_duplicate(row):
            self.refused += 1
            return False
        self.nearest_before[row] = self._nearest(row)
        self._rows.append(row)
        return True

    def _is_duplicate(self, row: int) -> bool:
        prints = self._pool.fingerprints
        if prints is not None and self._copy_distance >= 0:
            bits = hamming(prints[row : row + 1], prints[self._rows])
            if int(bits.min()) <= self._copy_distance:
                return True
        if self.space:
            x = self._pool.embeddings[self.space]
            squared = squared_distances(x[row : row + 1], x[self._rows])
            # float32 leaves up to 1e-6 on the squared distance of equal vectors.
            return float(squared.min()) <= self._duplicate_distance**2 + 1e-6
        return False

    def _nearest(self, row: int) -> tuple[str | None, float]:
        if not self.space:
            return None, float("nan")
        x = self._pool.embeddings[self.space]
        best: tuple[str | None, float] = (None, float("nan"))
        for ids, others in (
            (self._labelled.sample_ids, self._labelled.embeddings.get(self.space)),
            (tuple(self._pool.sample_ids[r] for r in self._rows), x[self._rows]),
        ):
            if others is None or not len(others):
                continue
            who, squared = nearest(x[row : row + 1], others)
            distance = float(np.sqrt(squared[0]))
            if best[0] is None or distance < best[1]:
                best = (ids[int(who[0])], distance)
        return best


def _draw(
    pool: Pool,
    config: SelectionConfig,
    rows: NDArray[np.intp],
    budget: int,
    batch: _Batch,
    seed: int,
) -> tuple[list[int], float]:
    """Draw the random share before anything is chosen, so that everyone has the same chance.

    It is a simple random sample of the eligible rows. Only where near duplicates lie among them is
    the chance of `number / eligible` nominal: of two that are drawn the second is passed over.

    Returns:
        The rows in the order of their ids, and each one's propensity.
    """
    trained = pool.probabilities is not None or any(
        not name.startswith("deployed_") and np.isfinite(v).any() for name, v in pool.scores.items()
    )
    number = int(config.random_share * budget + 0.5) if trained else 0
    if config.strategy == "random":
        number = budget
    if not number:
        return [], 1.0
    drawn: list[int] = []
    for row in np.random.Generator(np.random.PCG64([seed, 1])).permutation(rows):
        if batch.accept(int(row)):
            drawn.append(int(row))
        if len(drawn) == number:
            break
    return sorted(drawn), number / len(rows)


def _wanted(config: SelectionConfig, n: int | None, left: int) -> int:
    if n is None and config.proportion_samples is not None:
        return max(1, round(config.proportion_samples * left))
    number = config.n_samples if n is None else n
    if number < 1:
        raise InputError(f"{number} samples were asked for", remedy="Ask for 1 or more")
    return number


def _space(pool: Pool, config: SelectionConfig) -> str:
    if config.space or len(pool.embeddings) == 1:
        return space_of(pool, config.space)
    return ""


def _too_few(wanted: int, left: int, found: Eligibility, more: str) -> InputError:
    return InputError(
        f"{wanted} samples were asked for and {left} can be selected: {found.describe()}"
        + (f"; {more}" if more else ""),
        where="selection",
        remedy="Ask for fewer, ingest more, or loosen a filter",
    )
