"""Hints that somebody has answered: a tool's webhook leaves one, `labels follow` looks for it.

A hint is a small object a loop, ``<place>/<loop>.json``, which is replaced with each call. It says
that something has changed, and nothing else: what was answered is asked of the tool itself. A hint
that is lost costs time alone, until the next look.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from visionloop.lake.storage import Storage, StorageError, join

FOLDER = "label_events"
# As the name of a loop in `loop.yaml`.
LOOP = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Hint:
    """What is left for a loop.

    Attributes:
        loop: Its name.
        action: What the tool calls that which happened, empty where it does not say.
        received_at: When, in UTC (ISO 8601).
        calls: Calls of the process that left it, so far.
    """

    loop: str
    action: str
    received_at: str
    calls: int


def hint_uri(place: str, loop: str) -> str:
    """Return where the hint of a loop lies.

    Args:
        place: Folder of the hints: ``label_events`` of a lake.
        loop: The loop's name.
    """
    return join(place, f"{loop}.json")


def leave(storage: Storage, place: str, hint: Hint) -> None:
    """Write a hint.

    Args:
        storage: What writes there.
        place: Folder of the hints.
        hint: It.

    Raises:
        StorageError: It cannot be written.
    """
    storage.write(hint_uri(place, hint.loop), json.dumps(asdict(hint)).encode())


def look(storage: Storage, place: str, loop: str) -> bytes:
    """Return the newest hint as it is stored, empty where none was left or it cannot be read.

    Args:
        storage: What reads there.
        place: Folder of the hints.
        loop: The loop's name.
    """
    uri = hint_uri(place, loop)
    try:
        return storage.read(uri) if storage.exists(uri) else b""
    except StorageError:
        return b""
