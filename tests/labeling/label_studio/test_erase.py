"""`visionloop erase` deletes the samples' tasks at Label Studio, and tells those it could not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.labeling.label_studio.conftest import Loop
from visionloop.cli import main

Loops = Callable[..., Loop]


def _requested(pets: Loop, count: int) -> dict[str, str]:
    """Ask about pictures, and note the requests as the stage does."""
    requests = pets.provider.request("r1", pets.asks(count))
    with pets.lake.run(stage="request_labels") as run:
        rows = {
            "sample_id": list(requests),
            "provider": ["label_studio"] * count,
            "external_id": list(requests.values()),
            "recalled": [False] * count,
            "round_id": ["r1"] * count,
        }
        run.append("label_requests", pa.table(rows))
        run.commit()
    return requests


def _erase(
    pets: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str], *samples: str, **studio: str
) -> dict[str, Any]:
    config = pets.config.model_dump(mode="json", exclude_unset=True)
    config["labeling"]["label_studio"] |= studio
    path = tmp_path / "loop.yaml"
    path.write_text(json.dumps(config))
    assert main(["erase", "--config", str(path), *samples, "--yes", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_tasks_are_deleted_that_were_made_under_another_title(
    loop: Loops, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = loop()
    gone, kept = _requested(pets, 2)
    told = _erase(pets, tmp_path, capsys, gone, project="A title of today")
    assert (told["tasks"], told["tasks_deleted"]) == ([], 1)
    assert [task["data"]["sample_id"] for task in pets.tasks()] == [kept]


def test_a_task_that_cannot_be_found_is_told_and_not_called_deleted(
    loop: Loops, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = loop()
    requests = _requested(pets, 2)
    hidden, recalled = requests
    pets.provider.recall("r1", {recalled: requests[recalled]})
    with pets.lake.run(stage="recall_labels") as run:
        rows = run.read("label_requests").to_pylist()
        rows = [row | {"recalled": row["sample_id"] == recalled} for row in rows]
        table = pa.Table.from_pylist(rows, schema=run.read("label_requests").schema)
        run.replace("label_requests", table, "round_id == 'r1'")
        run.commit()
    with pets.server.api() as admin:
        admin.patch(f"/api/projects/{pets.project['id']}/", json={"description": "Ours."})
    told = _erase(pets, tmp_path, capsys, hidden, recalled)
    assert told["tasks"] == [f"label_studio: {requests[hidden]}"]
    assert told["tasks_deleted"] == 0
    assert len(pets.tasks()) == 1
