"""Stages whose newest run took far longer than their runs before, for its amount of work."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from visionloop.monitoring.findings import flag_row
from visionloop.monitoring.loop_config import LoopThresholds

KIND = "slow_stage"
# Modified z-score of the logarithm beyond which a run lies outside of the usual spread (Iglewicz
# and Hoaglin, 1993, give 3.5; the newest run of each stage is judged again and again).
DEVIATIONS = 5.0
# What machines differ by anyway: a spread below it is not believed.
_LEAST_SPREAD = 0.1
_MAD_TO_DEVIATION = 0.6745
# A run with more times the work of any before it is no longer told by a line through them.
_BEYOND = 3.0
# Newest earlier runs that are compared: what was long ago ran on another machine.
_RUNS = 60
# Written by commands, not by stages that work on samples.
_NO_STAGES = {"open_round", "release_round", "recall_labels", "save_selection", "test"}
# They wait until an endpoint serves, and for as long as a canary is configured to last.
_WAITING = {"publish", "rollback"}
# They judge all labels anew where something has changed, and nothing where not; the monitor answers
# and drift, too. What they count tells nothing of that work, and a run may only write what follows.
_UNTOLD = {"monitor", "judge_labels"}
_LEFT_OUT = _NO_STAGES | _WAITING | _UNTOLD


@dataclass(frozen=True)
class Pace:
    """The newest run of a stage beside what its runs before let expect.

    Attributes:
        stage: Name of the stage.
        round_id: Its round.
        started: When it began.
        seconds: How long it took.
        units: Its amount of work (``counts.in``), 0 where the stage counts none.
        expected: Seconds that were to be expected; NaN where that cannot be told.
        deviations: How far it lies outside, in robust standard deviations of the logarithm; NaN.
        n_runs: Earlier runs that it is compared with.
        state: ``slow``, ``usual`` or ``too few to say``.
    """

    stage: str
    round_id: str
    started: datetime
    seconds: float
    units: int
    expected: float
    deviations: float
    n_runs: int
    state: str


def paces(runs: pa.Table, thresholds: LoopThresholds) -> list[Pace]:
    """Compare the newest run of each stage with its earlier ones, in order of the stages' names.

    Seconds are expected on a line over the amount of work, fitted by the medians of slopes and
    offsets (Theil, 1950; Sen, 1968), so that start-up costs do not make small runs look slow. A run
    is slow when it took ``slow_stage_factor`` times as long as expected, lost
    ``slow_stage_seconds``, and lies 5 robust deviations outside of the earlier runs.

    Args:
        runs: Table ``stage_runs`` (sequence, stage, round_id, started_at, finished_at, counts).
        thresholds: ``slow_stage_…``.

    Returns:
        One for each stage that ever ran and whose seconds are those of its amount of work: not of
        ``publish`` and ``rollback``, which wait for an endpoint and its canary, not of ``monitor``,
        which counts files but also judges labels, answers and drift, and not of the judging of
        labels before a publication.
    """
    rows = runs.select(
        ["sequence", "stage", "round_id", "started_at", "finished_at", "counts"]
    ).sort_by("sequence")
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        if row["stage"] not in _LEFT_OUT:
            by_stage.setdefault(row["stage"], []).append(row)
    return [_pace(name, by_stage[name], thresholds) for name in sorted(by_stage)]


def _pace(stage: str, rows: Sequence[dict[str, Any]], thresholds: LoopThresholds) -> Pace:
    *earlier, newest = rows[-_RUNS - 1 :]
    seconds = np.array([_seconds(row) for row in earlier])
    units = np.array([_units(row) for row in earlier], dtype=np.float64)
    took, work = _seconds(newest), _units(newest)

    def found(expected: float, deviations: float, state: str) -> Pace:
        begun = newest["started_at"]
        return Pace(
            stage, newest["round_id"] or "", begun, took, work, expected, deviations,
            len(earlier), state,
        )  # fmt: skip

    enough = len(earlier) >= thresholds.slow_stage_min_runs
    if not enough or work > _BEYOND * max(1.0, units.max(initial=0.0)):
        return found(math.nan, math.nan, "too few to say")
    slope, offset = _line(units, seconds)
    least = max(float(seconds.min()), 1e-3)
    fitted = np.maximum(offset + slope * units, least)
    expected = max(offset + slope * work, least)
    ratios = np.log(np.maximum(seconds, 1e-3) / fitted)
    middle = float(np.median(ratios))
    spread = float(np.median(np.abs(ratios - middle))) / _MAD_TO_DEVIATION
    apart = (math.log(max(took, 1e-3) / expected) - middle) / max(spread, _LEAST_SPREAD)
    slow = (
        took >= thresholds.slow_stage_factor * expected
        and took - expected >= thresholds.slow_stage_seconds
        and apart > DEVIATIONS
    )
    return found(expected, apart, "slow" if slow else "usual")


def slow_rows(
    found: Sequence[Pace], thresholds: LoopThresholds, now: datetime
) -> list[dict[str, Any]]:
    """Return the rows of ``flags`` for the runs that are slow.

    Args:
        found: From `paces`.
        thresholds: ``slow_stage_factor``.
        now: Written as ``flagged_at``.
    """
    return [
        flag_row(
            pace.stage,
            "stage",
            KIND,
            pace.seconds / pace.expected,
            thresholds.slow_stage_factor,
            {
                "reference": f"its {pace.n_runs} runs before, by seconds over work",
                "unit": "times the expected seconds",
                "seconds": round(pace.seconds, 1),
                "expected_seconds": round(pace.expected, 1),
                "robust_deviations": round(pace.deviations, 1),
                "amount_of_work": pace.units,
                "started_at": f"{pace.started:%Y-%m-%d %H:%M} UTC",
                "round": pace.round_id,
            },
            now,
        )
        for pace in found
        if pace.state == "slow"
    ]


def _line(units: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Return slope and offset in seconds; more work never takes less."""
    from scipy.stats import theilslopes

    if units.max() == units.min():
        return 0.0, float(np.median(seconds))
    slope = max(0.0, float(theilslopes(seconds, units).slope))
    return slope, float(np.median(seconds - slope * units))


def _seconds(row: dict[str, Any]) -> float:
    return float((row["finished_at"] - row["started_at"]).total_seconds())


def _units(row: dict[str, Any]) -> int:
    counts = json.loads(row["counts"] or "{}")
    return int(counts.get("in") or 0)
