"""Follows a lake that changes: index and report of its newest version, made beside requests.

A thread looks for a new version every two seconds. The index is built in that thread, whose work is
done in Arrow; the report is made by a process of its own, so that neither its work nor its memory
is felt here: of each new version, and of the same one where somebody looks at an old report. What
is shown stays until the next is whole. A lake that is not there yet is waited for, and one that
cannot be read is tried again, at its newest version then.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from visionloop.errors import InputError, VisionloopError
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.live.building import build_index
from visionloop.monitoring.live.index import Index
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.lake import Lake

LOOK_SECONDS = 2.0
_AFTER_FAILURE = 20.0
# A report of a million images takes about a minute; one that takes as long as this waits for
# something that does not come, such as a storage that does not answer.
REPORT_SECONDS = 30 * 60.0
# Of a lake that nobody writes to labels fall due and flags grow older all the same: a report that
# somebody looks at is made anew when it is as old as this.
ANEW_SECONDS = 10 * 60.0
# What is asked to end is ended after so long.
_ENDING = 10.0


class _Empty(VisionloopError):
    """The lake is there, and its first stage has not ended."""


@dataclass(frozen=True)
class Report:
    """The report of a version, as a page of its own.

    Attributes:
        version: The version.
        page: The page.
        made: When its making began, on the clock `time.monotonic`.
        made_at: The same in UTC.
    """

    version: str
    page: bytes
    made: float
    made_at: datetime


@dataclass(frozen=True)
class Shown:
    """What there is to show.

    Attributes:
        lake: The lake; None while there is none.
        index: Its images; None while they are read for the first time.
        report: Its report; None while the first one is made.
        newest: The newest version that was seen.
        as_of: When that version's last stage ended.
        problem: Why the newest version is not shown, in words; empty where nothing is wrong.
        no_report: Why the newest report is not shown; empty where nothing is wrong.
        asked: Whether somebody looked at the report when it was old, and it is to be made anew.
    """

    lake: Lake | None = None
    index: Index | None = None
    report: Report | None = None
    newest: str = ""
    as_of: datetime | None = None
    problem: str = ""
    no_report: str = ""
    asked: bool = False


class Following:
    """Follows one loop of a lake.

    Args:
        lake: Root of the lake; it need not be there yet.
        catalog: Its catalog.
        loop: Name of the loop; empty: the only one, or ``default``.
        thresholds: Of the report.
        reports: Whether reports are made.
        report_seconds: A report that is not made within so long is given up.
        anew_seconds: A report of the same version that somebody looks at is made anew when it is
            as old as this.
    """

    def __init__(
        self,
        lake: str,
        catalog: str = "",
        loop: str = "",
        thresholds: MonitoringConfig | None = None,
        *,
        reports: bool = True,
        report_seconds: float = REPORT_SECONDS,
        anew_seconds: float = ANEW_SECONDS,
    ) -> None:
        self.uri, self._catalog, self._loop = lake, catalog, loop
        self._report_seconds, self._anew_seconds = report_seconds, anew_seconds
        self._thresholds = thresholds or MonitoringConfig()
        self._folder = tempfile.TemporaryDirectory(prefix="visionloop-live-")
        self._lock = threading.Lock()
        self._shown = Shown()
        self._ended = threading.Event()
        self._changed = threading.Condition(self._lock)
        self._looking = threading.Lock()
        self._child: BaseProcess | None = None
        self._threads = [threading.Thread(target=self._look_on, daemon=True, name="index")]
        if reports:
            self._threads.append(threading.Thread(target=self._report_on, daemon=True, name="page"))

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End, and the making of a report with it."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        child = self._child
        if child is not None:
            # One that is just being started has nothing to end yet: `_make` ends it then.
            with contextlib.suppress(ValueError, AttributeError):
                child.terminate()
        for thread in self._threads:
            thread.join(10)
        self._folder.cleanup()

    @property
    def shown(self) -> Shown:
        """What there is to show now."""
        with self._lock:
            return self._shown

    def ask(self) -> None:
        """Say that somebody looks at the report: one that is old is made anew."""
        with self._changed:
            held = self._shown.report
            if held is not None and time.monotonic() - held.made >= self._anew_seconds:
                self._shown = replace(self._shown, asked=True)
                self._changed.notify_all()

    def refresh(self, stale: Index) -> Index:
        """Return an index that is newer than one whose rows could not be read any more.

        Args:
            stale: The index.

        Raises:
            VisionloopError: There is no newer one, or it cannot be read.
        """
        lake = self.shown.lake
        if lake is None or lake.version() == stale.version:
            raise VisionloopError(
                "the rows of this version cannot be read", where=f"version {stale.version}"
            )
        return self._look(lake)

    def _put(self, **changes: object) -> None:
        with self._changed:
            self._shown = Shown(**{**self._shown.__dict__, **changes})
            self._changed.notify_all()

    def _look_on(self) -> None:
        pause = LOOK_SECONDS
        while True:
            began = time.monotonic()
            try:
                lake = self.shown.lake or self._open()
                if lake is not None:
                    self._look(lake)
                # A lake that changes all the time is read half of the time.
                pause = max(LOOK_SECONDS, time.monotonic() - began)
            except _Empty as error:
                self._put(problem=_words(error))
                pause = LOOK_SECONDS
            except (VisionloopError, OSError, pa.ArrowException) as error:
                self._put(problem=_words(error))
                pause = min(60.0, 2 * pause)
            except Exception as error:
                logging.getLogger(__name__).exception("the lake could not be read")
                self._put(problem=f"an error of this program: {type(error).__name__}")
                pause = min(60.0, 2 * pause)
            if self._ended.wait(pause):
                return

    def _open(self) -> Lake | None:
        from visionloop.lake import Lake

        loops = Lake.loops(self.uri, catalog=self._catalog)
        loop = self._loop or (loops[0] if len(loops) == 1 else "default")
        if loop not in loops:
            if loops:
                raise InputError(
                    f"the lake holds no loop `{loop}`",
                    where=self.uri,
                    remedy=f"Start again with --loop and one of {', '.join(loops)}",
                )
            return None
        lake = Lake.open(self.uri, catalog=self._catalog, loop=loop)
        self._put(lake=lake)
        return lake

    def _look(self, lake: Lake) -> Index:
        with self._looking:
            return self._read(lake)

    def _read(self, lake: Lake) -> Index:
        version = lake.version()
        index = self.shown.index
        if not version:
            raise _Empty("the lake is empty so far: its first stage has not ended")
        if index is None or index.version != version:
            self._put(newest=version)
            began = time.monotonic()
            index = build_index(lake, version)
            log(
                f"live view: version {version}, {len(index):,} images, "
                f"{index.nbytes / 2**20:,.1f} MiB, read in {time.monotonic() - began:.1f} s"
            )
        self._put(index=index, newest=version, as_of=index.as_of, problem="")
        return index

    def _report_on(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            with self._changed:
                if not self._is_due():
                    self._changed.wait(60)
                    pause = 0.0
                    continue
                lake, version = self._shown.lake, self._shown.newest
            assert lake is not None
            began, made_at = time.monotonic(), datetime.now(UTC)
            page, why = self._make(lake, version)
            # Beside a loop at work a report is made half of the time at most.
            pause = max(LOOK_SECONDS, time.monotonic() - began)
            if page is not None:
                made = Report(version, page, began, made_at)
                self._put(report=made, no_report="", asked=False)
            elif not self._ended.is_set():
                self._put(no_report=why, asked=False)
                pause = max(pause, _AFTER_FAILURE)

    def _is_due(self) -> bool:
        shown, held = self._shown, self._shown.report
        if shown.index is None:
            return False
        return shown.asked or held is None or held.version != shown.newest

    def _make(self, lake: Lake, version: str) -> tuple[bytes | None, str]:
        """Return a version's report, or None and in words why it was not made."""
        file = Path(self._folder.name) / "report.html"
        file.unlink(missing_ok=True)
        child = multiprocessing.get_context("spawn").Process(
            target=_write,
            args=(lake.uri, self._catalog, lake.loop, version, self._thresholds, str(file)),
            daemon=True,
            name="visionloop report",
        )
        self._child = child
        child.start()
        if self._ended.is_set():
            child.terminate()
        child.join(self._report_seconds)
        late = child.is_alive()
        if late:
            child.terminate()
            child.join(_ENDING)
            child.kill()
            child.join()
        if not late and child.exitcode == 0 and file.exists():
            return file.read_bytes(), ""
        why = f"The report of version {version} could not be made"
        why += f" within {self._report_seconds:,g} seconds" if late else ""
        if not self._ended.is_set():
            log(f"live view: {why}; the newest is next")
        return None, why


def _words(error: Exception) -> str:
    if isinstance(error, VisionloopError):
        return str(error)
    return f"The lake cannot be read: {type(error).__name__}."


def _write(
    uri: str, catalog: str, loop: str, version: str, thresholds: MonitoringConfig, file: str
) -> None:
    """Write a report: the work of the process that makes it."""
    import signal
    import sys

    from visionloop.lake import Lake
    from visionloop.monitoring.report import write_report

    # An interrupt from the keyboard reaches every process; the server ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    part = f"{file}.part"
    try:
        lake = Lake.open(uri, catalog=catalog, loop=loop)
        write_report(lake, part, version=version, thresholds=thresholds)
    except VisionloopError as error:
        log(f"live view: {error}")
        sys.exit(error.exit_status)
    Path(part).replace(file)
