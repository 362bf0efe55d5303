"""Waits until a round that waits for people has enough answers, and tells at once.

A webhook's hint (`visionloop.labeling.hints`) makes it look; without one it looks now and then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from visionloop.errors import InputError, VisionloopError
from visionloop.labeling import hints
from visionloop.lake.storage import Storage, join, open_storage
from visionloop.words import counted, round_name

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.labeling.looking import Answers
    from visionloop.lake import Lake


@dataclass(frozen=True)
class Pace:
    """How often things are looked at, in seconds.

    Attributes:
        hint: Between two looks for a hint.
        quiet: A hint is followed once no other has come for so long: people answer in a row.
        longest: It is followed after so long at the latest, however many come.
        every: Without any hint, answers are looked at so often; what a webhook lost is found then.
    """

    hint: float = 2.0
    quiet: float = 10.0
    longest: float = 60.0
    every: float = 900.0


@dataclass(frozen=True)
class Ready:
    """A round that can go on.

    Attributes:
        round_id: It.
        why: In a sentence.
    """

    round_id: str
    why: str


class Follower:
    """Follows one loop.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        place: Folder of the hints; empty for that of the lake.
        pace: How often things are looked at.
        say: Told what is seen, in a line.
    """

    def __init__(
        self,
        config: LoopConfig,
        lake: Lake,
        *,
        place: str = "",
        pace: Pace | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._config = config
        self._lake = lake
        self._pace = pace or Pace()
        self._say = say
        self._place = place or join(lake.uri, hints.FOLDER)
        self._storage: Storage = open_storage(self._place)
        self._hint = self._newest()
        self._told = ""
        self._ending = threading.Event()

    def end(self) -> None:
        """Have `next` return None."""
        self._ending.set()

    def next(self) -> Ready | None:
        """Return the round once it can go on; None where it was told to end.

        Raises:
            InputError: The labelling tool refuses, or the configuration is wrong.
        """
        while not self._ending.is_set():
            found = self.look()
            if found:
                return found
            self._wait()
        return None

    def look(self) -> Ready | None:
        """Return the round if it can go on now; a tool that does not answer is told of.

        Raises:
            InputError: The labelling tool refuses.
        """
        from visionloop.labeling.looking import look_at_answers

        try:
            held = self._lake.rounds.current()
            if held is None or held.state != "waiting":
                self._tell("no round waits for people")
                return None
            minutes = self._config.rounds.lease_minutes
            if who := self._lake.rounds.live_holder(held, lease_minutes=minutes):
                self._tell(f"{round_name(held.round_id)} is being run by {who}")
                return None
            now = datetime.now(UTC)
            answers = look_at_answers(self._config, self._lake, held.round_id, now)
        except InputError:
            raise
        except VisionloopError as error:
            self._tell(f"cannot look: {error}")
            return None
        if answers.missing and not answers.enough:
            self._tell(_waiting(held.round_id, answers))
            return None
        every = counted(answers.requested, "request is", "requests are")
        why = answers.enough or f"all {every} answered"
        self._tell(f"{round_name(held.round_id)} goes on: {why}")
        return Ready(held.round_id, why)

    def pause(self, seconds: float) -> None:
        """Wait, unless it was told to end."""
        self._ending.wait(seconds)

    def _wait(self) -> None:
        """Return when a hint has come and no other follows it, or it is time for a look."""
        pace = self._pace
        until = time.monotonic() + pace.every
        came = last = 0.0
        while not self._ending.is_set():
            now = time.monotonic()
            quiet = last and (now - last >= pace.quiet or now - came >= pace.longest)
            if quiet or (not last and now >= until):
                return
            newest = self._newest()
            if newest != self._hint:
                self._hint = newest
                last = time.monotonic()
                came = came or last
                continue
            self._ending.wait(min(pace.hint, pace.quiet if last else max(until - now, 0.01)))

    def _newest(self) -> bytes:
        return hints.look(self._storage, self._place, self._lake.loop)

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._say(text)
        self._told = text


def _waiting(round_id: str, answers: Answers) -> str:
    there = answers.requested - answers.missing
    n = counted(answers.requested, "request is", "requests are")
    where = "" if answers.read else " at the tool, usable or not"
    return f"{round_name(round_id)} waits: {there:,} of {n} answered{where}"
