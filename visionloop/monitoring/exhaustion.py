"""For how many rounds what is left to be selected lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.labeling.answers import latest_answers
from visionloop.labeling.asked import asked_or_selected
from visionloop.monitoring.findings import flag_row

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake.run import Run

KIND = "pool_exhausted"


@dataclass(frozen=True)
class Left:
    """What is left to be selected.

    Attributes:
        n_pool: Samples of the pool.
        n_spoken_for: Of these, those that were selected, asked about or labelled.
        n_left_out: Of the rest, those that a flag keeps from being selected.
        n_left: What is left.
        budget: Samples that a round asks about: of what is left, where a share is configured.
    """

    n_pool: int
    n_spoken_for: int
    n_left_out: int
    n_left: int
    budget: int

    @property
    def rounds(self) -> float:
        """Rounds that what is left lasts for; infinite where a round takes a share of it."""
        return self.n_left / self.budget if self.budget else math.inf


def what_is_left(run: Run, loop: LoopConfig) -> Left:
    """Count what the next rounds can choose from.

    What guards leave out beyond flags (copies of the holdout, single conditions on metadata) is
    known only to the selection itself, so this is the most that there can be.

    Args:
        run: A run, which reads at its base version.
        loop: The loop's configuration.

    Cost: O(n) in Arrow over the pool, and O(labels).
    """
    pool = run.read("samples", columns=["sample_id"], where="split == 'pool'")["sample_id"]
    pool = pc.unique(pool)

    def read(table: str, *columns: str) -> pa.Table:
        return run.read(table, columns=list(columns))

    spoken = asked_or_selected(read) | latest_answers(run.read("labels").to_pylist()).keys()
    free = pool.filter(pc.invert(pc.is_in(pool, value_set=_ids(spoken))))
    kinds = pa.array(loop.selection.flags_left_out, pa.string())
    flags = run.read("flags", columns=["subject", "kind"], where="subject_type == 'sample'")
    flagged = flags.filter(pc.is_in(flags["kind"], value_set=kinds))["subject"]
    out = pc.sum(pc.is_in(free, value_set=pc.unique(flagged))).as_py() or 0
    share = loop.selection.proportion_samples
    left = len(free) - out
    # A share of what is there is never used up; nothing at all is.
    budget = loop.selection.n_samples if share is None else int(left == 0)
    return Left(len(pool), len(pool) - len(free), out, left, budget)


def exhaustion_rows(
    left: Left, loop: LoopConfig, n_sources: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the row of ``flags`` where what is left is too little, none where it is not.

    A lake that never had a pool is not exhausted.

    Args:
        left: From `what_is_left`.
        loop: ``monitoring.pool_rounds_below``, and the loop's name.
        n_sources: How many sources bring pictures in.
        now: Written as ``flagged_at``.
    """
    least = loop.monitoring.pool_rounds_below
    if not left.n_pool or left.rounds >= least:
        return []
    evidence = {
        "reference": f"a budget of {left.budget:,} a round"
        if loop.selection.proportion_samples is None
        else f"{loop.selection.proportion_samples:.0%} of what can be selected, each round",
        "unit": "round" if left.rounds == 1 else "rounds",
        "left_to_select": left.n_left,
        "samples_in_the_pool": left.n_pool,
        "selected_asked_or_labelled": left.n_spoken_for,
        "kept_out_by_flags": left.n_left_out,
        "sources": n_sources,
    }
    return [flag_row(loop.name, "pool", KIND, left.rounds, least, evidence, now)]


def _ids(held: Any) -> pa.Array:
    return pa.array(sorted(held), pa.string())
