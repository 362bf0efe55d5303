"""A pool that lasts for less than two rounds is told, by what can really be selected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.selection.small_lake import NOW, put
from visionloop.config import LoopConfig
from visionloop.lake import Lake
from visionloop.monitoring.exhaustion import Left, exhaustion_rows, what_is_left


def loop(**selection: Any) -> LoopConfig:
    return LoopConfig.model_validate(
        {"name": "test", "lake": "x", "selection": selection, "labeling": {"provider": "csv"}}
    )


@pytest.fixture
def pool(lake: Lake) -> Lake:
    """Return a lake with 10 samples of the pool: 2 labelled, 1 asked about, 1 blurred, 1 dark."""
    names = [f"s{i}" for i in range(10)]
    put(lake, "samples", [{"sample_id": name, "split": "pool"} for name in names])
    put(lake, "samples", [{"sample_id": "h", "split": "holdout"}])
    put(
        lake, "labels", [{"sample_id": name, "label": "x", "created_at": NOW} for name in names[:2]]
    )
    put(lake, "label_requests", [{"sample_id": "s2"}])
    flags = [("s3", "blurred"), ("s4", "dark"), ("s0", "blurred")]
    put(
        lake,
        "flags",
        [{"subject": s, "subject_type": "sample", "kind": kind} for s, kind in flags],
    )
    return lake


def left_of(lake: Lake, config: LoopConfig) -> Left:
    with lake.run(stage="monitor", round_id="0000") as run:
        return what_is_left(run, config)


def test_what_is_left_is_the_pool_less_what_is_spoken_for_and_what_flags_keep_out(
    pool: Lake,
) -> None:
    left = left_of(pool, loop(n_samples=5, exclude_flags=["blurred"]))
    assert left == Left(n_pool=10, n_spoken_for=3, n_left_out=1, n_left=6, budget=5)
    assert left.rounds == 1.2


def test_a_pool_for_less_than_two_rounds_is_flagged_and_a_larger_one_is_not(pool: Lake) -> None:
    config = loop(n_samples=4, exclude_flags=[])
    left = left_of(pool, config)
    (row,) = exhaustion_rows(left, config, 1, NOW)
    assert (row["subject"], row["subject_type"], row["score"]) == ("test", "pool", 1.75)
    evidence = json.loads(row["evidence"])
    assert (evidence["unit"], evidence["left_to_select"]) == ("rounds", 7)
    assert evidence["reference"] == "a budget of 4 a round"
    assert exhaustion_rows(left_of(pool, loop(n_samples=3)), loop(n_samples=3), 1, NOW) == []


def test_a_share_of_the_pool_is_never_used_up_but_nothing_is(pool: Lake) -> None:
    config = loop(proportion_samples=0.5)
    assert exhaustion_rows(left_of(pool, config), config, 1, NOW) == []
    put(pool, "label_requests", [{"sample_id": f"s{i}"} for i in range(10)])
    (row,) = exhaustion_rows(left_of(pool, config), config, 1, NOW)
    told = json.loads(row["evidence"])["reference"]
    assert told == "50% of what can be selected, each round"


def test_a_lake_without_a_pool_is_not_exhausted(lake: Lake) -> None:
    assert exhaustion_rows(left_of(lake, loop()), loop(), 0, NOW) == []
