"""Runs the stage train in a process of its own, and ends that at a chosen optimiser step.

``interrupted.py CONFIG [STEP SIGNAL]``: at the step the process sends itself the signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def run_train(config: str, *point: object) -> subprocess.CompletedProcess[str]:
    """Run the stage, see above; return what it wrote and how it ended."""
    return subprocess.run(
        [sys.executable, __file__, config, *map(str, point)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


def main() -> None:
    """Run the stage."""
    from visionloop.stages.train import train
    from visionloop.training import fitting

    if len(sys.argv) > 2:
        at, number = int(sys.argv[2]), signal.Signals[sys.argv[3]]
        step = fitting.Fit.step
        taken = [0]

        def counted(self: fitting.Fit, *, stop: bool = False) -> bool:
            taken[0] += 1
            if taken[0] == at:
                os.kill(os.getpid(), number)
            return step(self, stop=stop)

        fitting.Fit.step = counted  # type: ignore[method-assign]
    train(config=sys.argv[1], round_id="0000")


if __name__ == "__main__":
    main()
