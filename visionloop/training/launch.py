"""Starts the processes that train a plan on this node, and says why one failed.

``python -m visionloop.training.launch PLAN`` is torchrun over `visionloop.training.worker`: in a
TrainJob's pods the runtime says by ``PET_*`` how many nodes and processes there are and where they
meet. With ``--processes N`` they are N on this machine alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from visionloop import environment
from visionloop.errors import VisionloopError
from visionloop.failures import read_failure
from visionloop.progress import log, relay
from visionloop.task import end_with
from visionloop.training.plan import Plan, leave_failure
from visionloop.training.worker import INTERRUPTED, UNEXPECTED

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_TAIL_LINES = 20
_OTHERS_FIRST_SECONDS = 3.0
# When one process fails, torchrun ends the others: by SIGTERM where none of ours notices it.
_STOPPED = (INTERRUPTED, -signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Run the processes.

    Args:
        arguments: Of the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Train a plan in several processes.")
    parser.add_argument("plan", help="URI of the plan in the lake")
    parser.add_argument(
        "--processes", type=int, default=0, help="so many here; otherwise as PET_* says"
    )
    given = parser.parse_args(arguments)
    if given.processes:
        end_with(os.getppid())

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with tempfile.TemporaryDirectory() as folder:
        # Each process into a file of its own; on the console the first one's.
        options = ["--log-dir", f"{folder}/logs", "--tee", "3", "--local-ranks-filter", "0"]
        if given.processes:
            # By its name a machine may find an address that is not its own.
            options += ["--standalone", "--nproc-per-node", str(given.processes)]
            options += ["--local-addr", "localhost"]
        worker = ["-m", "visionloop.training.worker", given.plan]
        command = run.parse_args([*options, *worker])  # type: ignore[no-untyped-call]
        error_file = f"{folder}/error.json"
        # How many threads a training takes is decided there; torchrun would warn that it guesses.
        passed = {"VISIONLOOP_ERROR_FILE": error_file, "OMP_NUM_THREADS": "1"}
        with environment.passed_on(passed):
            try:
                run.run(command)  # type: ignore[no-untyped-call]
            except ChildFailedError as failed:
                return _tell(failed.failures, given.plan, Path(folder))
            except SignalException as caught:
                log(f"train: stopped by {signal.Signals(caught.sigval).name}")
                return INTERRUPTED
    return 0


def _tell(failures: dict[int, ProcessFailure], uri: str, folder: Path) -> int:
    """Say why the processes of this node failed, and return the exit status."""
    rank, first = _cause(failures)
    tail = _tail(folder, first.local_rank)
    if first.local_rank:
        for line in tail:
            relay(f"process {rank}", line)
    if first.exitcode in _STOPPED:
        return INTERRUPTED
    known = read_failure(folder / "error.json") if first.exitcode > 0 else None
    error = known[0] if known else _unexplained(rank, first, tail)
    log(f"train: process {rank} failed: {error}")
    if first.exitcode == UNEXPECTED:
        # Perhaps only since a process on another node failed, which says so first.
        time.sleep(_OTHERS_FIRST_SECONDS)
    record = {
        "what": error.what,
        "where": error.where,
        "remedy": error.remedy,
        "exit_status": error.exit_status,
        "at": time.time(),
    }
    leave_failure(Plan.load(uri), record)
    return error.exit_status


def _cause(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the failure that the others follow from: a kill, else one of ours, else the first."""

    def order(rank: int) -> tuple[bool, bool, int, int]:
        code = failures[rank].exitcode
        stopped = code in _STOPPED
        killed = code < 0 and not stopped
        return not killed, stopped or code == UNEXPECTED, failures[rank].timestamp, rank

    rank = min(failures, key=order)
    return rank, failures[rank]


def _unexplained(rank: int, failure: ProcessFailure, tail: list[str]) -> VisionloopError:
    """Return the error of a process that could not tell its own."""
    if failure.exitcode < 0:
        what = f"process {rank} of the training was killed by {failure.signal_name()}"
    else:
        what = f"process {rank} of the training ended with status {failure.exitcode}"
    said = f"; its last words: {tail[-1]}" if tail else ""
    return VisionloopError(
        what + said,
        where="stage train",
        remedy="If memory ran out, lower training.batch_size or give the task more; run the task "
        "again to go on from the last checkpoint",
    )


def _tail(folder: Path, local_rank: int) -> list[str]:
    """Return the last lines that a process wrote to its standard error."""
    found = sorted(folder.glob(f"logs/*/attempt_*/{local_rank}/stderr.log"))
    if not found:
        return []
    text = found[-1].read_text(encoding="utf-8", errors="replace")
    return text.strip().splitlines()[-_TAIL_LINES:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
