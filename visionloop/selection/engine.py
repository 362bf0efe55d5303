"""Select: guards, then the random share, then the greedy rule; every pick with its reasons."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.accelerated import device_of
from visionloop.selection.batch import Batch, draw_share, pick_unknown
from visionloop.selection.cold import without_unknown_thresholds
from visionloop.selection.config import SelectionConfig
from visionloop.selection.eligibility import Eligibility, eligible
from visionloop.selection.greedy import Course, Picked, greedy, values_at
from visionloop.selection.lazy import radius
from visionloop.selection.limits import Reached, Watch
from visionloop.selection.objectives import Objective
from visionloop.selection.pool import Pool, Reference
from visionloop.selection.request import Request
from visionloop.selection.strategies import Plan, build_objectives, missed_ranges

# Flags of the stopping conditions: with one of them fewer than were asked for is as configured.
STOPPING = frozenset({"minimum_distance", "minimum_typicality", "max_sum"})
# Classes that the schedule reckons with when the task's are not known.
DEFAULT_CLASSES = 10


@dataclass(frozen=True)
class Pick:
    """One picked sample and why.

    Args:
        sample_id: The sample.
        rank: From 0; the selected arm first, then the unknown and the random arm.
        arm: `selected` (the objectives chose it), `unknown` (the quota of images in which a
            detector found nothing) or `random` (the share drawn at random).
        propensity: Probability with which its arm picks it, given everything known before the
            round. `random`: number drawn / number eligible, the same for every eligible sample.
            The others come after it: 1 where a rule decides who is next, None where chance has a
            part in it whose probability is not known (BADGE, lines of RANDOM, the quota of unknown
            images without embeddings, a sample of the pool). An unbiased estimate over what was
            eligible weights the random arm alone by 1/propensity.
        objectives: Each objective's value in (0, 1] at the step at which it was picked; None where
            it was not known of this sample (and counted as the median of the others). For the
            other arms: when they were taken in, shown but not used.
        nearest_chosen: The nearest sample that was labelled or chosen before; None for the first.
        nearest_distance: Its distance; NaN for the first.
    """

    sample_id: str
    rank: int
    arm: str
    propensity: float | None
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
        flags: What is not as one might expect: `budget_exceeds_pool`, a stopping condition that
            ended it (`STOPPING`), `cold_start`, `unknown_<objective>`, `short_of_<objective>` or
            `beyond_<objective>` (a `target_range` that was not reached).
        radius_before: Largest distance of a sample of the pool to the nearest labelled one;
            infinite where there is none, NaN without embeddings.
        radius: The same to the nearest labelled or picked one.
        radius_at_most: Whether `radius` is only known not to be larger than this.
        passed_over: Eligible samples whose turn came and who are near duplicates of others of the
            batch or of labelled ones.
    """

    picks: tuple[Pick, ...]
    requested: int
    eligible: int
    removed: Mapping[str, int]
    pool: int
    strengths: Mapping[str, float] = field(default_factory=dict)
    space: str = ""
    flags: tuple[str, ...] = ()
    radius_before: float = float("nan")
    radius: float = float("nan")
    radius_at_most: bool = False
    passed_over: int = 0

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
    queries: Reference | None = None,
    n_classes: int | None = None,
    excluded: Mapping[str, int] | None = None,
    unattended: bool = False,
    at_most: bool = False,
    course: Course | None = None,
    watch: Callable[[Course, int], None] | None = None,
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
        queries: Samples that SIMILARITY may find more of, beside the pool's and the labelled ones.
        n_classes: Number of classes; None takes the pool's.
        excluded: Samples that are no part of the pool, by reason, for the counts.
        unattended: Nobody is there to be asked: when fewer than n are left, take them, and where
            nothing is known of what the lines ask for, take typical samples; both are flagged.
        at_most: When fewer than n are left, take them and flag it instead of failing.
        course: How far an interrupted call with the same input had come; it is gone on with.
        watch: Called after every pick of the greedy rule with how far it has come and how many
            picks it is to make; what it raises ends the selection.

    Raises:
        InputError: Fewer than n are left (said after each filter), or the configuration names what
            the pool does not have.

    Cost: O(n·m·d) for m eligible samples, plus O(m·(L + n)·d·30) for the clusters of typicality.
    """
    labelled, holdout = labelled or Reference(), holdout or Reference()
    device = device_of(config.device)  # before any work: it may not be there
    seed = config.seed if seed is None else seed
    at_most = at_most or unattended
    passing, flags = without_unknown_thresholds(pool, config, unattended=unattended)
    found = eligible(
        pool, passing, labelled=labelled, holdout=holdout, taken=taken, excluded=excluded or {}
    )
    wanted = _wanted(config, n, len(found.rows))
    if len(found.rows) < wanted:
        if not at_most:
            raise _too_few(wanted, len(found.rows), found, "")
        flags.append("budget_exceeds_pool")
    budget = min(wanted, len(found.rows))
    rows = found.rows
    batch = Batch(pool, config, labelled)
    drawn, propensity = draw_share(pool, config, rows, budget, batch, seed)
    random_arm: list[Mapping[str, float | None]] = [{} for _ in drawn]
    unknown: list[tuple[int, Mapping[str, float | None]]] = []
    picked: list[Picked] = []
    strengths: dict[str, float] = {}
    by_rule: float | None = 1.0
    if config.strategy != "random" and budget:
        request = Request(
            pool=pool,
            rows=rows,
            config=config,
            labelled=labelled,
            queries=queries or Reference(),
            n=budget,
            n_classes=n_classes or len(pool.classes) or DEFAULT_CLASSES,
            seed=seed,
            cold="typicality" if unattended else "refuse",
        )
        plan = build_objectives(request)
        strengths = plan.strengths
        by_rule = None if plan.drawn else 1.0
        flags += plan.notes
        open_to = np.ones(len(rows), dtype=np.bool_)
        for limit in plan.limits:
            if limit.allowed is not None:
                open_to &= limit.allowed
        chosen = [int(place) for place in np.searchsorted(rows, drawn)]
        random_arm = [values_at(plan.objectives, place) for place in chosen]
        _choose(plan.objectives, chosen, open_to)
        missed = pick_unknown(request, plan.objectives, open_to, chosen, batch, budget)
        unknown = [(place, values_at(plan.objectives, place)) for place in missed]
        _choose(plan.objectives, missed, open_to)
        chosen += missed
        course = Course() if course is None else course
        left = budget - len(chosen)
        picked, stopped = _greedily(plan, open_to, chosen, left, batch, rows, course, watch, device)
        flags += [stopped] if stopped else []
        flags += missed_ranges(plan.objectives)
    picks = [
        *_picks(
            pool, "selected", by_rule, [(int(rows[p.candidate]), p.values) for p in picked], batch
        ),
        *_picks(
            pool,
            "unknown",
            1.0 if batch.space else None,
            [(int(rows[place]), v) for place, v in unknown],
            batch,
        ),
        *_picks(pool, "random", propensity, list(zip(drawn, random_arm, strict=True)), batch),
    ]
    picks = [replace(pick, rank=rank) for rank, pick in enumerate(picks)]
    if len(picks) < budget and not STOPPING & set(flags):
        text = f"{batch.refused} near duplicates of others in the batch or labelled were left out"
        if not at_most:
            raise _too_few(wanted, len(picks), found, text)
        flags.append("budget_exceeds_pool")
    before, after = _radii(pool, labelled, picks, batch.space)
    return Selection(
        tuple(picks),
        wanted,
        len(found.rows),
        {reason: number for reason, number in found.removed.items() if number},
        found.pool,
        strengths,
        batch.space,
        tuple(dict.fromkeys(flags)),
        before,
        after,
        passed_over=batch.refused,
    )


def _choose(
    objectives: Sequence[Objective], places: Sequence[int], open_to: NDArray[np.bool_]
) -> None:
    for place in places:
        open_to[place] = False
        for objective in objectives:
            objective.choose(place)


def _greedily(
    plan: Plan,
    open_to: NDArray[np.bool_],
    chosen: list[int],
    left: int,
    batch: Batch,
    rows: NDArray[np.intp],
    course: Course,
    told: Callable[[Course, int], None] | None,
    device: str,
) -> tuple[list[Picked], str]:
    """Return the picks of the greedy rule, and the stopping condition that ended it, if one did."""
    limits = Watch(plan.limits, chosen)
    batch.refused += len(course.refused)

    def watch(course: Course) -> None:
        limits(course)
        if told is not None:  # never of the pick that a limit ends with: greedy goes on after it
            told(course, left)

    try:
        limits(course)
        picked, stopped = greedy(
            plan.objectives,
            open_to,
            left,
            accept=lambda candidate: batch.accept(int(rows[candidate])),
            course=course,
            watch=watch,
            device=device,
        )
    except Reached as reached:
        return course.picked, reached.reason
    if stopped == "exhausted":
        masks = [limit.reason for limit in plan.limits if limit.allowed is not None]
        return picked, masks[0] if masks else ""
    return picked, stopped


def _radii(
    pool: Pool, labelled: Reference, picks: Sequence[Pick], space: str
) -> tuple[float, float]:
    """Return the k-center radius over the pool before and with the batch."""
    if not space or not len(pool):
        return float("nan"), float("nan")
    x = pool.embeddings[space]
    already = labelled.embeddings.get(space)
    if already is None or not len(already):
        already = np.zeros((0, x.shape[1]), dtype=np.float32)
    rows = np.searchsorted(pool.sample_ids, [pick.sample_id for pick in picks])
    centres = np.concatenate([already, x[rows.astype(np.intp)]])
    return radius(x, already), radius(x, centres)


def _picks(
    pool: Pool,
    arm: str,
    propensity: float | None,
    rows: Sequence[tuple[int, Mapping[str, float | None]]],
    batch: Batch,
) -> list[Pick]:
    return [
        Pick(pool.sample_ids[row], 0, arm, propensity, values, *batch.nearest_before[row])
        for row, values in rows
    ]


def _wanted(config: SelectionConfig, n: int | None, left: int) -> int:
    if n is None and config.proportion_samples is not None:
        return max(1, round(config.proportion_samples * left))
    number = config.n_samples if n is None else n
    if number < 1:
        raise InputError(f"{number} samples were asked for", remedy="Ask for 1 or more")
    return number


def _too_few(wanted: int, left: int, found: Eligibility, more: str) -> InputError:
    return InputError(
        f"{wanted} samples were asked for and {left} can be selected: {found.describe()}"
        + (f"; {more}" if more else ""),
        where="selection",
        remedy="Ask for fewer, ingest more, or loosen a filter",
    )
