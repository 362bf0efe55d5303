"""Finds in a task's log why it failed: a server says only that it did."""

from __future__ import annotations

import re
from dataclasses import dataclass

from visionloop.redaction import redacted

# How Python ends a traceback of an error of ours: its class, then the paragraph for people.
_OURS = re.compile(r"^(?:.*\]\s)?visionloop(?:\.\w+)+: (?P<paragraph>\S.*)$")
_ANY = re.compile(r"^(?P<error>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)(?:: .*)?)$")


@dataclass(frozen=True)
class Reason:
    """Why a task failed.

    Attributes:
        task: Its name.
        pod: The pod whose log this is.
        paragraph: What, where and remedy, or the exception's last line; empty where the log holds
            neither.
        tail: The log's last lines.
        source: Where the log came from, in words; where there is none, how to see it.
    """

    task: str
    pod: str
    paragraph: str
    tail: tuple[str, ...]
    source: str

    def text(self) -> str:
        """Return it for a person: the reason first, then the end of the log."""
        head = f"{self.task}: {self.paragraph or 'its log does not say why'}"
        if not self.tail:
            return f"{head}\n  {self.source}" if self.paragraph else f"{self.task}: {self.source}"
        lines = [f"  the last {len(self.tail)} lines of its log, from {self.source}:"]
        return "\n".join([head, *lines, *(f"  | {line}" for line in self.tail)])


def paragraph_in(log: str) -> str:
    """Return the sentence of a log that says why a task failed.

    Args:
        log: The log.

    Returns:
        The paragraph of the last error of ours; without one, the last line of the last traceback;
        else an empty string.
    """
    lines = [line.strip() for line in log.splitlines()]
    for line in reversed(lines):
        if found := _OURS.match(line):
            return redacted(found["paragraph"])
    for line in reversed(lines):
        if found := _ANY.match(line):
            return redacted(found["error"])
    return ""


def tail_of(log: str, lines: int) -> tuple[str, ...]:
    """Return the last lines of a log, fit to be told.

    Args:
        log: The log.
        lines: How many at most.
    """
    kept = [line.rstrip()[:500] for line in log.splitlines() if line.strip()]
    return tuple(redacted(line) for line in kept[-lines:]) if lines > 0 else ()
