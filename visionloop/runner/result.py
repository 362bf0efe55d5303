"""What a local run leaves behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from visionloop.errors import VisionloopError


@dataclass(frozen=True)
class TaskResult:
    """One task of a run.

    Attributes:
        name: Name of the task, which is its stage's.
        succeeded: Whether it ended well.
        seconds: From the start of its process to the end.
        imports_seconds: Part of it spent on starting and importing; 0 when it never got so far.
        work_seconds: Part of it spent in the stage's own function.
        outputs: The stage's plain outputs.
        artifacts: Local path of each artifact, by name.
    """

    name: str
    succeeded: bool
    seconds: float
    imports_seconds: float = 0.0
    work_seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """One run of a pipeline on this machine.

    Attributes:
        pipeline: Its name.
        succeeded: Whether every task ended well.
        seconds: From start to end.
        tasks: Its tasks in the order in which they ended.
        outputs: Outputs of the pipeline itself.
        log: Path of the file that holds everything the tasks and KFP wrote.
        folder: Path of the run's folder, with the tasks' artifacts.
        error: Why it failed, for a person; None when it succeeded.
        failed_task: Name of the task that failed first, or an empty string.
        traceback: Traceback of that task, or an empty string.
    """

    pipeline: str
    succeeded: bool
    seconds: float
    tasks: tuple[TaskResult, ...]
    outputs: dict[str, Any]
    log: str
    folder: str
    error: VisionloopError | None = None
    failed_task: str = ""
    traceback: str = ""

    def task(self, name: str) -> TaskResult | None:
        """Return the last task of that name, None when it did not run."""
        return next((task for task in reversed(self.tasks) if task.name == name), None)

    @property
    def waiting(self) -> bool:
        """Whether the round waits for labels: it succeeded, and nothing was trained yet."""
        collected = self.task("collect_labels")
        return (
            self.succeeded
            and collected is not None
            and collected.outputs.get("trainable_version") == ""
        )

    def raise_for_failure(self) -> None:
        """Raise the error of a run that failed.

        Raises:
            VisionloopError: The run failed; an `InputError` where the input was wrong.
        """
        if self.error is not None:
            raise self.error

    def summary(self) -> dict[str, Any]:
        """Return the run as plain values, for ``--json``."""
        return {
            "pipeline": self.pipeline,
            "state": "failed" if not self.succeeded else "waiting" if self.waiting else "succeeded",
            "seconds": round(self.seconds, 3),
            "tasks": [asdict(task) for task in self.tasks],
            "outputs": self.outputs,
            "log": self.log,
            "folder": self.folder,
            "error": str(self.error) if self.error is not None else None,
            "failed_task": self.failed_task or None,
        }
