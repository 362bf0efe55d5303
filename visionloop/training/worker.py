"""One of the processes that train a plan together: ``python -m visionloop.training.worker PLAN``.

Started by `visionloop.training.launch` through torchrun, which says who is who.
"""

from __future__ import annotations

import os
import sys
import traceback

from visionloop import environment
from visionloop.errors import VisionloopError
from visionloop.failures import write_failure
from visionloop.progress import log
from visionloop.task import end_with

# As a shell says that SIGTERM ended a process.
INTERRUPTED = 143
# An error that is none of ours, such as a connection that broke when another process failed.
UNEXPECTED = 70


def main(uri: str) -> int:
    """Train.

    Args:
        uri: The plan.

    Returns:
        The exit status.
    """
    from visionloop.training.determinism import choose_device
    from visionloop.training.group import joined
    from visionloop.training.plan import Plan
    from visionloop.training.trainer import Interrupted
    from visionloop.training.work import do

    end_with(os.getppid())
    try:
        plan = Plan.load(uri)
        with joined(choose_device(plan.parameters.device)) as group:
            do(plan, group)
    except Interrupted as stopped:
        _tell(str(stopped))
        return INTERRUPTED
    except VisionloopError as error:
        _tell(str(error))
        write_failure(environment.error_file(), error, stage="train")
        return error.exit_status
    except Exception as error:
        _tell(traceback.format_exc().rstrip())
        write_failure(environment.error_file(), error, stage="train")
        return UNEXPECTED
    return 0


def _tell(text: str) -> None:
    if environment.json_logs():
        log(text, level="error")
    else:
        print(text, file=sys.stderr)


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: after an error, threads of the process group may wait for the others.
    os._exit(status)
