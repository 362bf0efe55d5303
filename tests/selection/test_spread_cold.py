"""In shards, too, a round goes on where nothing is predicted yet, or nobody passes a threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.selection.small_lake import deploy, fill, label
from tests.selection.spreading import DIVERSE, SCORES, alone, joined
from visionloop.lake import Lake

N = 60
SHARDS = {"select_shard_size": 15, "select_whole": 40}
TYPICAL = {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "TYPICALITY"}}


def above(score: str, threshold: float) -> dict[str, Any]:
    strategy = {"type": "THRESHOLD", "operation": "BIGGER", "threshold": threshold}
    return {"input": {"type": "SCORES", "score": score}, "strategy": strategy}


def unpredicted(root: Path) -> Lake:
    lake = Lake.open(str(root), loop="small")
    label(lake, fill(lake, N, holdout=0)[:4])
    return lake


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake in which no model has predicted anything."""
    return unpredicted(tmp_path_factory.mktemp("cold") / "lake")


@pytest.mark.parametrize(
    ("lines", "flag"),
    [
        ([above("margin", 0.1), DIVERSE], "threshold_unknown"),
        ([above("margin", 0.1), TYPICAL], "threshold_unknown"),
        ([above("vote_entropy", 0.1), TYPICAL], "threshold_unknown"),
        ([SCORES], "cold_start"),
    ],
)
def test_before_the_first_model_shards_leave_a_round_its_samples(
    cold: Lake, lines: list[dict[str, Any]], flag: str
) -> None:
    given = {"n_samples": 7, "strategies": lines}
    made, one = joined(cold, given, **SHARDS).selection, alone(cold, given)
    assert len(made.picks) == len(one.picks) == 7
    assert made.eligible == one.eligible == N - 4 and dict(made.removed) == dict(one.removed)
    assert flag in made.flags and set(one.flags) <= set(made.flags)


def test_more_picks_than_half_a_shard_are_of_a_sample_by_diversity_too(cold: Lake) -> None:
    given = {"n_samples": 8, "strategy": "diversity"}
    made = joined(cold, given, **SHARDS).selection
    assert "sampled_pool" in made.flags and len(made.picks) == 8
    assert made.radius_at_most and made.radius >= alone(cold, given).radius - 1e-5
    everyone = joined(cold, given, **SHARDS | {"select_whole": 59}).selection
    assert everyone.sample_ids == alone(cold, given).sample_ids
    assert not everyone.radius_at_most


def test_nobody_passes_a_threshold_and_nobody_is_picked_in_shards_either(tmp_path: Path) -> None:
    lake = unpredicted(tmp_path / "lake")
    deploy(lake, lake.embeddings("pixels")[0])
    given = {"n_samples": 8, "strategies": [above("margin", 2.0), SCORES]}
    made, one = joined(lake, given, **SHARDS).selection, alone(lake, given)
    assert made.picks == one.picks == () and made.removed == one.removed
