"""Rounds: one at a time, resumed after a failure, released when their run ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from visionloop.errors import VisionloopError
from visionloop.lake import Lake


def finish(lake: Lake, round_id: str) -> None:
    with lake.run(stage="publish", round_id=round_id) as run:
        run.set_round(state="done", outcome="published", counts={"labels": 3})
        run.commit()


def test_rounds_are_numbered_and_one_is_open_at_a_time(lake: Lake) -> None:
    assert lake.rounds.current_or_next() == "0000"
    assert lake.rounds.open("a").round_id == "0000"
    finish(lake, "0000")
    assert lake.rounds.current() is None
    assert lake.rounds.open("b").round_id == "0001"
    assert [r.state for r in lake.rounds.all()] == ["done", "running"]
    assert lake.rounds.all()[0].counts == {"labels": 3}


def test_a_second_run_is_refused_while_the_first_one_lives(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setenv("VISIONLOOP_RUNNER_PID", str(runner.pid))
    lake.rounds.open("first")
    monkeypatch.setenv("VISIONLOOP_RUNNER_PID", str(os.getpid()))
    with pytest.raises(VisionloopError, match=f"round 0 is being run by process {runner.pid}"):
        lake.rounds.open("second")
    assert lake.rounds.open("second", take_over=True).run_id == "second"
    monkeypatch.setenv("VISIONLOOP_RUNNER_PID", str(runner.pid))
    lake.rounds.open("first", take_over=True)
    runner.kill()
    runner.wait()
    monkeypatch.setenv("VISIONLOOP_RUNNER_PID", str(os.getpid()))
    resumed = lake.rounds.open("third")
    assert (resumed.round_id, resumed.run_id) == ("0000", "third")


def test_a_holder_elsewhere_counts_as_alive_until_its_lease_ends(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionloop.lake.rounds._holder", lambda: {"host": "far", "pid": 0})
    lake.rounds.open("far-run")
    monkeypatch.undo()
    with pytest.raises(VisionloopError, match=r"'far-run' on far, last seen .* UTC"):
        lake.rounds.open("here")
    assert lake.rounds.open("here", lease_minutes=1e-9).run_id == "here"


def test_a_released_round_is_resumed_and_a_waiting_one_too(lake: Lake) -> None:
    lake.rounds.open("first")
    lake.rounds.release("someone else")
    assert lake.rounds.get("0000").holder  # type: ignore[union-attr]
    lake.rounds.release("first")
    assert lake.rounds.open("second").round_id == "0000"
    with lake.run(stage="collect_labels", round_id="0000") as run:
        run.set_round(state="waiting")
        run.commit()
    resumed = lake.rounds.open("third")
    assert (resumed.round_id, resumed.state) == ("0000", "running")
