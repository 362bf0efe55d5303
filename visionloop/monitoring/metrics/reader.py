"""Keeps the health of a lake's loops as it was last read, for whoever scrapes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from visionloop import __version__
from visionloop.failures import explain
from visionloop.monitoring.metrics.families import families, gauge
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.monitoring.metrics.health import Health


# Reads a loop's health; is given what was read last, None before the first time.
ReadLoop = Callable[["Health | None"], "Health"]


@dataclass(frozen=True)
class _Last:
    """A loop as it was last tried.

    Attributes:
        health: What was read last; None where it never could be.
        read_at: When that was, seconds since 1970.
        readable: Whether the last try succeeded.
    """

    health: Health | None
    read_at: float
    readable: bool


class Reader(Collector):
    """Reads the health of loops, and tells it as metrics.

    A scrape never waits for the lake. Before the first reading it finds `visionloop_build_info`
    alone. Of a loop that cannot be read it finds what was read last, with a
    ``visionloop_loop_readable`` of 0; the others are read all the same. Where none can be,
    ``visionloop_lake_readable`` is 0.

    Args:
        loops: Finds the loops: what reads each, by its name.
    """

    def __init__(self, loops: Callable[[], Mapping[str, ReadLoop]]) -> None:
        self._loops = loops
        self._last: dict[str, _Last] = {}
        self._readable: bool | None = None
        self._read_at = 0.0
        self._seconds = 0.0
        self._lock = threading.Lock()

    def refresh(self, *, strict: bool = False) -> bool:
        """Read the loops' health.

        Args:
            strict: Raise what went wrong where no loop could be read; it is logged otherwise.

        Returns:
            Whether all of them could be read.
        """
        began = time.time()
        try:
            loops = self._loops()
        except Exception as error:
            if strict:
                raise
            with self._lock:
                self._readable = False
                self._last = {n: replace(one, readable=False) for n, one in self._last.items()}
            _say("the lake", error)
            return False
        last: dict[str, _Last] = {}
        for name, read in loops.items():
            before = self._last.get(name, _Last(None, 0.0, readable=False))
            try:
                last[name] = _Last(read(before.health), time.time(), readable=True)
            except Exception as error:
                last[name] = replace(before, readable=False)
                if strict and len(loops) == 1:
                    raise
                _say(f"the loop {name}", error)
        with self._lock:
            self._last = last
            self._readable = any(one.readable for one in last.values())
            if self._readable:
                self._read_at, self._seconds = time.time(), time.time() - began
        return all(one.readable for one in last.values())

    def text(self) -> bytes:
        """Return what `/metrics` answers."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        with self._lock:
            last, readable = self._last, self._readable
            read_at, seconds = self._read_at, self._seconds
        built = [({"version": __version__}, 1)]
        yield gauge("build_info", "The visionloop that reads the lake", built)
        if readable is not None:
            told = "1 where the lake, and a loop in it, could be read at the last try"
            yield gauge("lake_readable", told, [({}, readable)])
        if last:
            told = "1 where the loop could be read at the last try"
            yield gauge("loop_readable", told, [({"loop": n}, o.readable) for n, o in last.items()])
        healths = {name: one.health for name, one in last.items() if one.health is not None}
        if healths:
            told = "When the lake was last read"
            yield gauge("lake_read_timestamp_seconds", told, [({}, read_at)])
            yield gauge("lake_read_duration_seconds", "How long that took", [({}, seconds)])
            times = [({"loop": name}, last[name].read_at) for name in healths]
            yield gauge("loop_read_timestamp_seconds", "When the loop was last read", times)
            yield from families(healths)


def _say(what: str, error: Exception) -> None:
    """Log why something cannot be read, without what to do: nobody need start this again."""
    known = explain(error)
    where = f" ({known.where})" if known.where else ""
    why = known.what.rstrip(".")
    log(f"metrics: {what} cannot be read, and will be tried again: {why}{where}", level="error")
