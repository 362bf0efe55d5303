"""Pipelines run on this machine: what a person sees, and what a failure leaves."""

from __future__ import annotations

import builtins
import importlib.util
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from visionloop.errors import InputError, VisionloopError
from visionloop.runner import local
from visionloop.runner.display import Lines, Terminal, describe
from visionloop.runner.local import run_pipeline
from visionloop.runner.result import TaskResult

HERE = Path(__file__).resolve().parent


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The toy pipelines; their stages are importable in the tasks' processes."""
    monkeypatch.setenv("PYTHONPATH", str(HERE / "toys"))
    spec = importlib.util.spec_from_file_location("toy_pipelines", HERE / "toy_pipelines.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_tells_its_tasks_with_their_outputs_and_times(
    toys: ModuleType, tmp_path: Path
) -> None:
    result = run_pipeline(toys.whole, {"n": 2}, tmp_path, progress=False)
    assert result.succeeded and result.error is None
    # The condition was not met; the exit task ran, and KFP's number behind its name is gone.
    assert [task.name for task in result.tasks] == ["count", "count"]
    first = result.tasks[0]
    assert first.outputs == {"n_counted": 2, "trainable_version": ""}
    assert Path(first.artifacts["page"]).read_text(encoding="utf-8") == "# counted"
    assert 0 < first.imports_seconds < first.seconds
    assert 0 < first.work_seconds < first.seconds
    assert "KFP Executor" in Path(result.log).read_text(encoding="utf-8")


def test_a_failing_tasks_own_words_cross_to_the_parent(toys: ModuleType, tmp_path: Path) -> None:
    started = time.monotonic()
    result = run_pipeline(toys.whole, {"n": 5, "how": "input"}, tmp_path, progress=False)
    assert not result.succeeded
    assert result.failed_task == "fail"
    assert isinstance(result.error, InputError)
    assert str(result.error) == "the bean is blue (field bean). Paint it green."
    assert "raise InputError" in result.traceback
    # The exit task ran all the same, and no retry was waited for.
    assert [task.name for task in result.tasks] == ["count", "fail", "count"]
    assert [task.succeeded for task in result.tasks] == [True, False, True]
    assert time.monotonic() - started < 30
    with pytest.raises(InputError):
        result.raise_for_failure()


def test_a_bug_is_told_with_its_place_and_exit_status_1(toys: ModuleType, tmp_path: Path) -> None:
    result = run_pipeline(toys.whole, {"n": 5, "how": "bug"}, tmp_path, progress=False)
    assert result.error is not None and result.error.exit_status == 1
    assert "KeyError: 'bean'" in result.error.what
    assert "visionloop_toys.py:" in result.error.where


def test_tasks_beside_each_other_are_told_apart(toys: ModuleType, tmp_path: Path) -> None:
    result = run_pipeline(toys.side_by_side, {}, tmp_path, progress=False)
    assert result.succeeded
    assert [task.name for task in result.tasks] == ["count"] * 4
    assert sorted(task.outputs["n_counted"] for task in result.tasks) == [1, 2, 3, 4]
    assert all(0 < task.work_seconds < task.seconds for task in result.tasks)


def test_of_tasks_beside_each_other_the_failed_one_is_named(
    toys: ModuleType, tmp_path: Path
) -> None:
    arguments = {"sizes": [1, 2], "how": "killed"}
    result = run_pipeline(toys.side_by_side, arguments, tmp_path, progress=False)
    assert not result.succeeded and result.failed_task == "fail"
    assert {task.name for task in result.tasks if not task.succeeded} == {"fail"}
    assert {task.name for task in result.tasks if task.succeeded} == {"count"}


def test_a_killed_task_is_told_as_one(toys: ModuleType, tmp_path: Path) -> None:
    result = run_pipeline(toys.whole, {"n": 5, "how": "killed"}, tmp_path, progress=False)
    assert result.failed_task == "fail"
    assert "ended without saying why" in str(result.error)
    assert "start the same command again" in str(result.error)


def test_a_task_that_cannot_import_its_stage_names_the_missing_package(
    toys: ModuleType, tmp_path: Path
) -> None:
    result = run_pipeline(toys.import_error, {}, tmp_path, progress=False)
    assert result.failed_task == "absent"
    assert "The package visionloop_nowhere is not installed (task absent)" in str(result.error)


