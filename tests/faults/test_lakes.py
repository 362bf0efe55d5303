"""A lake that another process locks, that goes away in the middle, or is in use by another run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import SmallLoop, doubled, failure_of
from tests.servers import storage_emulator
from visionloop.cli import main
from visionloop.lake import Lake
from visionloop.lake.lock import writer_lock
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.harvest import harvest
from visionloop.stages.infer import infer
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor
from visionloop.stages.report import report
from visionloop.stages.request_labels import request_labels
from visionloop.stages.select import select
from visionloop.stages.train import train

Command = Callable[..., tuple[int, str, str]]


@contextlib.contextmanager
def holding(program: str, *arguments: str) -> Iterator[None]:
    """Run a process that takes something, until the end of the block; it says when it has it."""
    text = f"import sys\n{program}\nprint('held', flush=True)\nsys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout and child.stdin
    try:
        assert child.stdout.readline() == "held\n"
        yield
    finally:
        child.stdin.close()
        child.wait()


LOCKED = """
import sqlite3
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
"""


def test_a_catalog_that_another_process_locks_is_told_after_the_time_that_the_uri_names(
    loop: SmallLoop, command: Command
) -> None:
    loop.take_in()
    version, file = loop.lake.version(), loop.folder / "lake" / "catalog.sqlite"
    loop.settings["catalog"] = f"sqlite:///{file}?timeout=1"
    assert loop.lake.version() == version
    with holding(LOCKED, str(file)):
        began = time.monotonic()
        for arguments in (("ingest",), ("select", "-n", "3")):
            status, _, err = command(*arguments, "--config", loop.config)
            assert status == 1
            assert "locked" in err and "catalog.sqlite" in err and "wait for it to end" in err
        assert time.monotonic() - began < 10
    assert loop.lake.version() == version
    assert loop.label() > 0 and not doubled(loop.lake)


def test_a_catalogs_timeout_that_is_no_number_is_refused(loop: SmallLoop, command: Command) -> None:
    loop.settings["catalog"] = f"sqlite:///{loop.folder / 'c.sqlite'}?timeout=soon"
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2 and "'soon'" in err and "timeout=30" in err


def test_a_writer_that_does_not_end_is_told_and_nothing_was_written(loop: SmallLoop) -> None:
    loop.take_in()
    lock = f"{loop.folder}/lake/.faults.lock"
    program = "import fcntl\nheld = open(sys.argv[1], 'a')\nfcntl.flock(held, fcntl.LOCK_EX)"
    with holding(program, lock):

        def write() -> None:
            with writer_lock(loop.lake.catalog_uri, "faults", timeout=0.3):
                raise AssertionError("two writers at once")

        told = failure_of(write)
    assert told.exit_status == 1 and "another process" in told.what
    assert loop.label() > 0


def test_a_lake_that_goes_away_between_stages_is_told_and_not_made_anew(loop: SmallLoop) -> None:
    taken = ingest(config=loop.config, run_id="test", open_round=True)
    version = infer(config=loop.config, round_id=taken.round_id).lake_version
    here, away = loop.folder / "lake", loop.folder / "unmounted"
    here.rename(away)
    at = {"lake_version": version, "round_id": taken.round_id}
    for stage in (infer, monitor, select, request_labels, collect_labels, train):
        told = failure_of(lambda stage=stage: stage(config=loop.config, **at))  # type: ignore[misc]
        assert told.exit_status == 1
        assert "not there any more" in told.what and str(here) in told.where
        assert "bring it back" in told.remedy
    failure_of(lambda: harvest(config=loop.config, round_id=taken.round_id))
    assert harvest(config=loop.config).n_events == 0
    assert main(["harvest", "--lake", str(here)]) == 2
    report(config=loop.config, run_id="test")
    assert not here.exists()
    away.rename(here)
    assert loop.lake.version() == version
    assert loop.label() > 0 and not doubled(loop.lake)


def test_a_lake_that_goes_away_while_a_stage_computes_is_told_and_not_made_anew(
    loop: SmallLoop,
) -> None:
    loop.take_in()
    loop.label()
    version = loop.lake.version()
    here, away = loop.folder / "lake", loop.folder / "unmounted"
    config = loop.config
    lake = loop.lake
    with lake.run(stage="train") as run:
        rows = run.read("labels")
        here.rename(away)
        told = failure_of(lambda: run.append("labels", rows))
        assert "not there any more" in told.what and str(here) in told.where
    assert not here.exists()
    away.rename(here)

    # While it trains, after it has read what it trains on.
    def unmount() -> None:
        time.sleep(0.5)
        here.rename(away)

    remover = threading.Thread(target=unmount)
    loop.settings["training"] |= {"min_updates": 150}
    config = loop.config
    remover.start()
    told = failure_of(lambda: train(config=config, lake_version=version))
    remover.join()
    assert told.exit_status == 1 and str(here) in told.where
    assert not here.exists()
    away.rename(here)
    assert loop.lake.version() == version
    loop.settings["training"] |= {"min_updates": 2}
    loop.publish()
    assert not doubled(loop.lake)


def test_a_report_on_a_lake_that_is_not_there_makes_none(tmp_path: Path, command: Command) -> None:
    status, _, err = command("report", "--lake", str(tmp_path / "typo"))
    assert status == 2 and "there is no lake" in err and "typo" in err
    assert not (tmp_path / "typo").exists()


def test_a_bucket_that_stops_answering_is_told_soon_and_the_next_run_goes_on(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_STORAGE_TIMEOUT", "2")
    kept = loop.folder / "emulated"
    loop.settings["lake"] = "gs://lakes/one"
    loop.settings["catalog"] = f"sqlite:///{loop.folder / 'catalog.sqlite'}"
    lake = Lake.open("gs://lakes/one", catalog=loop.settings["catalog"], loop="faults")
    with storage_emulator(kept) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        body = b'{"name": "lakes"}'
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p", body, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request).read()
        taken = ingest(config=loop.config, run_id="test", open_round=True)
        version = lake.version()
    began = time.monotonic()
    told = failure_of(lambda: infer(config=loop.config, lake_version=version))
    assert told.exit_status == 1 and "gs://lakes/one" in told.where
    told = failure_of(lambda: report(config=loop.config))
    assert time.monotonic() - began < 40
    with storage_emulator(kept) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        lake = Lake.open("gs://lakes/one", catalog=loop.settings["catalog"], loop="faults")
        assert lake.version() == version
        assert infer(config=loop.config, round_id=taken.round_id).n_embedded == taken.n_new
        assert not doubled(lake)


def test_of_two_rounds_started_at_once_one_runs_and_one_is_refused(loop: SmallLoop) -> None:
    loop.settings["labeling"] = {"provider": "csv"}
    config = loop.config
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-m", "visionloop", "run", "round", "--config", config, "--output"]
    children = [
        subprocess.Popen(
            [*program, str(loop.folder / f"out{number}")],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(2)
    ]
    ended = [(child.communicate(timeout=200), child.returncode) for child in children]
    assert sorted(status for _, status in ended) == [0, 1], ended
    ((_, err),) = [texts for texts, status in ended if status == 1]
    assert "Traceback" not in err
    assert "round 0 is being run by process" in err and "Wait for it to end" in err
    assert [(one.round_id, one.state) for one in loop.lake.rounds.all()] == [("0000", "waiting")]
    assert not doubled(loop.lake)

    # The next run goes on with the round that waits.
    requests = loop.folder / "lake/label_requests/faults-0000.csv"
    answered = [line for line in requests.read_text().splitlines()]
    truth = dict(
        line.split(",")[:2] for line in (loop.folder / "truth.csv").read_text().split()[1:]
    )
    filled = [line.replace(",,", f",{truth[line.split(',')[0]]},", 1) for line in answered[1:]]
    requests.write_text("\n".join([answered[0], *filled]) + "\n")
    assert collect_labels(config=config).n_missing == 0
    shutil.rmtree(loop.folder / "out0")
