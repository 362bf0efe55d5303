"""The stages that select: a round keeps to its budget, whoever gets it and however it selects."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.labeling.trust.blobs import CLASSES, Blobs, blobs, lake_of
from visionloop.stages.plan_selection import plan_selection
from visionloop.stages.select import select
from visionloop.stages.select_shard import select_shard

BUDGET = 30


@pytest.fixture
def made() -> Blobs:
    return blobs(260, 0.15)


def config_of(root: Path, relabel: str = "activelab", **cluster: int) -> str:
    return json.dumps(
        {
            "name": "blobs",
            "lake": str(root / "lake"),
            "classes": CLASSES,
            "sources": [{"uri": str(root)}],
            "selection": {
                "n_samples": BUDGET,
                "strategy": "diversity",
                "duplicate_distance": 0,
                "copy_distance": -1,
            },
            "labeling": {"trust": {"relabel": relabel}},
            "cluster": cluster,
        }
    )


def test_picks_and_relabels_share_the_budget_and_a_second_run_changes_nothing(
    tmp_path: Path, made: Blobs
) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    page: Any = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    first = select(config=config_of(tmp_path), round_id="0001", page=page)
    relabels = lake.read("relabels").to_pylist()
    assert relabels and first.n_selected + len(relabels) == BUDGET
    assert {row["round_id"] for row in relabels} == {"0001"}
    picked = set(lake.read("selections")["sample_id"].to_pylist())
    assert not picked & {row["sample_id"] for row in relabels}
    text = (tmp_path / "page.md").read_text()
    assert "## Asked again" in text and relabels[0]["sample_id"][:12] in text
    again = select(config=config_of(tmp_path), round_id="0001")
    assert again.n_selected == first.n_selected
    assert lake.read("relabels").to_pylist() == relabels


def test_without_relabelling_the_whole_budget_is_new(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    assert select(config=config_of(tmp_path, "none"), round_id="0001").n_selected == BUDGET
    assert lake.read("relabels").num_rows == 0


def test_shards_get_the_same_budget_as_one_task(tmp_path: Path, made: Blobs) -> None:
    alone = lake_of(tmp_path / "alone", made, unlabelled=100)
    one = select(config=config_of(tmp_path / "alone"), round_id="0001")
    spread = lake_of(tmp_path / "spread", made, unlabelled=100)
    config = config_of(tmp_path / "spread", select_shard_size=150)
    version = spread.version()
    told = {"config": config, "lake_version": version, "round_id": "0001"}
    plan = plan_selection(**told)
    assert plan.n_shards == 2
    for shard in plan.shards:
        select_shard(**told, plan=plan.plan, shard=shard)
    other = select(**told, plan=plan.plan)
    assert other.n_selected == one.n_selected
    asked = [lake.read("relabels")["sample_id"].to_pylist() for lake in (alone, spread)]
    assert asked[0] == asked[1]
    assert len(asked[1]) + other.n_selected == BUDGET
