"""What a stage tells whoever started it."""

from __future__ import annotations

import errno
import inspect
import io
import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from visionloop import progress as progress_module
from visionloop.errors import InputError, UnreadableMedia, VisionloopError
from visionloop.failures import explain, read_failure, write_failure
from visionloop.progress import Progress, progress
from visionloop.task import stage


class Done(NamedTuple):
    n_done: int
    extra: object


class Page:
    path = "/somewhere/page.md"


@stage
def polish(*, n: int = 1, page: Page | None = None) -> Done:
    """Polish n stones."""
    if n < 0:
        raise InputError("n is negative", where="n", remedy="Give a positive n")
    return Done(n, object())


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_stage_keeps_its_name_signature_and_documentation() -> None:
    assert polish.__name__ == "polish" and polish.__doc__ == "Polish n stones."
    assert list(inspect.signature(polish).parameters) == ["n", "page"]
    assert polish(n=3).n_done == 3


def test_the_runner_hears_of_start_end_outputs_and_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("VISIONLOOP_PROGRESS_FILE", str(events))
    polish(n=2, page=Page())
    started, finished = lines(events)
    assert (started["event"], started["stage"]) == ("started", "polish")
    assert finished["outputs"] == {"n_done": 2}, "only plain values cross"
    assert finished["artifacts"] == {"page": "/somewhere/page.md"}
    assert capsys.readouterr().err == ""


def test_timings_tell_imports_from_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_TIMINGS_FILE", str(tmp_path / "timings.jsonl"))
    polish()
    (record,) = lines(tmp_path / "timings.jsonl")
    assert set(record) == {"stage", "process_start", "imports_s", "work_s"}
    assert record["imports_s"] > 0.01 and 0 <= record["work_s"] < 1  # type: ignore[operator]


def test_an_error_crosses_with_its_class_and_the_first_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv("VISIONLOOP_ERROR_FILE", str(path))
    with pytest.raises(InputError):
        polish(n=-1)
    write_failure(str(path), VisionloopError("the report failed too"), stage="report")
    told = read_failure(path)
    assert told is not None
    error, record = told
    assert isinstance(error, InputError)
    assert str(error) == "n is negative (n). Give a positive n."
    assert record["stage"] == "polish" and "Traceback" in record["traceback"]
    assert read_failure(tmp_path / "nothing.json") is None


def test_a_disk_too_full_for_the_error_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_ERROR_FILE", "/nonexistent/folder/error.json")
    with pytest.raises(InputError, match="n is negative"):
        polish(n=-1)


def test_in_a_pods_log_a_stage_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    polish(n=7)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("polish: started")
    assert "polish: finished in" in second and "n_done=7" in second


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left", "/lake/x"), "No space is left", "Free some space"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "refuses", "right to that path"),
        (
            ModuleNotFoundError("no", name="torch.nn"),
            "torch is not installed",
            "visionloop[engine]",
        ),
        (ModuleNotFoundError("no", name="kserve"), "kserve is not installed", "visionloop[serve]"),
        (MemoryError(), "out of memory", "batch_size"),
        (KeyboardInterrupt(), "Stopped by the keyboard", "what was finished is kept"),
        (ValueError("7 is odd"), "ValueError: 7 is odd", "--debug"),
        (UnreadableMedia("truncated"), "unreadable: truncated", "--debug"),
    ],
)
def test_what_python_raises_is_explained_with_a_remedy(
    error: BaseException, what: str, remedy: str
) -> None:
    told = explain(error, during="stage polish")
    assert what in told.what and remedy in told.remedy and "stage polish" in told.where
    assert told.exit_status == 1


def test_progress_reaches_the_runner_at_a_bounded_pace_and_whole_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("VISIONLOOP_PROGRESS_FILE", str(events))
    with progress("polish", total=10_000, unit="stones") as work:
        for _ in range(10_000):
            work.advance()
        work.note("all bright")
    seen = lines(events)
    assert len(seen) < 100
    assert seen[-1]["done"] == seen[-1]["total"] == 10_000
    assert "10,000 of 10,000 stones" in str(seen[-1]["text"])
    assert "all bright" in str(seen[-1]["text"])


def test_progress_is_closed_when_the_work_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("VISIONLOOP_PROGRESS_FILE", str(events))
    with pytest.raises(ValueError, match="crack"), progress("polish", total=5) as work:
        work.advance(2)
        raise ValueError("crack")
    assert lines(events)[-1]["done"] == 2


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with progress("polish", total=100, unit="stones") as work:
        for _ in range(100):
            now[0] += 0.5
            work.advance()
    told = capsys.readouterr().err.splitlines()
    # 50 seconds: one line every ten, and the last.
    assert 4 <= len(told) <= 6
    assert told[-1].endswith("polish: 100 of 100 stones, 2.0/s, 50.0 s")


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress("polish", total=4, unit="stones") as work:
        work.advance(4)
    assert "4 of 4 stones" in screen.getvalue()


def test_an_unknown_total_is_not_invented() -> None:
    class Nowhere:
        def begin(self, work: Progress) -> None: ...

        def update(self, work: Progress) -> None: ...

        def end(self, work: Progress) -> None: ...

    work = Progress("polish", None, "stones", Nowhere())
    work.advance(3)
    assert str(work) == "3 stones"


def test_a_dead_runner_ends_its_task(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import time\n"
        "from visionloop.task import stage\n"
        "@stage\n"
        "def wait():\n"
        "    time.sleep(60)\n"
        "wait()\n"
    )
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "VISIONLOOP_RUNNER_PID": str(gone.pid)},
        timeout=20,
        check=False,
    )
    assert answer.returncode == 1
