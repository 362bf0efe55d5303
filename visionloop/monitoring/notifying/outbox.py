"""The outbox: events that wait in the lake until their receiver has taken them.

An event is a small file ``outbox/<loop>/<time>-<receiver>-<event>.json``, written before it is sent
and removed once it was taken. What a receiver that is down did not take thus goes out with the next
stage, in order; an event may arrive twice, under the same id.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.lake.storage import StorageError, name_of
from visionloop.monitoring.kinds import SEVERITIES
from visionloop.monitoring.notifying.events import SORTS, Event, severity_of

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.monitoring.notify_config import Receiver

FOLDER = "outbox"
_NAME = re.compile(r"(\d{20})-([a-z][a-z0-9-]*)-([0-9a-f]{32})\.json")
_TOLD = "told.json"


@dataclass(frozen=True)
class Waiting:
    """An event that waits.

    Attributes:
        uri: Its file.
        receiver: Name of whom it is for.
        event_id: Its id.
        since: When it was put there, seconds since 1970.
    """

    uri: str
    receiver: str
    event_id: str
    since: float


def wanted(event: Event, receiver: Receiver) -> bool:
    """Whether a receiver is told of an event."""
    sort = SORTS.get(event.type)
    if sort is not None and sort not in receiver.events:
        return False
    return SEVERITIES.index(event.severity) >= SEVERITIES.index(receiver.min_severity)


def wants_flag(kind: str, receiver: Receiver) -> bool:
    """Whether a receiver is told of flags of a kind."""
    if receiver.kinds and kind not in receiver.kinds:
        return False
    return SEVERITIES.index(severity_of(kind)) >= SEVERITIES.index(receiver.min_severity)


def put(lake: Lake, receiver: Receiver, event: Event) -> None:
    """Put an event into the outbox, unless it waits there already.

    Args:
        lake: The lake that holds the outbox.
        receiver: Whom the event is for.
        event: The event.

    Raises:
        StorageError: It cannot be written.
    """
    if any((one.receiver, one.event_id) == (receiver.name, event.id) for one in waiting(lake)):
        return
    name = f"{time.time_ns() // 1000:020d}-{receiver.name}-{event.id}.json"
    lake.storage.write(_path(lake, name), json.dumps(event.record()).encode())


def waiting(lake: Lake) -> Iterator[Waiting]:
    """Yield what waits, the oldest first."""
    folder = lake.path(FOLDER, lake.loop)
    if not lake.storage.exists(folder):
        return
    for info in sorted(lake.storage.list(folder), key=lambda info: info.uri):
        if found := _NAME.fullmatch(name_of(info.uri)):
            yield Waiting(info.uri, found[2], found[3], int(found[1]) / 1e6)


def read(lake: Lake, one: Waiting) -> Event | None:
    """Return an event that waits; None where another process has sent it meanwhile."""
    try:
        return Event(**json.loads(lake.storage.read(one.uri)))
    except StorageError:
        if lake.storage.exists(one.uri):
            raise
        return None


@dataclass(frozen=True)
class Told:
    """Up to what all is told, or waits in the outbox.

    Attributes:
        version: The lake version; empty at the beginning.
        until: Time of the newest flag or decision in it, where that version is gone; None for none.
    """

    version: str = ""
    until: datetime | None = None


def told(lake: Lake) -> Told:
    """Return up to what all is told."""
    uri = _path(lake, _TOLD)
    if not lake.storage.exists(uri):
        return Told()
    held: dict[str, Any] = json.loads(lake.storage.read(uri))
    until = held.get("until")
    return Told(str(held["version"]), datetime.fromisoformat(until) if until else None)


def set_told(lake: Lake, done: Told) -> None:
    """Record up to what all is told."""
    held = {"version": done.version, "until": done.until.isoformat() if done.until else None}
    lake.storage.write(_path(lake, _TOLD), json.dumps(held).encode())


def _path(lake: Lake, name: str) -> str:
    return lake.path(FOLDER, lake.loop, name)
