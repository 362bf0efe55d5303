"""Whether somebody still waits for a training that runs elsewhere.

A task that is killed at once cannot delete its TrainJob, whose pods would hold their GPUs to the
end. So who follows a job renews a small file beside the plan, and the job's first process leaves a
checkpoint and stops when nobody has renewed it for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from visionloop.errors import VisionloopError
from visionloop.progress import log
from visionloop.training.plan import Plan

ATTENDANCE_FILE = "attendance.txt"
# Renewed, and looked at, so often.
RENEWAL_SECONDS = 60.0
# Longer than a task that was preempted takes to be placed again and to adopt its job.
ALONE_SECONDS = 1800.0


@contextmanager
def attending(plan: Plan) -> Iterator[None]:
    """Tell the processes of a training, for as long as the ``with`` block, that it is waited for.

    Args:
        plan: The training; it was saved.
    """
    left = threading.Event()

    def tell() -> None:
        try:
            plan.present()
            plan.storage.write(plan.path(ATTENDANCE_FILE), f"{time.time():.3f}\n".encode())
        except (VisionloopError, OSError) as error:
            log(f"train: cannot say that the job is waited for, tries again: {error}")

    def renew() -> None:
        while not left.wait(RENEWAL_SECONDS):
            tell()

    # At once: a job that is taken up again must not find the word of the try before.
    tell()
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


class Attendance:
    """Looks, beside the training, whether it is still waited for.

    Two machines' clocks are not compared while it looks on: what counts is that the file changes.

    Args:
        plan: The training.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._held = self._read()
        self._changed = time.monotonic()
        self._over = threading.Event()
        self._left = threading.Event()
        # A pod that its job starts again must not wait as long as the one before it.
        if self._held and time.time() - float(self._held) > 2 * ALONE_SECONDS:
            self._over.set()

    def over(self) -> bool:
        """Return whether nobody has waited for the training for `ALONE_SECONDS`."""
        return self._over.is_set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look every `RENEWAL_SECONDS` inside the ``with`` block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._left.set()
            thread.join()

    def _watch(self) -> None:
        while not self._left.wait(RENEWAL_SECONDS):
            held = self._read()
            if held != self._held:
                self._held, self._changed = held, time.monotonic()
            elif time.monotonic() - self._changed > ALONE_SECONDS and not self._over.is_set():
                log(
                    f"train: nobody has waited for this training for {ALONE_SECONDS / 60:g} "
                    "minutes: it leaves a checkpoint and stops"
                )
                self._over.set()

    def _read(self) -> str:
        try:
            return self._plan.storage.read(self._plan.path(ATTENDANCE_FILE)).decode().strip()
        except (VisionloopError, OSError):
            # A lake that is away says nothing about who waits.
            return ""
