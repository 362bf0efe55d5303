"""A stage is slow when it took far longer than its runs before, for its amount of work."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.slow_stages import Pace, paces, slow_rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USUAL = MonitoringConfig()


def runs(rows: list[tuple[float, int]], stage: str = "infer") -> pa.Table:
    made: list[dict[str, Any]] = []
    for i, (seconds, units) in enumerate(rows):
        begun = NOW + timedelta(hours=i)
        made.append(
            {
                "sequence": i,
                "stage": stage,
                "round_id": f"{i:04d}",
                "started_at": begun,
                "finished_at": begun + timedelta(seconds=seconds),
                "counts": json.dumps({"in": units} if units else {}),
            }
        )
    return pa.Table.from_pylist(made, schema=arrow_schema("stage_runs"))


def newest(rows: list[tuple[float, int]]) -> Pace:
    (pace,) = paces(runs(rows), USUAL)
    return pace


def usual(n: int, seed: int = 0) -> list[tuple[float, int]]:
    """Return runs with 5 seconds to start, 0.1 seconds a unit, and a spread of 10 %."""
    rng = np.random.default_rng(seed)
    units = rng.integers(50, 2000, n).tolist()
    return [((5 + 0.1 * u) * float(np.exp(rng.normal(0, 0.1))), u) for u in units]


def test_a_run_that_took_five_times_as_long_is_slow_and_says_by_how_much() -> None:
    pace = newest([*usual(12), (5 * 105.0, 1000)])
    assert pace.state == "slow" and 80 < pace.expected < 130
    (row,) = slow_rows([pace], USUAL, NOW)
    assert (row["subject"], row["subject_type"], row["threshold"]) == ("infer", "stage", 3.0)
    assert 4 < row["score"] < 6.5
    evidence = json.loads(row["evidence"])
    assert evidence["unit"] == "times the expected seconds" and "12 runs" in evidence["reference"]


def test_more_work_takes_longer_and_is_not_slow_for_it() -> None:
    assert newest([*usual(12), (205.0, 2000)]).state == "usual"


def test_little_work_is_not_slow_for_the_time_that_starting_takes() -> None:
    # 5 seconds for one unit are fifty times the seconds a unit of the others.
    assert newest([*usual(12), (5.2, 1)]).state == "usual"


def test_seconds_that_nobody_misses_are_not_told() -> None:
    assert newest([*[(0.1, 10)] * 12, (2.0, 10)]).state == "usual"


def test_few_runs_or_far_more_work_than_ever_cannot_be_judged() -> None:
    assert newest([*usual(5), (900.0, 100)]).state == "too few to say"
    assert newest([*usual(12), (900.0, 90_000)]).state == "too few to say"


def test_stages_without_a_count_are_compared_by_their_seconds() -> None:
    assert newest([*[(20.0, 0)] * 10, (200.0, 0)]).state == "slow"
    assert newest([*[(20.0, 0)] * 10, (30.0, 0)]).state == "usual"


def test_a_stage_that_waits_or_whose_work_is_not_counted_is_not_judged() -> None:
    canary = [*[(20.0, 1)] * 12, (3600.0, 1)]
    left_out = ("publish", "rollback", "monitor", "judge_labels")
    every = [runs(canary, stage) for stage in (*left_out, "train")]
    (pace,) = paces(pa.concat_tables(every), USUAL)
    assert (pace.stage, pace.state) == ("train", "slow")


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 40), st.integers(0, 10_000))
def test_usual_runs_are_never_slow(n: int, seed: int) -> None:
    assert newest(usual(n + 1, seed)).state == "usual"
