"""The media endpoint's metrics, as Prometheus reads them.

=================================== =============================================================
``visionloop_media_requests_total`` requests by `outcome`: ``shown``, ``partial``, ``unchanged``,
                                    or why it was refused
``visionloop_media_bytes_total``    bytes of images that were sent
``visionloop_media_remade_total``   images that were decoded and encoded anew for a browser
``visionloop_media_seconds``        from a request to its answer's first byte
``visionloop_media_held_bytes``     bytes of images on their way
=================================== =============================================================
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_PREFIX = "visionloop_media_"


class Counts:
    """What a media endpoint did.

    Attributes:
        bytes: Bytes that were sent.
        remade: Images that were made anew.
        seconds: How long answers took.
        held: Bytes on their way.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            f"{_PREFIX}requests", "Requests by outcome", ["outcome"], registry=registry
        )
        self.bytes = Counter(f"{_PREFIX}bytes", "Bytes of images sent", registry=registry)
        self.remade = Counter(f"{_PREFIX}remade", "Images encoded anew", registry=registry)
        self.held = Gauge(f"{_PREFIX}held_bytes", "Bytes on their way", registry=registry)
        self.seconds = Histogram(
            f"{_PREFIX}seconds",
            "Seconds from a request to its answer",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=registry,
        )

    def add(self, outcome: str) -> None:
        """Count a request."""
        self._requests.labels(outcome).inc()

    def text(self) -> bytes:
        """Return what `/metrics` answers."""
        return generate_latest(self._registry)
