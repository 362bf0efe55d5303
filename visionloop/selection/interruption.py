"""An interrupted selection is gone on with: its picks so far lie in a file until it is finished."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionloop.selection.greedy import Course, Picked

_PACE_S = 1.0


class Keeper:
    """Keeps how far one selection has come.

    What is kept is a beginning of the picks, and the same input makes the same picks: so the rest
    is what an uninterrupted selection would have picked, whenever the file was written.

    Args:
        folder: Where the file goes.
        task: What is asked for, and of which lake: names the file.
        state: What the picks depend on besides, such as the lake's version. Where it has changed
            since, what was kept is of no use.

    Attributes:
        state: As given.
        course: How far it had come; empty where nothing was kept.
        outdated: Whether something was kept that is of no use.
        why_not: Why nothing can be kept, such as a folder that cannot be written to; empty where
            it can. The selection goes on without.
    """

    def __init__(self, folder: Path, task: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"select-{digest[:16]}.json"
        self.state = dict(state)
        self._next = time.monotonic() + _PACE_S
        self.course, self.outdated, self.why_not = Course(), False, ""
        try:
            self._try()
        except OSError as error:
            self._give_up(error)
            return
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["state"] != self.state:
                raise ValueError("of another state")
            picked = [Picked(int(row), values) for row, values in kept["picked"]]
            self.course = Course(picked, [int(row) for row in kept["refused"]])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            self.outdated = True

    def note(self) -> None:
        """Write the file, unless that was done within the last second."""
        if time.monotonic() >= self._next:
            self.write()
            self._next = time.monotonic() + _PACE_S

    def write(self) -> None:
        """Write the file, whole or not at all."""
        if not self.course.picked or self.why_not:
            return
        kept = {
            "state": self.state,
            "picked": [[pick.candidate, pick.values] for pick in self.course.picked],
            "refused": self.course.refused,
        }
        fresh = self._fresh
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(kept), encoding="utf-8")
            fresh.replace(self.path)
        except OSError as error:  # the disk is full, for example
            self._give_up(error)

    def finish(self) -> None:
        """Remove the file: the selection is complete."""
        if not self.why_not:
            self.path.unlink(missing_ok=True)

    @property
    def _fresh(self) -> Path:
        return self.path.with_suffix(f".{os.getpid()}.new")

    def _try(self) -> None:
        """Write something that is removed at once: better known before the work than after it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fresh.write_bytes(b"")
        self._fresh.unlink()

    def _give_up(self, error: OSError) -> None:
        self.why_not = f"{error.strerror or error}: {error.filename or self.path.parent}"
