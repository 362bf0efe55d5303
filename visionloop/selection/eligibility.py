"""Who may be picked at all, and how many are left after each filter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.config import SelectionConfig
from visionloop.selection.inputs import amounts_of, space_of
from visionloop.selection.lines import Objective
from visionloop.selection.neighbours import copies_of
from visionloop.selection.pool import Pool, Reference
from visionloop.vectors.thinning import thinned

_OPERATIONS = {
    "SMALLER": np.less,
    "SMALLER_EQUAL": np.less_equal,
    "BIGGER": np.greater,
    "BIGGER_EQUAL": np.greater_equal,
}
LABELLED = "labelled already"
QUERIES = "that are queries"
# Distance of near duplicates that a line NEAR_DUPLICATES means when it gives none.
NEAR = 0.1


@dataclass(frozen=True)
class Eligibility:
    """What the filters left.

    Args:
        rows: The eligible rows of the pool, ascending.
        removed: How many each filter removed, in the order in which they were applied. A sample is
            counted by the first filter that removes it, so pool = eligible + Σ removed.
        pool: Number of samples before any filter.
    """

    rows: NDArray[np.intp]
    removed: dict[str, int]
    pool: int

    def describe(self) -> str:
        """Return one line: what is left after each filter."""
        left, parts = self.pool, [f"{self.pool} in the pool"]
        for reason, number in self.removed.items():
            if number:
                left -= number
                parts.append(f"{left} without {number} {reason}")
        return ", ".join(parts)


def eligible(
    pool: Pool,
    config: SelectionConfig,
    *,
    labelled: Reference,
    holdout: Reference,
    taken: Collection[str],
    excluded: Mapping[str, int],
) -> Eligibility:
    """Apply the guards and then the thresholds of the configuration.

    Args:
        pool: What there is.
        config: What counts as a copy, flags that exclude, thresholds.
        labelled: Samples with a label; neither they nor copies of them are picked again.
        holdout: Samples that nobody may train on, nor on copies of them.
        taken: Ids that were selected or sent to labelling already.
        excluded: Samples that did not come into the pool at all, by reason.

    Raises:
        InputError: A threshold names what the pool does not have.
    """
    keep = np.ones(len(pool), dtype=np.bool_)
    removed = dict(excluded)

    def drop(reason: str, mask: NDArray[np.bool_]) -> None:
        removed[reason] = removed.get(reason, 0) + int((mask & keep).sum())
        keep[mask] = False

    drop(LABELLED, _among(pool.sample_ids, labelled.sample_ids))
    drop("selected already", _among(pool.sample_ids, taken))
    drop("in the holdout", _among(pool.sample_ids, holdout.sample_ids))
    if config.dialect != "lightly":  # LightlyOne has the queries of a tag among the rest
        for line in config.strategies:
            drop(QUERIES, _among(pool.sample_ids, line.query))
    for kind in config.flags_left_out:
        if kind in pool.flags:
            drop(f"flagged {kind}", pool.flags[kind])
    if pool.fingerprints is not None:
        # What is equal to the holdout stays out of it, whatever is configured.
        guards = (
            ("copies of the holdout", holdout, max(config.copy_distance, 0)),
            ("copies of labelled", labelled, config.copy_distance),
        )
        for reason, other, bits in guards:
            if other.fingerprints is not None:
                who, _ = copies_of(pool.fingerprints, other.fingerprints, bits)
                drop(reason, who >= 0)
    for objective in config.strategies:
        if objective.strategy.type == "THRESHOLD":
            values, text = _threshold(pool, objective, config)
            drop(f"unknown to {text}", np.isnan(values))
            with np.errstate(invalid="ignore"):
                passes = _OPERATIONS[str(objective.strategy.operation)](
                    values, float(objective.strategy.threshold or 0.0)
                )
            drop(f"failing {text}", ~passes)
    # After the thresholds: who fails one must not take the place of a near duplicate that does not.
    for objective in config.strategies:
        if objective.strategy.type == "NEAR_DUPLICATES":
            distance = objective.strategy.distance or NEAR
            space = space_of(pool, objective.input.space or config.space)
            rows = np.flatnonzero(keep)
            near = np.zeros(len(pool), dtype=np.bool_)
            near[rows] = _near_others(pool, rows, space, labelled, distance)
            drop(f"near duplicates of others (distance up to {distance:g})", near)
    return Eligibility(np.flatnonzero(keep), removed, len(pool) + sum(excluded.values()))


def _among(sample_ids: Sequence[str], others: Collection[str]) -> NDArray[np.bool_]:
    members = others if isinstance(others, set | frozenset) else set(others)
    return np.fromiter((s in members for s in sample_ids), dtype=np.bool_, count=len(sample_ids))


def _near_others(
    pool: Pool, rows: NDArray[np.intp], space: str, labelled: Reference, distance: float
) -> NDArray[np.bool_]:
    """Return bool [rows]: who is near a labelled sample, or near one of a smaller id that stays.

    Cost: that of `thinned`.
    """
    known = labelled.embeddings.get(space)
    x = pool.embeddings[space][rows]
    before = 0 if known is None else len(known)
    everything = x if known is None else np.concatenate([known, x])
    stays = thinned(everything, max(1.0 - distance**2 / 2.0, 1e-6), always=before)
    return ~stays[before:]


def _threshold(
    pool: Pool, objective: Objective, config: SelectionConfig
) -> tuple[NDArray[np.float64], str]:
    strategy = objective.strategy
    empty = 0.0 if config.dialect == "lightly" else float("nan")
    name, values = amounts_of(
        pool, objective.input, reducer=config.reducer, space=config.space, empty=empty
    )
    operation = str(strategy.operation).lower().replace("_", " or ")
    return values, f"the threshold on {name} ({operation} {strategy.threshold:g})"
