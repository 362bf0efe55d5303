"""Keeps the health of a lake's loops as it was last read, for whoever scrapes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from visionloop import __version__
from visionloop.failures import explain
from visionloop.monitoring.metrics.families import families, gauge
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.monitoring.metrics.health import Health


class Reader(Collector):
    """Reads the health of loops, and tells it as metrics.

    A scrape never waits for the lake. Before the first reading it finds `visionloop_build_info`
    alone; while the lake cannot be read, what was read last, with ``visionloop_lake_readable 0``.

    Args:
        read: Reads it, by the loop's name; is given what was read last.
    """

    def __init__(self, read: Callable[[Mapping[str, Health]], dict[str, Health]]) -> None:
        self._read = read
        self._healths: dict[str, Health] | None = None
        self._readable: bool | None = None
        self._read_at = 0.0
        self._seconds = 0.0
        self._lock = threading.Lock()

    def refresh(self, *, strict: bool = False) -> bool:
        """Read the loops' health.

        Args:
            strict: Raise what went wrong, which is logged otherwise.

        Returns:
            Whether it could be read.
        """
        began = time.time()
        try:
            healths = self._read(self._healths or {})
        except Exception as error:
            if strict:
                raise
            with self._lock:
                self._readable = False
            log(f"metrics: the lake cannot be read: {explain(error)}", level="error")
            return False
        with self._lock:
            self._healths, self._readable = healths, True
            self._read_at, self._seconds = time.time(), time.time() - began
        return True

    def text(self) -> bytes:
        """Return what `/metrics` answers."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        with self._lock:
            healths, readable = self._healths, self._readable
            read_at, seconds = self._read_at, self._seconds
        built = [({"version": __version__}, 1)]
        yield gauge("build_info", "The visionloop that reads the lake", built)
        if readable is not None:
            told = "1 where the lake could be read at the last try"
            yield _own("lake_readable", told, float(readable))
        if healths is not None:
            told = "When the lake was last read"
            yield _own("lake_read_timestamp_seconds", told, read_at)
            yield _own("lake_read_duration_seconds", "How long that took", seconds)
            yield from families(healths)


def _own(name: str, about: str, value: float) -> GaugeMetricFamily:
    return gauge(name, about, [({}, value)])
