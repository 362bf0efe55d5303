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
        course: How far it had come; empty where nothing was kept.
        outdated: Whether something was kept that is of no use.
    """

    def __init__(self, folder: Path, task: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"select-{digest[:16]}.json"
        self._state = dict(state)
        self._next = time.monotonic() + _PACE_S
        self.course, self.outdated = Course(), False
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        if kept["state"] != self._state:
            self.outdated = True
            return
        picked = [Picked(int(row), values) for row, values in kept["picked"]]
        self.course = Course(picked, [int(row) for row in kept["refused"]])

    def note(self) -> None:
        """Write the file, unless that was done within the last second."""
        if time.monotonic() >= self._next:
            self.write()
            self._next = time.monotonic() + _PACE_S

    def write(self) -> None:
        """Write the file, whole or not at all."""
        if not self.course.picked:
            return
        kept = {
            "state": self._state,
            "picked": [[pick.candidate, pick.values] for pick in self.course.picked],
            "refused": self.course.refused,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps(kept), encoding="utf-8")
        fresh.replace(self.path)

    def finish(self) -> None:
        """Remove the file: the selection is complete."""
        self.path.unlink(missing_ok=True)
