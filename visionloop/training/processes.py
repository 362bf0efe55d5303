"""Trains a plan in several processes of this machine, one for each GPU of the pod."""

from __future__ import annotations

import signal
import subprocess
import sys

from visionloop import environment
from visionloop.errors import VisionloopError
from visionloop.training.determinism import choose_device
from visionloop.training.interruption import notice
from visionloop.training.parameters import TrainingConfig
from visionloop.training.plan import FAILURE_FILE, PLAN_FILE, Plan, Result, failure_of
from visionloop.training.trainer import Interrupted


def processes_here(parameters: TrainingConfig) -> int:
    """Return how many processes train together in this pod: one for each GPU, or one.

    Args:
        parameters: The configuration's section; ``processes`` wins where it is set.
    """
    if parameters.processes:
        return parameters.processes
    if choose_device(parameters.device) == "cpu":
        return 1
    import torch

    return torch.cuda.device_count()


def train_in_processes(plan: Plan, processes: int) -> Result:
    """Train a plan in processes that torchrun starts here.

    SIGTERM is handed on to them: they leave a checkpoint and end.

    Args:
        plan: What to train; it was saved.
        processes: How many.

    Returns:
        What they leave in the lake.

    Raises:
        InputError: As `visionloop.training.work.do`.
        Interrupted: SIGTERM came.
        VisionloopError: A process failed; the error is that of the first.
    """
    plan.storage.delete(plan.path(FAILURE_FILE))
    command = [sys.executable, "-m", "visionloop.training.launch", plan.path(PLAN_FILE)]
    # On one machine nothing has to leave it.
    with environment.passed_on({"GLOO_SOCKET_IFNAME": "lo"}):
        # A session of its own: a signal to the whole group would reach the processes twice.
        child = subprocess.Popen([*command, "--processes", str(processes)], start_new_session=True)
    try:
        with notice(then=lambda: child.send_signal(signal.SIGTERM)) as interrupted:
            status = child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if status == 0 and (result := Result.load(plan)):
        return result
    if interrupted():
        raise Interrupted(
            f"the training in {processes} processes was asked to stop",
            where=plan.folder,
            remedy="Run the task again: it goes on from the checkpoint",
        )
    raise failure_of(plan) or VisionloopError(
        f"the training in {processes} processes ended with status {status} and did not say why",
        where=plan.folder,
        remedy="Its last words stand in the log of the task",
    )