def test_a_run_leaves_the_process_as_it_was(
    toys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (dict(os.environ), root.handlers[:], root.level, root.filters[:], sys.stdout)
    run_pipeline(toys.whole, {"n": 2}, tmp_path, progress=False)
    assert (dict(os.environ), root.handlers[:], root.level, root.filters[:], sys.stdout) == before
    logging.getLogger().warning("the log file is closed, this must not fail")
    printed = capsys.readouterr()
    assert printed.out == "" and "KFP" not in printed.err


def test_a_folder_in_the_way_does_not_shadow_the_packages(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("visionloop", "kfp", "components"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    result = run_pipeline(toys.whole, {"n": 2}, tmp_path / "out", progress=False)
    assert result.succeeded, result.error


def test_two_runs_never_share_a_folder(toys: ModuleType, tmp_path: Path) -> None:
    results = [run_pipeline(toys.half, {"n": 2}, tmp_path, progress=False) for _ in range(2)]
    assert results[0].folder != results[1].folder


def test_a_workdir_that_cannot_be_made_is_an_error_of_ours(
    toys: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VisionloopError, match="making the run's folder"):
        run_pipeline(toys.half, {"n": 2}, tmp_path / "file", progress=False)


def test_the_tasks_of_a_killed_run_end_with_it(toys: ModuleType, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from toy_pipelines import whole\n"
        "from visionloop.runner.local import run_pipeline\n"
        "run_pipeline(whole, {'n': 5, 'how': 'sleep'}, sys.argv[2], progress=False)\n"
    )
    command = [sys.executable, "-c", program, str(HERE), str(tmp_path)]
    with subprocess.Popen(command) as runner:
        task = _wait_for(lambda: _pid_of("fail", tmp_path), seconds=60)
        runner.send_signal(signal.SIGKILL)
    _wait_for(lambda: not Path(f"/proc/{task}").exists(), seconds=10)


def test_the_keyboard_stops_a_run_with_one_sentence(toys: ModuleType, tmp_path: Path) -> None:
    program = (
        # A shell starts what runs in its background with the keyboard's signal ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from toy_pipelines import whole\n"
        "from visionloop.runner.local import run_pipeline\n"
        "print(run_pipeline(whole, {'n': 5, 'how': 'sleep'}, sys.argv[2], progress=False).error)\n"
    )
    command = [sys.executable, "-c", program, str(HERE), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        _wait_for(lambda: _pid_of("fail", tmp_path), seconds=60)
        runner.send_signal(signal.SIGINT)
        out, _ = runner.communicate(timeout=30)
    assert out.startswith("Stopped by the keyboard") and "what was finished is kept" in out


def _pid_of(stage: str, folder: Path) -> int:
    for path in folder.glob("runs/*/events.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["event"] == "started" and event["stage"] == stage:
                return int(event["pid"])
    return 0


def _wait_for(look, *, seconds: float):  # type: ignore[no-untyped-def]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_outputs_are_said_in_words() -> None:
    outputs = {
        "lake_version": "0123456789abcdef",
        "round_id": "0002",
        "n_files": 1507,
        "n_new": 500,
        "passed": False,
        "published": True,
        "accuracy": 0.91432,
        "model_id": "m" * 40,
        "in_service": "",
        "reason": "A sentence.",
        "acts": "One.\nAnother.",
    }
    assert describe(outputs) == (
        "round 2, 1,507 files, 500 new, not passed, published, accuracy 0.914, model "
        + "m" * 16
        + "…"
    )


def test_without_a_terminal_each_task_is_one_line() -> None:
    stream = io.StringIO()
    display = Lines(stream)
    display.task_started("ingest")
    display.task_progressed("ingest", {"text": "3 of 5 files"})
    display.task_ended(TaskResult("ingest", True, 1.25, outputs={"n_new": 5}))
    display.task_ended(TaskResult("train", False, 0.5))
    lines = stream.getvalue().splitlines()
    assert lines == ["✓ ingest             1.2 s  5 new", "✗ train              0.5 s  failed"]


def test_on_a_terminal_the_running_task_is_drawn_and_ended_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = Screen()
        display = Terminal(stream)
        display.task_started("infer")
        display.task_progressed("infer", {"text": "7 of 9 images", "done": 7, "total": 9})
        time.sleep(0.3)
        display.task_ended(TaskResult("infer", True, 2.0, outputs={"n_embedded": 9}))
        display.close()
    assert "7 of 9 images" in stream.getvalue()
    assert "9 embedded" in stream.getvalue()


def test_what_kfp_does_to_print_in_a_loop_is_put_back(tmp_path: Path) -> None:
    before = builtins.print
    with (tmp_path / "log.txt").open("w") as stream, local._everything_into(stream):
        builtins.print = lambda *values, **options: None
    assert builtins.print is before
