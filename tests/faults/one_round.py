"""Runs one round's stages in turn, and dies by SIGKILL where it is told to.

``python -m tests.faults.one_round CONFIG MARKERS [POINT]``: with a POINT, ``before`` or ``after`` a
stage's writes, each stage that has no marker yet leaves one and kills the process there. Started
again and again, the process is thus killed once in every stage.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.turning import turn
from visionloop.lake.run import Run
from visionloop.stages.ingest import ingest
from visionloop.stages.report import report


class File:
    """An artifact on disk."""

    def __init__(self, path: Path) -> None:
        self.path = self.uri = str(path)
        self.metadata: dict[str, Any] = {}


def die_once_in_every_stage(markers: Path, point: str) -> None:
    """Kill this process in the first stage that has not been killed yet."""

    def die(run: Run) -> None:
        marker = markers / f"{run._stage}-{point}"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    if point == "after":
        commit = Run.commit

        def dying_commit(self: Run, **arguments: Any) -> str:
            die(self)
            return commit(self, **arguments)

        Run.commit = dying_commit  # type: ignore[method-assign]
    else:
        write = Run._write

        def dying_write(self: Run, *arguments: Any, **more: Any) -> None:
            die(self)
            write(self, *arguments, **more)

        Run._write = dying_write  # type: ignore[method-assign]


def main() -> None:
    """Run the round."""
    config, markers = sys.argv[1], Path(sys.argv[2])
    if len(sys.argv) > 3:
        die_once_in_every_stage(markers, sys.argv[3])
    model = File(markers.parent / "model")
    taken = ingest(config=config, run_id="test", open_round=True)
    turn(config, taken.round_id, model, harvests=True)
    report(config=config, run_id="test")


if __name__ == "__main__":
    main()
