"""A selection that would not fit the memory of its task is refused before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.selection.small_lake import CLASSES, deploy, fill
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.stages import memory
from visionloop.stages.plan_selection import plan_selection


def plan(lake: Lake, strategy: str, **cluster: Any) -> list[str]:
    settings = {
        "name": lake.loop,
        "lake": lake.uri,
        "classes": CLASSES,
        "labeling": {"provider": "csv"},
        "selection": {"n_samples": 5, "strategy": strategy},
        "cluster": cluster,
    }
    return plan_selection(config=json.dumps(settings), round_id="0000").shards


@pytest.mark.parametrize(
    ("strategy", "cluster", "told"),
    [
        ("diversity", {}, "from one task of 403 .* of 8 components .*select_shard_size"),
        ("typicality", {"select_shard_size": 100}, "from one task of 403 .*select_whole"),
        ("diversity", {"select_shard_size": 100}, "from a shard of 81 "),
        ("typicality", {"select_shard_size": 50, "select_whole": 200}, "a sample of 200 "),
    ],
)
def test_what_does_not_fit_is_refused_with_the_memory_it_needs(
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    cluster: dict[str, Any],
    told: str,
) -> None:
    deploy(lake, fill(lake, 400))
    plan(lake, strategy, **cluster)  # with this machine's memory
    few = 48 if "sample" in told else 80
    monkeypatch.setattr(memory, "limit", lambda: memory._IDLE + few * (1450 + 4 * 8))
    with pytest.raises(InputError, match=told) as refused:
        plan(lake, strategy, **cluster)
    assert "Give 1Gi or more" in str(refused.value.remedy)


def test_the_limit_is_the_containers_or_the_machines(tmp_path: Path) -> None:
    file, nothing = tmp_path / "memory.max", tmp_path / "none"
    machine = memory.limit((nothing,))
    file.write_text("max\n")
    assert memory.limit((nothing, file)) == machine > 1 << 28
    file.write_text("123456789\n")
    assert memory.limit((nothing, file)) == 123_456_789
