"""The demo, as a newcomer starts it; killed half way and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visionloop.demo.world import World
from visionloop.lake import Lake


def start(folder: Path, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "visionloop", "demo", "--dir", folder, "--rounds", str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def tasks_started(folder: Path) -> set[str]:
    found = set()
    for path in folder.glob("runs/*/events.jsonl"):
        found |= {
            event["stage"]
            for line in path.read_text().splitlines()
            if (event := json.loads(line)).get("event") == "started"
        }
    return found


def clients_view(folder: Path) -> dict[tuple[str, str, int], list[float]]:
    """Return what the client saw: probabilities by request, model and row."""
    seen: dict[tuple[str, str, int], list[float]] = {}
    for path in sorted((folder / "traffic").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            exchange = json.loads(line)
            for row, probabilities in enumerate(exchange["probabilities"] or []):
                seen[exchange["request_sha256"], exchange["model_id"], row] = probabilities
    return seen


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_killed_half_way_goes_on_and_its_counts_are_those_of_the_world(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my demo"
    first = start(folder, 2)
    wait_for(lambda: "train" in tasks_started(folder), 240)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second = start(folder, 2)
    said, _ = second.communicate(timeout=500)
    assert second.returncode == 0, said
    assert "Accuracy on the frozen holdout" in said and "report.html" in said

    summary = json.loads((folder / "summary.json").read_text())
    world = World(folder, seed=0)
    lake = Lake.open(str(folder / "lake"), loop="digits")
    assert [told["round"] for told in summary["rounds"]] == [0, 1]
    assert [told["labels"] for told in summary["rounds"]] == [20, 40]
    for told in summary["rounds"]:
        planted = world.planted(told["round"])
        found = told["flags"]
        for kind in ("unreadable", "exact_duplicate"):
            assert found[kind] == planted[kind]
        for kind in ("near_duplicate", "blurred", "dark"):
            assert planted[kind] * 0.8 <= found[kind] <= planted[kind] * 1.3 + 1
        assert told["events_harvested"] == told["events_logged"] > 300
        assert told["accuracy"] > 0.7 and told["random_accuracy"] > 0.4
    assert summary["rounds"][1]["accuracy"] > summary["rounds"][0]["accuracy"] - 0.02
    assert Path(summary["report"]).read_text().startswith("<!doctype html>")

    # Killed and resumed: every file once, every pick once, a model a round and arm.
    files = lake.read("files").to_pylist()
    delivered = len(world.delivered(0)) + len(world.delivered(1))
    assert len({row["uri"] for row in files}) == len(files) == delivered
    picks = lake.read("selections")["sample_id"].to_pylist()
    assert len(picks) == len(set(picks)) == 40
    experiments = lake.read("experiments").to_pylist()
    assert len(experiments) == 4
    assert [held.state for held in lake.rounds.all()] == ["done", "done"]

    # The harvested probabilities are the ones that the client saw, to the bit.
    seen = clients_view(folder)
    harvested = lake.read("confidences").to_pylist()
    assert len(harvested) >= len(seen) > 600
    import numpy as np

    for row in harvested:
        saw = np.asarray(seen[row["request_sha256"], row["model_id"], row["row"]], np.float32)
        assert np.array_equal(saw, np.asarray(row["probabilities"], np.float32))
    # Half of what production saw arrived in the bucket later: those samples have both.
    samples = set(lake.read("samples")["sample_id"].to_pylist())
    joined = {row["sample_id"] for row in harvested if row["sample_id"]} & samples
    assert len(joined) > 50
    objectives = [
        json.loads(row["objectives"])
        for row in lake.read("selections", where="round_id == '0001'").to_pylist()
    ]
    assert any("deployed_margin" in values for values in objectives)
