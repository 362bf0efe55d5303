"""Ranges and stopping conditions: what adds up over a batch, and when it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import Selection, select
from visionloop.selection.notes import note
from visionloop.selection.objectives import density_typicality
from visionloop.selection.pool import Pool

SECONDS = np.random.default_rng(5).uniform(1, 60, size=200).round(1)


def pool() -> Pool:
    x = np.random.default_rng(6).normal(size=(200, 5)).astype(np.float32)
    names = [f"{i:04d}" for i in range(200)]
    return Pool.build(names, embeddings={"e": x}, metadata={"seconds": SECONDS.tolist()})


def chosen(n: int, *lines: tuple[dict[str, Any], dict[str, Any]]) -> Selection:
    strategies = [{"input": i, "strategy": s} for i, s in lines]
    config = parse_selection_config({"strategies": strategies, "random_share": 0})
    return select(pool(), config, n)


def total(selection: Selection) -> float:
    return float(sum(SECONDS[int(s)] for s in selection.sample_ids))


WEIGHTS = {"type": "METADATA", "key": "seconds"}


@pytest.mark.parametrize(("low", "high"), [(100, 120), (900, 910), (0, 100), (500, None)])
def test_the_sum_over_the_batch_ends_in_the_wanted_range(low: float, high: float | None) -> None:
    wanted = {"min_sum": low, "max_sum": high}
    selection = chosen(20, (WEIGHTS, {"type": "WEIGHTS", "target_range": wanted}))
    assert len(selection.picks) == 20
    assert low <= total(selection) <= (high or np.inf)
    assert selection.flags == ()


def test_a_range_out_of_reach_is_come_as_near_to_as_can_be_and_flagged() -> None:
    ordered = np.argsort(SECONDS, kind="stable")
    far = {"min_sum": 100_000, "max_sum": 200_000}
    selection = chosen(5, (WEIGHTS, {"type": "WEIGHTS", "target_range": far}))
    assert total(selection) == pytest.approx(SECONDS[ordered[-5:]].sum())
    (flag,) = selection.flags
    assert flag.startswith("short_of_") and "seconds over the batch is below" in note(flag)
    little = {"min_sum": 0, "max_sum": 0.5}
    selection = chosen(5, (WEIGHTS, {"type": "WEIGHTS", "target_range": little}))
    assert total(selection) == pytest.approx(SECONDS[ordered[:5]].sum())
    (flag,) = selection.flags
    assert flag.startswith("beyond_") and "seconds over the batch is above" in note(flag)


def test_a_range_leaves_room_for_other_objectives() -> None:
    diverse = ({"type": "EMBEDDINGS"}, {"type": "DIVERSITY"})
    ranged = (WEIGHTS, {"type": "WEIGHTS", "target_range": {"min_sum": 300, "max_sum": 400}})
    both, alone = chosen(20, diverse, ranged), chosen(20, diverse)
    assert 300 <= total(both) <= 400
    assert not 300 <= total(alone) <= 400
    first = both.picks[0].objectives
    assert set(first) == {"diversity", "range_seconds"}


def test_the_selection_stops_when_the_sum_reaches_its_most() -> None:
    selection = chosen(50, (WEIGHTS, {"type": "WEIGHTS", "stopping_condition_max_sum": 200}))
    assert selection.flags == ("max_sum",)
    ordered = [SECONDS[int(s)] for s in selection.sample_ids]
    assert ordered == sorted(SECONDS, reverse=True)[: len(ordered)]
    assert sum(ordered[:-1]) < 200 <= sum(ordered)


def test_nobody_less_typical_than_the_least_allowed_is_selected() -> None:
    typicality = density_typicality(pool().embeddings["e"], 20)
    least = float(np.quantile(typicality, 0.9))
    strategy = {"type": "TYPICALITY", "stopping_condition_minimum_typicality": least}
    selection = chosen(50, ({"type": "EMBEDDINGS"}, strategy))
    assert selection.flags == ("minimum_typicality",)
    expected = [i for i in np.argsort(-typicality, kind="stable") if typicality[i] >= least]
    assert [int(s) for s in selection.sample_ids] == expected
    diverse = ({"type": "EMBEDDINGS"}, {"type": "DIVERSITY"})
    both = chosen(50, diverse, ({"type": "EMBEDDINGS"}, strategy))
    assert {int(s) for s in both.sample_ids} == set(expected)
    assert both.flags == ("minimum_typicality",)


def test_near_duplicates_are_removed_before_anything_is_chosen() -> None:
    x = np.random.default_rng(7).normal(size=(30, 6))
    x[10:15] = x[:5] + 0.01 * np.random.default_rng(8).normal(size=(5, 6))
    x[20] = x[10] + 0.01
    names = [f"{i:04d}" for i in range(30)]
    near = {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "NEAR_DUPLICATES"}}
    draw = {"input": {"type": "RANDOM"}, "strategy": {"type": "WEIGHTS"}}
    config = parse_selection_config({"strategies": [near, draw], "random_share": 0})
    selection = select(Pool.build(names, embeddings={"e": x}), config, 24)
    assert set(selection.sample_ids) == set(names) - set(names[10:15]) - {names[20]}
    assert selection.removed == {"near duplicates of others (distance up to 0.1)": 6}
