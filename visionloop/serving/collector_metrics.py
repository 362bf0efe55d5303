"""The collector's metrics, as Prometheus reads them.

============================================= ==================================================
``visionloop_collector_events_total``         events that were acknowledged
``visionloop_collector_bytes_total``          bytes that were written for them
``visionloop_collector_segments_total``       segments begun
``visionloop_collector_refused_total``        events refused, by `reason`
``visionloop_collector_ack_seconds``          from an event's last byte to its acknowledgement
``visionloop_collector_queued_bytes``         bytes that arrive or wait to be written
``visionloop_collector_spooled_bytes``        bytes on the disk that wait to be reduced or uploaded
``visionloop_collector_free_bytes``           bytes free on the disk
``visionloop_collector_waiting_uploads``      segments that wait for the bucket
``visionloop_collector_pixels_total``         requests or images by what became of their pixels
``visionloop_collector_webhooks_total``       calls of a labelling tool, by `outcome`
``visionloop_collector_label_hints_total``    hints left for who follows a loop, by `outcome`
============================================= ==================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Source

from visionloop.serving.label_webhook import LabelWebhook
from visionloop.serving.pixels import FATES
from visionloop.serving.refusals import Refusals
from visionloop.serving.room import Room
from visionloop.serving.segment_writer import SegmentWriter, Written

_PREFIX = "visionloop_collector_"


@dataclass(frozen=True)
class Parts:
    """What the metrics are read from.

    Attributes:
        writers: Write the events.
        room: Knows the disk.
        refusals: Count what was refused.
        pixels: Count what became of pixels; None where none are looked at.
        waiting_uploads: Returns the segments that wait; None where this process uploads nothing.
        webhook: Takes a labelling tool's calls; None where it takes none.
    """

    writers: tuple[SegmentWriter, ...]
    room: Room
    refusals: Refusals
    pixels: Mapping[str, int] | None = None
    waiting_uploads: Callable[[], int] | None = None
    webhook: LabelWebhook | None = None

    @property
    def queued(self) -> int:
        """Bytes that wait to be written."""
        return sum(writer.queued_bytes for writer in self.writers)

    @property
    def error(self) -> str:
        """Why the last write failed; empty where none did."""
        return next((w.written.error for w in self.writers if w.written.error), "")


class Metrics(Source):
    """Tells what a collector did.

    Attributes:
        acknowledged: Events that were.
        ack: How long it took.

    Args:
        parts: What it is read from.
    """

    def __init__(self, parts: Parts) -> None:
        self.acknowledged = 0
        self._parts = parts
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.ack = Histogram(
            f"{_PREFIX}ack_seconds",
            "Seconds from an event's last byte to its acknowledgement",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Return what `/metrics` answers."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield what is read when it is asked for."""
        parts = self._parts
        written = [writer.written for writer in parts.writers]
        yield _counter("events", "Events acknowledged", self.acknowledged)
        yield _counter("bytes", "Bytes written", _sum(written, "bytes"))
        yield _counter("segments", "Segments begun", _sum(written, "segments"))
        yield _by("refused", "Events refused", "reason", parts.refusals.total)
        memory = parts.room.arriving + parts.queued
        yield _gauge("queued_bytes", "Bytes that arrive or wait to be written", memory)
        yield _gauge("spooled_bytes", "Bytes that wait on the disk", parts.room.waiting)
        yield _gauge("free_bytes", "Bytes free on the disk", parts.room.free)
        if parts.waiting_uploads:
            waiting = parts.waiting_uploads()
            yield _gauge("waiting_uploads", "Segments that wait for the bucket", waiting)
        if parts.pixels is not None:
            fates = {fate: Counter(parts.pixels)[fate] for fate in FATES}
            yield _by("pixels", "What became of pixels", "fate", fates)
        if parts.webhook:
            yield _by("webhooks", "Calls of a labelling tool", "outcome", parts.webhook.calls)
            yield _by("label_hints", "Hints of new labels", "outcome", parts.webhook.written)


def _sum(written: list[Written], name: str) -> int:
    return sum(getattr(one, name) for one in written)


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, says, value=value)


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, says, value=value)


def _by(name: str, says: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, says, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
