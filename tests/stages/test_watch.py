"""The stage `watch` on real lakes: what it sees, decides, and writes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.harvest import harvest
from visionloop.stages.ingest import ingest
from visionloop.stages.request_labels import request_labels
from visionloop.stages.watch import WatchOutputs, watch

HOLDER = (
    "import os, sys, time\n"
    "os.environ['VISIONLOOP_RUNNER_PID'] = str(os.getpid())\n"
    "from visionloop.lake import Lake\n"
    "Lake.open(sys.argv[1], loop='test').rounds.open('the other run')\n"
    "print('held', flush=True)\n"
    "time.sleep(600)\n"
)


class Loop:
    """A loop over a folder of small pictures, labelled by people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        self.drawn = 0

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / "lake"), loop="test")

    def config(self, **rules: Any) -> str:
        settings = {
            "name": "test",
            "lake": str(self.folder / "lake"),
            "classes": ["even", "odd"],
            "sources": [{"uri": str(self.images)}],
            "holdout": {"fraction": 0},
            "selection": {"n_samples": 4},
            "watch": {"min_new_samples": 5, **rules},
        }
        return json.dumps(settings)

    def watch(self, *, dry_run: bool = False, run_id: str = "", **rules: Any) -> WatchOutputs:
        return watch(config=self.config(**rules), run_id=run_id, dry_run=dry_run)

    def deliver(self, n: int) -> None:
        for number in range(self.drawn, self.drawn + n):
            pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 255, (12, 12, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(self.images / f"{number:03d}.png")
        self.drawn += n

    def begin(self) -> str:
        return ingest(config=self.config(), run_id="r", open_round=True).round_id

    def pick(self, n: int) -> None:
        ids = self.lake.read("samples", columns=["sample_id"])["sample_id"].to_pylist()[:n]
        with self.lake.run(stage="select") as run:
            run.append("selections", pa.table({"sample_id": ids, "rank": list(range(n))}))
            run.commit()

    def end(self, ago: timedelta = timedelta()) -> None:
        held = self.lake.rounds.current()
        assert held is not None
        row = held.changed(state="done", outcome="kept").row().to_pylist()[0]
        row["updated_at"] -= ago
        with self.lake.run(stage="publish") as run:
            rows = pa.Table.from_pylist([row], schema=arrow_schema("rounds"))
            run.replace("rounds", rows, f"round_id == '{held.round_id}'")
            run.commit()

    def whole_round(self, ago: timedelta = timedelta()) -> None:
        self.begin()
        self.pick(2)
        self.end(ago)

    def served(self, round_id: str, low: float, high: float, *, model: str = "m1") -> None:
        rng = np.random.Generator(np.random.PCG64(int(round_id)))
        n = 300
        rows = {
            "event_id": [f"{round_id}-{model}-{i}" for i in range(n)],
            "endpoint": ["test"] * n,
            "model_id": [model] * n,
            "label": rng.integers(0, 2, n).astype(str),
            "confidence": rng.uniform(low, high, n).astype(np.float32),
        }
        with self.lake.run(stage="harvest", round_id=round_id) as run:
            run.append("confidences", pa.table(rows))
            run.commit()

    def answer(self, n: int) -> None:
        path = self.folder / "lake" / "label_requests" / "test-0000.csv"
        with path.open() as file:
            rows = list(csv.DictReader(file))
        for row in rows[:n]:
            row["label"] = "even"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    def decisions(self) -> list[dict[str, Any]]:
        return self.lake.read("decisions", where="decision == 'watch'").to_pylist()


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def test_new_files_start_the_first_round_and_ingested_ones_count_until_a_round_chose(
    loop: Loop,
) -> None:
    loop.deliver(4)
    assert loop.watch().decision == "wait"
    loop.deliver(1)
    found = loop.watch()
    assert (found.decision, found.action, found.round_id) == ("start", "start", "0000")
    assert "5 new files at the sources, 0 new samples in the lake" in found.reason
    ingest(config=loop.config())  # an intake alone is no round
    assert "0 new files at the sources, 5 new samples in the lake" in loop.watch().reason
    loop.whole_round()
    again = loop.watch()
    assert (again.decision, again.round_id) == ("wait", "0001")
    assert "0 new files at the sources, 0 new samples in the lake" in again.reason


def test_what_came_in_while_a_round_waited_counts_for_the_next(loop: Loop) -> None:
    loop.deliver(5)
    loop.begin()
    loop.pick(2)
    loop.deliver(6)
    loop.begin()  # resumed: it ingests again, after it has chosen
    loop.end()
    found = loop.watch()
    assert (found.decision, found.round_id) == ("start", "0001")
    assert "6 new samples in the lake" in found.reason


def test_a_file_that_cannot_be_read_starts_no_round_again_and_again(loop: Loop) -> None:
    loop.deliver(5)
    for number in range(6):
        (loop.images / f"broken-{number}.png").write_bytes(b"no picture")
    loop.whole_round()
    assert loop.watch().decision == "wait"


def test_each_decision_is_written_with_its_inputs_and_the_second_watch_waits_too(
    loop: Loop,
) -> None:
    loop.deliver(5)
    loop.whole_round()
    first, second = loop.watch(run_id="one"), loop.watch(run_id="two")
    assert first.decision == second.decision == "wait"
    assert loop.lake.version() == second.lake_version != first.lake_version
    rows = sorted(loop.decisions(), key=lambda row: str(row["run_id"]))
    assert [(row["run_id"], row["outcome"], row["round_id"]) for row in rows] == [
        ("one", "wait", "0001"),
        ("two", "wait", "0001"),
    ]
    inputs = json.loads(rows[0]["inputs"])
    assert rows[0]["reason"] == first.reason
    assert inputs["seen"]["n_selectable"] == 3
    assert {r["name"]: r["verdict"] for r in inputs["rules"]}["new_samples"] == "no"

    loop.watch(run_id="two")  # a task that is tried again
    assert len(loop.decisions()) == 2


def test_a_dry_run_explains_and_writes_nothing(loop: Loop, tmp_path: Path) -> None:
    loop.deliver(5)
    loop.whole_round()
    loop.deliver(5)
    version, page = loop.lake.version(), tmp_path / "page.md"
    artifact = SimpleNamespace(path=str(page), uri=str(page), metadata={})
    found = watch(config=loop.config(), dry_run=True, page=artifact)
    assert (found.decision, found.action) == ("start", "wait")
    assert found.lake_version == loop.lake.version() == version
    assert loop.decisions() == []
    text = page.read_text()
    assert "# Watch: start" in text and found.reason in text
    assert "A dry run: nothing is started or written." in text
    assert "| new samples | start | 5 | 5 | **met** |" in text
    assert "| drift | start |  | 1 | cannot be told | no answers since the last round" in text


def test_drift_since_the_last_round_starts_one_and_is_not_heard_twice(loop: Loop) -> None:
    loop.deliver(8)
    loop.whole_round()
    loop.served("0000", 0.7, 1.0)
    assert loop.watch().decision == "wait"
    loop.served("0001", 0.3, 0.8)
    found = loop.watch(min_confidence_drop=0)
    assert found.decision == "start"
    assert "confidence drift of test against round 0" in found.reason
    assert loop.watch(on_drift=False, min_confidence_drop=0).decision == "wait"
    loop.whole_round()
    assert loop.watch().decision == "wait"


def test_what_a_monitor_flagged_starts_a_round(loop: Loop) -> None:
    loop.deliver(8)
    loop.whole_round()

    def flag(came_in: str, **compared: Any) -> None:
        one = {"model_id": "m1", "kind": "class_mix_drift", "against": "holdout", "subject": "test",
               "score": 0.4, "threshold": 0.2, "round_id": came_in, **compared}  # fmt: skip
        row = {
            "subject": one["subject"],
            "subject_type": "endpoint",
            "kind": one["kind"],
            "score": 0.4,
            "threshold": 0.2,
            "evidence": json.dumps({"comparisons": [one]}),
        }
        with loop.lake.run(stage="monitor") as run:
            run.append("flags", pa.Table.from_pylist([row], schema=arrow_schema("flags")))
            run.commit()

    flag("0000")  # the window of the round before, flagged again because nothing newer came
    assert loop.watch().decision == "wait"
    flag("0001")
    found = loop.watch()
    assert found.decision == "start"
    assert "class mix drift of test against holdout (0.40, threshold 0.20)" in found.reason
    flag("0001", kind="pixel_drift", subject="bucket", against="earlier images", model_id="")
    reason = loop.watch().reason
    assert "pixel drift of bucket against earlier images (0.40, threshold 0.20)" in reason


def test_falling_confidence_starts_a_round(loop: Loop) -> None:
    loop.deliver(8)
    loop.whole_round()
    loop.served("0000", 0.7, 1.0)
    loop.served("0001", 0.6, 0.9)
    found = loop.watch(on_drift=False)
    assert found.decision == "start"
    assert "mean confidence of test fell from 0.8" in found.reason
    assert loop.watch(on_drift=False, min_confidence_drop=0.2).decision == "wait"


def test_late_answers_of_a_retired_model_start_nothing(loop: Loop) -> None:
    loop.deliver(8)
    loop.whole_round()
    loop.served("0000", 0.7, 1.0)
    loop.served("0001", 0.3, 0.6)
    rows = [{"model_id": "m1", "state": "retired"}, {"model_id": "m2", "state": "in_service"}]
    with loop.lake.run(stage="publish") as run:
        run.append("experiments", pa.Table.from_pylist(rows, schema=arrow_schema("experiments")))
        run.commit()
    assert loop.watch().decision == "wait"


def test_time_starts_a_round_and_a_pause_or_the_budget_holds_it_back(loop: Loop) -> None:
    loop.deliver(8)
    loop.begin()
    loop.pick(3)
    request_labels(config=loop.config())
    loop.end(ago=timedelta(days=8))
    assert loop.watch(max_days=9).decision == "wait"
    found = loop.watch(max_days=7)
    assert found.decision == "start" and "ended 8.0 days ago" in found.reason
    assert loop.watch(max_days=7, min_hours=24 * 9).decision == "wait"
    held = loop.watch(max_days=7, max_labels=6)
    assert held.decision == "wait"
    assert "3 labels were asked for in the last 30 days, and 4 more make 7 of at most 6" in (
        held.reason
    )
    assert loop.watch(max_days=7, max_labels=7).decision == "start"


def test_a_round_that_waits_is_resumed_when_its_last_label_is_there(loop: Loop) -> None:
    loop.deliver(8)
    loop.begin()
    loop.pick(4)
    request_labels(config=loop.config())
    assert collect_labels(config=loop.config()).n_missing == 4
    loop.deliver(20)  # however many come: one round at a time
    waiting = loop.watch()
    assert (waiting.decision, waiting.round_id) == ("wait", "0000")
    loop.answer(3)
    half = loop.watch()
    assert half.decision == "wait"
    assert "3 of 4 requests are answered; 1 missing in" in half.reason
    assert "test-0000.csv" in half.reason
    loop.answer(4)
    assert loop.watch(on_labels_finished=False).decision == "wait"
    finished = loop.watch()
    assert (finished.decision, finished.round_id) == ("resume", "0000")
    assert loop.lake.read("labels").num_rows == 0  # it looked, and left them to their stage


def test_a_round_of_a_live_run_is_left_alone_and_one_of_a_killed_run_goes_on(loop: Loop) -> None:
    loop.deliver(8)
    command = [sys.executable, "-c", HOLDER, str(loop.folder / "lake")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        alive = loop.watch()
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert alive.decision == "wait"
    assert f"it is being run by process {other.pid} of this machine" in alive.reason
    dead = loop.watch()
    assert (dead.decision, dead.round_id) == ("resume", "0000")


def test_a_harvest_and_a_watch_beside_a_dead_run_do_not_keep_it_alive(loop: Loop) -> None:
    loop.deliver(8)
    loop.begin()
    held = loop.lake.rounds.current()
    assert held is not None
    row = held.row().to_pylist()[0]
    row["run_id"] = "lost"
    row["holder"] = json.dumps({"host": "elsewhere", "boot": "", "pid": 0, "started": ""})
    row["updated_at"] = datetime.now(UTC) - timedelta(minutes=31)
    with loop.lake.run(stage="ingest", run_id="r") as run:
        run.replace("rounds", pa.Table.from_pylist([row], schema=arrow_schema("rounds")), "true")
        run.commit()
    for run_id in ("one", "", "two"):
        harvest(config=loop.config(), run_id="the watch")
        assert loop.watch(run_id=run_id).decision == "resume"


def test_its_own_run_does_not_hold_it_back(loop: Loop) -> None:
    loop.deliver(8)
    loop.lake.rounds.open("mine")
    assert loop.watch(run_id="another").decision == "wait"
    assert loop.watch(run_id="mine").decision == "resume"


def test_a_source_that_is_gone_is_an_error_and_no_reason_to_wait(loop: Loop) -> None:
    loop.images.rmdir()
    with pytest.raises(InputError, match="does not exist"):
        loop.watch()
