"""An erasure that is killed anywhere is ended by the next one."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.lake.erasable import command, erase_all, identity, rest, small, vector
from tests.lake.old_lake import on_disk
from tests.lake.writers import processes
from visionloop.lake import Lake
from visionloop.lake.erasing.beside import JOURNAL

GONE = 0


def _killed(uri: str, after: int) -> None:
    """Erase, and die where the n-th file of the lake is opened, renamed or removed."""
    import sys

    met = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal met
        if event in ("open", "os.rename", "os.remove") and "/lake/" in str(arguments[0]):
            met += 1
            if met == after:
                os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake.open(uri, loop="test")
    sys.addaudithook(count)
    erase_all(lake, identity(GONE))


def kill_at(lake: Lake, after: int) -> int:
    """Erase in a process that dies at its n-th file; returns its exit status."""
    child = processes.Process(target=_killed, args=(lake.uri, after))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode or 0


def _ends_well(lake: Lake) -> None:
    done = erase_all(Lake.open(lake.uri, loop="test"), identity(GONE))
    assert done.proof is not None and done.proof.clean
    assert rest(lake) == ([identity(1)], [identity(1)])
    assert not lake.storage.exists(lake.path(JOURNAL))
    left = [path for path in on_disk(lake.uri) if identity(GONE)[:12] in path]
    left += [
        path for path in on_disk(lake.uri) if vector(GONE).tobytes() in Path(path).read_bytes()
    ]
    assert left == []


def test_an_erasure_that_is_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    lake = small(tmp_path)
    died = [kill_at(lake, after) for after in (55, 70, 80)]
    assert died == [-signal.SIGKILL] * 3
    journal = tmp_path / "lake" / JOURNAL
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    _ends_well(lake)


@pytest.mark.soak
@pytest.mark.parametrize("after", range(2, 152, 3))
def test_an_erasure_that_is_killed_anywhere_is_ended_by_the_next(
    tmp_path: Path, after: int
) -> None:
    lake = small(tmp_path)
    kill_at(lake, after)
    _ends_well(lake)


def test_the_command_goes_on_with_what_was_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = small(tmp_path)
    assert kill_at(lake, 60) == -signal.SIGKILL
    status, text = command(capsys, lake, "--yes")
    assert status == 0 and "found 0" in text
    assert rest(lake) == ([identity(1)], [identity(1)])
