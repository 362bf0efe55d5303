"""Shows a person how a run goes on: live on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from visionloop import environment
from visionloop.progress import log
from visionloop.runner.result import TaskResult
from visionloop.runner.watcher import Listener
from visionloop.words import round_name

_LINE_PACE = 10.0
_HIDDEN = ("lake_version", "trainable_version", "model_uri", "space", "action", "n_shards")
# Whole sentences of `watch`: whoever starts it tells them once, each on a line of its own.
_SENTENCES = ("reason", "acts")


def make_display(stream: TextIO | None = None, *, show: bool = True) -> Listener:
    """Return the display that suits a stream.

    Args:
        stream: Where to show; the standard error stream by default.
        show: Whether to show anything at all.

    Returns:
        The display.
    """
    stream = stream or sys.stderr
    if not show:
        return Silence()
    if environment.json_logs():
        return JsonLines()
    return Terminal(stream) if stream.isatty() else Lines(stream)


def describe(outputs: dict[str, Any]) -> str:
    """Say a stage's outputs in words: ``507 files, 500 new, accuracy 0.914, passed``.

    Args:
        outputs: The plain outputs, by name.

    Returns:
        The words; references between stages are left out.
    """
    words = []
    for name, value in outputs.items():
        if name in (*_HIDDEN, *_SENTENCES) or value == "":
            continue
        spoken = name.removeprefix("n_").removesuffix("_id").replace("_", " ")
        if isinstance(value, bool):
            words.append(spoken if value else f"not {spoken}")
        elif isinstance(value, (int, float)) and name.startswith("n_"):
            words.append(f"{int(value):,} {spoken}")
        elif isinstance(value, float):
            words.append(f"{spoken} {value:.3f}")
        elif name == "round_id":
            words.append(round_name(str(value)))
        else:
            text = str(value)
            # An id can be cut, a sentence cannot.
            whole = len(text) <= 24 or " " in text
            words.append(f"{spoken} {text if whole else text[:16] + '…'}")
    return ", ".join(words)


class Silence:
    """Shows nothing."""

    def task_started(self, name: str) -> None:
        """Show nothing."""

    def task_progressed(self, name: str, event: dict[str, Any]) -> None:
        """Show nothing."""

    def task_ended(self, task: TaskResult) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """Writes a line when a task ends, and one now and then while it works.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = 0.0

    def task_started(self, name: str) -> None:
        """Wait before the first line: most tasks end sooner."""
        self._next = time.monotonic() + _LINE_PACE

    def task_progressed(self, name: str, event: dict[str, Any]) -> None:
        """Write where the task is, at most every ten seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_PACE
            self._write(f"  {name}: {event['text']}")

    def task_ended(self, task: TaskResult) -> None:
        """Write what the task did."""
        mark = "✓" if task.succeeded else "✗"
        said = describe(task.outputs) if task.succeeded else "failed"
        self._write(f"{mark} {task.name:<15} {task.seconds:6.1f} s  {said}".rstrip())

    def close(self) -> None:
        """Do nothing."""

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class JsonLines(Silence):
    """Writes a JSON object when a task ends, for whoever collects logs."""

    def task_ended(self, task: TaskResult) -> None:
        """Write what the task did."""
        said = describe(task.outputs) if task.succeeded else "failed"
        log(
            f"{task.name}: {said}",
            level="info" if task.succeeded else "error",
            stage=task.name,
            seconds=round(task.seconds, 3),
            outputs=task.outputs,
        )


class Terminal:
    """Draws the running task with a bar, and leaves a line for each that ended.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        # The live display asks what to draw as soon as it is made.
        self._name = ""
        self._began = 0.0
        self._event: dict[str, Any] = {}
        self._spinner = Spinner("dots")
        self._console = Console(file=stream, highlight=False)
        # Standard streams are the runner's to redirect while KFP runs.
        self._live = Live(
            console=self._console,
            transient=True,
            refresh_per_second=10,
            get_renderable=self._render,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def task_started(self, name: str) -> None:
        """Begin to draw a task."""
        self._name, self._began, self._event = name, time.monotonic(), {}
        if not self._live.is_started:
            self._live.start()

    def task_progressed(self, name: str, event: dict[str, Any]) -> None:
        """Take over what is drawn next; of tasks beside each other, the one that told last."""
        if name != self._name:
            self._name, self._began = name, time.monotonic() - event.get("seconds", 0.0)
        self._event = event

    def task_ended(self, task: TaskResult) -> None:
        """Leave the task's line."""
        self._name = ""
        mark = "[green]✓[/]" if task.succeeded else "[red]✗[/]"
        said = describe(task.outputs) if task.succeeded else "[red]failed[/]"
        self._console.print(
            f"{mark} [bold]{task.name:<15}[/] [dim]{task.seconds:6.1f} s[/]  {said}",
            soft_wrap=True,
        )

    def close(self) -> None:
        """Stop to draw."""
        if self._live.is_started:
            self._live.stop()

    def _render(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if not self._name:
            return Text("")
        seconds = time.monotonic() - self._began
        row = Table.grid(padding=(0, 1))
        cells: list[Any] = [
            self._spinner,
            Text(f"{self._name:<15}", style="bold"),
            Text(f"{seconds:6.1f} s", style="dim"),
        ]
        total, done = self._event.get("total"), self._event.get("done", 0)
        if total:
            cells.append(ProgressBar(total=total, completed=done, width=20))
        cells.append(Text(self._event.get("text", "starting")))
        row.add_row(*cells)
        return row
