"""A waiting round goes on when people have answered: at the webhook's hint, not much later."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Server, Starter
from tests.serving.conftest import start as start
from tests.stages.test_watch import Loop
from tests.submission.kfp_stub import KfpStub
from visionloop.cli import main
from visionloop.config import load_config
from visionloop.labeling.following import Follower, Pace, Ready
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.request_labels import request_labels

SECRET = "0123456789abcdef-hook"


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A loop whose round waits for two labels."""
    made = Loop(tmp_path)
    made.deliver(4)
    made.begin()
    made.pick(2)
    request_labels(config=made.config())
    assert collect_labels(config=made.config()).n_missing == 2
    return made


@pytest.fixture
def collector(start: Starter, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", SECRET)
    return start(
        "collect", events=loop.lake.path("events"), label_events=loop.lake.path("label_events"),
        port=0,
    )  # fmt: skip


def tell(collector: Server) -> None:
    """Call as Label Studio does."""
    request = urllib.request.Request(
        f"{collector.url}/label-studio/test",
        b'{"action": "ANNOTATION_CREATED"}',
        {"Authorization": f"Bearer {SECRET}"},
    )
    assert urllib.request.urlopen(request, timeout=10).status == 202


def answer(loop: Loop, *labels: str) -> None:
    """Fill the request file as people do."""
    path = Path(loop.lake.path("label_requests", "test-0000.csv").removeprefix("file://"))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, labels, strict=False):
        row["label"] = label
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


class Following:
    """A follower in a thread."""

    def __init__(self, loop: Loop, **pace: float) -> None:
        self.said: list[str] = []
        self.found: list[Ready | None] = []
        settings: dict[str, float] = {"hint": 0.05, "quiet": 0.2, "longest": 1.0, "every": 600}
        self.follower = Follower(
            load_config(loop.config()),
            loop.lake,
            pace=Pace(**(settings | pace)),
            say=self.said.append,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.found.append(self.follower.next())

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def heard(self, words: str) -> None:
        deadline = time.monotonic() + 20
        while not any(words in line for line in self.said):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def end(self) -> None:
        self.follower.end()
        self._thread.join()


def test_a_hint_is_followed_at_once_and_only_enough_answers_end_the_wait(
    loop: Loop, collector: Server
) -> None:
    following = Following(loop)
    try:
        following.heard("round 0 waits: 0 of 2 requests are answered")
        answer(loop, "odd")
        assert not following.wait(1)  # nobody has told it
        tell(collector)
        following.heard("round 0 waits: 1 of 2")
        answer(loop, "odd", "even")
        began = time.monotonic()
        tell(collector)
        assert following.wait(10)
        assert time.monotonic() - began < 10  # and not the 600 seconds of the next look
        assert following.found == [Ready("0000", "all 2 requests are answered")]
    finally:
        following.end()


def test_without_a_webhook_it_looks_now_and_then(loop: Loop) -> None:
    following = Following(loop, every=0.3)
    try:
        following.heard("waits: 0 of 2")
        answer(loop, "odd", "even")
        assert following.wait(20)
        assert following.found[0]
    finally:
        following.end()


def test_people_who_answer_in_a_row_are_looked_at_once(loop: Loop, collector: Server) -> None:
    following = Following(loop, quiet=1.7, longest=60.0)
    try:
        following.heard("waits: 0 of 2")
        answer(loop, "odd")
        for _ in range(10):
            tell(collector)
            time.sleep(0.3)
        assert not any("1 of 2" in line for line in following.said)
        following.heard("1 of 2")
    finally:
        following.end()
    assert following.found == [None]


def test_a_round_that_somebody_runs_is_left_to_them(loop: Loop) -> None:
    following = Following(loop)
    following.heard("waits")
    following.end()
    answer(loop, "odd", "even")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(loop.folder / "lake")], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        assert following.follower.look() is None
        assert following.said[-1] == "no round waits for people"
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout
        holder.stdout.close()


HOLD = (
    "import os, sys, time\n"
    "os.environ['VISIONLOOP_RUNNER_PID'] = str(os.getpid())\n"
    "from visionloop.lake import Lake\n"
    "Lake.open(sys.argv[1], loop='test').rounds.open('the other run')\n"
    "print('held', flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.mark.slow
def test_the_command_runs_the_rest_of_the_round(
    loop: Loop, collector: Server, tmp_path: Path
) -> None:
    settings: dict[str, Any] = json.loads(loop.config())
    (tmp_path / "loop.yaml").write_text(json.dumps(settings))
    log = tmp_path / "follow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "visionloop", "labels", "follow", "--config", "loop.yaml",
             "--once", "--quiet", "0.3", "--every", "60"],
            cwd=tmp_path, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while b"waits: 0 of 2" not in log.read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        # Nothing is left to train on, which ends the round without PyTorch.
        answer(loop, "skip", "skip")
        tell(collector)
        assert process.wait(timeout=240) == 0, log.read_text()
    finally:
        process.kill()
    held = loop.lake.rounds.get("0000")
    assert held is not None and held.state == "done"
    assert "round 0 goes on: all 2 requests are answered" in log.read_text()


def test_the_run_can_be_submitted_to_a_server(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = json.loads(loop.config()) | {"cluster": {"volume": f"x:{tmp_path}"}}
    (tmp_path / "loop.yaml").write_text(json.dumps(settings))
    answer(loop, "odd", "even")
    with KfpStub() as stub:
        command = ["labels", "follow", "--config", str(tmp_path / "loop.yaml"), "--once"]
        assert main([*command, "--submit", "--host", stub.url]) == 0
    (run,) = stub.runs
    assert json.loads(run["runtime_config"]["parameters"]["config"])["name"] == "test"
    assert stub.pipelines[0]["display_name"] == "test-watch"
    assert "round 0 goes on" in capsys.readouterr().err


def test_it_ends_when_it_is_told_to(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(loop.config())
    process = subprocess.Popen(
        [sys.executable, "-m", "visionloop", "labels", "follow", "--config", "loop.yaml"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    assert "waits: 0 of 2" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    process.stderr.close()
