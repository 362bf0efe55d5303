"""Progress of long work: drawn on a terminal, sent to the parent of a pipeline task, or logged.

```python
with progress("infer", total=len(images), unit="images") as bar:
    for batch in batches:
        ...
        bar.advance(len(batch))
    bar.note("accuracy 0.91")
```

Three ways to show the same thing, chosen by where the process runs: a task that `visionloop run`
started appends JSON lines to the file that the runner watches; a command on a terminal draws a bar;
everything else (a pod's log, a file) gets a plain line now and then.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from visionloop import environment

# Seconds between two events of one piece of work.
_FILE_PACE = 0.1
_LOG_PACE = 10.0
# What this process's log lines are about.
_about: dict[str, str] = {}


class Progress:
    """What has been done of one piece of work.

    Args:
        stage: Name of the work.
        total: How many units there are; None when that is not known.
        unit: What is counted, in the plural.
        sink: Where it is shown.
    """

    def __init__(self, stage: str, total: int | None, unit: str, sink: _Sink) -> None:
        self.stage = stage
        self.total = total
        self.unit = unit
        self.done = 0
        self.text = ""
        self.started = time.monotonic()
        self._before = 0
        self._sink = sink

    def begin(self, total: int, *, done: int = 0) -> None:
        """Begin to count, when what came first is over and it is known how many there are.

        Args:
            total: How many units there are.
            done: Units that an earlier run had done; they do not count in the rate.
        """
        self.total, self.text = total, ""
        self.done = self._before = done
        self.started = time.monotonic()
        self._sink.update(self)

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more units as done."""
        self.done += n
        self._sink.update(self)

    def note(self, text: str) -> None:
        """Show a few words beside the count, for example an accuracy so far."""
        self.text = text
        self._sink.update(self)

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return (self.done - self._before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end at the rate so far; None where nothing tells."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0, self.total - self.done) / self.rate

    def __str__(self) -> str:
        """Return ``1,200 of 5,000 images, 310/s, note``."""
        count = f"{self.done:,}" + (f" of {self.total:,}" if self.total is not None else "")
        words = [f"{count} {self.unit}"]
        if self.done and self.seconds >= 0.5:
            words.append(f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:.1f}/s")
        if self.text:
            words.append(self.text)
        return ", ".join(words)


@contextmanager
def progress(stage: str, total: int | None = None, unit: str = "items") -> Iterator[Progress]:
    """Show the progress of the work inside the ``with`` block.

    Args:
        stage: Name of the work, one word.
        total: How many units there are; None when that is not known.
        unit: What is counted, in the plural.

    Yields:
        The object to count on.
    """
    sink: _Sink
    if environment.progress_file():
        sink = _FileSink(environment.progress_file())
    elif sys.stderr.isatty() and not environment.json_logs():
        sink = _TerminalSink()
    else:
        sink = _LogSink()
    work = Progress(stage, total, unit, sink)
    sink.begin(work)
    try:
        yield work
    finally:
        sink.end(work)


def emit(event: str, **fields: Any) -> None:
    """Append one event to the runner's file; does nothing where no runner listens.

    Args:
        event: Kind of event: ``started``, ``progress``, ``finished`` or ``failed``.
        **fields: What belongs to it; must be plain values.
    """
    path = environment.progress_file()
    if path:
        _append(path, {"event": event, "time": time.time(), "pid": os.getpid(), **fields})


def log(text: str, *, level: str = "info", **fields: Any) -> None:
    """Write one line for the log of a pod or a file: time in UTC, then the text.

    Where ``VISIONLOOP_LOG=json``, the line is a JSON object with ``time``, ``level``, ``message``,
    what `log_about` has set, and the fields. What is secret in it is replaced by ``***``: a line
    may repeat the words of a library.

    Args:
        text: The line, for people.
        level: ``info``, ``warning`` or ``error``.
        **fields: What programs want of it besides; plain values.
    """
    from visionloop.redaction import redacted

    now, text = time.time(), redacted(text)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    if environment.json_logs():
        record = {
            "time": f"{stamp}.{int(now % 1 * 1000):03d}Z",
            "level": level,
            "message": text,
            **_about,
            **{name: redacted(v) if isinstance(v, str) else v for name, v in fields.items()},
        }
        line = json.dumps(record, default=str, ensure_ascii=False)
    else:
        line = f"{stamp}Z {text}"
    print(line, file=sys.stderr, flush=True)


def relay(process: str, line: str) -> None:
    """Pass on a line that another process wrote, with the name of that process.

    Args:
        process: Its name: a pod's, or a process's of this node.
        line: The line; where logs are JSON, an object keeps its fields.
    """
    if not environment.json_logs():
        print(f"[{process}] {line}", file=sys.stderr, flush=True)
        return
    try:
        held = json.loads(line)
    except ValueError:
        held = None
    if isinstance(held, dict) and "message" in held:
        print(json.dumps({**held, "process": process}), file=sys.stderr, flush=True)
    else:
        log(line, process=process)


def log_about(**fields: str) -> None:
    """Set what all further lines of this process's log are about, where they are JSON.

    Args:
        **fields: ``stage``, ``round_id``, ``run_id``; an empty value takes one back.
    """
    for name, value in fields.items():
        if value:
            _about[name] = value
        else:
            _about.pop(name, None)


def listening() -> bool:
    """Whether nobody draws this process's progress, so that log lines are wanted."""
    seen = sys.stderr.isatty() and not environment.json_logs()
    return not environment.progress_file() and not seen


def _append(path: str, record: dict[str, Any]) -> None:
    line = json.dumps(record, default=str) + "\n"
    # One write to a file opened for appending: lines of several tasks never mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    except OSError:
        # Losing a line of progress to a full disk must not be what stops the work.
        pass
    finally:
        os.close(descriptor)


class _Sink(Protocol):
    def begin(self, work: Progress) -> None: ...

    def update(self, work: Progress) -> None: ...

    def end(self, work: Progress) -> None: ...


class _FileSink:
    """Sends events to the runner that started this task."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._next = 0.0

    def begin(self, work: Progress) -> None:
        self._send(work)

    def update(self, work: Progress) -> None:
        if time.monotonic() >= self._next:
            self._send(work)

    def end(self, work: Progress) -> None:
        self._send(work)

    def _send(self, work: Progress) -> None:
        self._next = time.monotonic() + _FILE_PACE
        emit(
            "progress",
            stage=work.stage,
            done=work.done,
            total=work.total,
            unit=work.unit,
            note=work.text,
            text=str(work),
        )


class _LogSink:
    """Writes a line every ten seconds, and one at the end."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LOG_PACE

    def begin(self, work: Progress) -> None:
        pass

    def update(self, work: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOG_PACE
            left = work.seconds_left
            estimate = "" if left is None else f", about {left:,.0f} s left"
            log(f"{work.stage}: {work}{estimate}", **_counted(work))

    def end(self, work: Progress) -> None:
        told = f"{work.stage}: {work}, {work.seconds:.1f} s"
        log(told, seconds=round(work.seconds, 3), **_counted(work))


def _counted(work: Progress) -> dict[str, Any]:
    return {"work": work.stage, "done": work.done, "total": work.total, "unit": work.unit}


class _TerminalSink:
    """Draws one bar."""

    def begin(self, work: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self._bars.start()
        self._task = self._bars.add_task(work.stage, total=work.total, words=str(work))

    def update(self, work: Progress) -> None:
        self._bars.update(self._task, completed=work.done, total=work.total, words=str(work))

    def end(self, work: Progress) -> None:
        self._bars.update(
            self._task, completed=work.done, total=work.done or 1, words=str(work), refresh=True
        )
        self._bars.stop()
