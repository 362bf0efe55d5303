"""What a collector refused, counted by reason: for its metrics, and for the harvest.

The harvest learns it from the segments: a line ``{"refused": {reason: number}, "from": …,
"until": …}`` stands for the refusals of some seconds. A sender that tries again may have delivered
the event all the same; KServe's logger never does, so there each is an event that is lost.

================= ================================================================================
``overload``      too many bytes wait in memory
``spool_full``    too many bytes wait on the disk
``disk_full``     too little is free on the disk
``unwritable``    it could not be written
``connections``   too many clients at once
``too_large``     the body is larger than is taken
``too_slow``      the body, or its head, took too long to arrive
``incomplete``    the client went away before its body was whole
``unauthorized``  neither a token nor a certificate
``malformed``     no HTTP
================= ================================================================================
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from visionloop import progress

REASONS = (
    "overload", "spool_full", "disk_full", "unwritable", "connections", "too_large", "too_slow",
    "incomplete", "unauthorized", "malformed",
)  # fmt: skip
# A line of a segment that begins so is no event; no event's line does.
BEGINNING = b'{"refused":'

_SECONDS = 5.0
_LOG_SECONDS = 60.0


def now() -> str:
    """Return the time as lines of segments hold it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Refusals:
    """Counts refusals, and writes what is new of them down every five seconds.

    What a ``kill -9`` takes is the counts of five seconds at most.

    The log hears when refusing begins, each minute that it goes on, and when it ends.

    Args:
        write: Writes a line, told as an object; calls back with whether it is safe.
        log: Told of refusals.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any], Callable[[bool], None]], None],
        log: Callable[[str], None] = progress.log,
    ) -> None:
        self.total = dict.fromkeys(REASONS, 0)
        self._told: Counter[str] = Counter()
        self._since = now()
        self._write = write
        self._log = log
        self._logged: Counter[str] = Counter()
        self._logged_at: float | None = None
        self._last: Counter[str] = Counter()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="refusals", daemon=True)
        self._thread.start()

    def add(self, reason: str) -> None:
        """Count one; from the event loop's thread alone."""
        self.total[reason] += 1

    def close(self) -> None:
        """Write what is left down; the writer is closed after that."""
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(_SECONDS)
            self._say()
            new = Counter(self.total) - self._told
            if not new:
                self._since = now()
                continue
            until = now()
            safe = threading.Event()
            results: list[bool] = []

            def done(ok: bool, results: list[bool] = results, safe: Any = safe) -> None:
                results.append(ok)
                safe.set()

            self._write({"refused": dict(new), "from": self._since, "until": until}, done)
            safe.wait()
            if results[0]:  # else they are told with the next, once the disk has room
                self._told += new
                self._since = until

    def _say(self) -> None:
        new, at = Counter(self.total) - self._logged, time.monotonic()
        if new and (self._logged_at is None or at - self._logged_at >= _LOG_SECONDS):
            listed = ", ".join(f"{n:,} {reason}" for reason, n in new.most_common())
            self._log(f"collect: events are refused: {listed} (docs/serving.md says what they are)")
            self._logged_at, self._logged = at, Counter(self.total)
        elif self._logged_at is not None and Counter(self.total) == self._last:
            self._log("collect: no event was refused in the last seconds")
            self._logged_at, self._logged = None, Counter(self.total)
        self._last = Counter(self.total)


def read(line: bytes) -> Counter[str]:
    """Read a line of refusals; what makes no sense in it counts for nothing."""
    try:
        held = orjson.loads(line).get("refused")
    except orjson.JSONDecodeError:
        return Counter()
    if not isinstance(held, dict):
        return Counter()
    return Counter(
        {reason: n for reason, n in held.items() if isinstance(n, int) and 0 < n < 2**53}
    )
