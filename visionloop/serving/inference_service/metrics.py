"""Requests and server errors of a model, by the metrics of its own pods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from visionloop.errors import VisionloopError
from visionloop.serving.inference_service.documents import HTTP_PORT
from visionloop.serving.inference_service.endpoint import Endpoint
from visionloop.serving.inference_service.pods import is_ready, model_of, name_of

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster

# What `visionloop serve` counts, see `visionloop.serving.tap`, by the first digit of the status.
OUR_COUNTER = "visionloop_inference_requests_total"
TRITON_PORT = 8002

_SAMPLE = re.compile(
    r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>[^\s]+)", re.MULTILINE
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Count:
    """Requests, and how many of them ended in an error of the server (5xx)."""

    requests: int = 0
    errors: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.requests + other.requests, self.errors + other.errors)

    def since(self, before: Count) -> Count:
        """Return what came since an earlier reading of the same pod, which may have restarted."""
        if self.requests < before.requests or self.errors < before.errors:
            return self
        return Count(self.requests - before.requests, self.errors - before.errors)


@dataclass
class Tally:
    """What the pods of each model answered since the first reading, pods that went included.

    Attributes:
        models: Count by model.
        last: Last reading of each pod.
        unread: Why the metrics of a pod could not be read last time, by pod.
        late: Pods whose first reading failed: nobody knows what they counted before.
    """

    models: dict[str, Count] = field(default_factory=dict)
    last: dict[str, Count] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)

    def of(self, model_id: str) -> Count:
        """Return what a model's pods answered."""
        return self.models.get(model_id, Count())

    def read(
        self,
        cluster: Cluster,
        endpoint: Endpoint,
        pods: list[dict[str, Any]],
        *,
        first: bool = False,
    ) -> None:
        """Read the metrics of pods, and add what came since the last reading.

        Args:
            cluster: Where they run.
            endpoint: The InferenceService.
            pods: Its pods.
            first: Only note where each counter stands: what was before is not counted.
        """
        self.unread = {}
        for pod in pods:
            if not is_ready(pod) or not model_of(pod):
                continue
            name = name_of(pod)
            try:
                now = read_pod(cluster, endpoint, pod)
            except VisionloopError as error:
                self.unread[name] = str(error)
                self.late |= {name} - set(self.last)
                continue
            if not first and name not in self.late:
                news = now.since(self.last.get(name, Count()))
                self.models[model_of(pod)] = self.of(model_of(pod)) + news
            self.late.discard(name)
            self.last[name] = now

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values, for a file."""
        return {
            part: {name: [count.requests, count.errors] for name, count in held.items()}
            for part, held in (("models", self.models), ("last", self.last))
        }

    @classmethod
    def from_plain(cls, held: Mapping[str, Any]) -> Tally:
        """Return what `to_plain` wrote."""
        models, last = (
            {str(name): Count(int(n), int(m)) for name, (n, m) in (held.get(part) or {}).items()}
            for part in ("models", "last")
        )
        return cls(models, last)


def read_pod(cluster: Cluster, endpoint: Endpoint, pod: dict[str, Any]) -> Count:
    """Return what a pod counted since it started.

    Args:
        cluster: Where it runs.
        endpoint: The InferenceService.
        pod: The pod.

    Raises:
        VisionloopError: Its metrics cannot be read.
    """
    port = TRITON_PORT if endpoint.triton else HTTP_PORT
    page = cluster.proxy_get(name_of(pod), port, "metrics", namespace=endpoint.namespace)
    return count_of(page.decode(errors="replace"), endpoint.name)


def count_of(text: str, model: str) -> Count:
    """Return the count in a page of Prometheus' text format.

    Args:
        text: The page.
        model: Name of the model, which Triton counts by.
    """
    total = Count()
    for found in _SAMPLE.finditer(text):
        labels = dict(_LABEL.findall(found["labels"] or ""))
        try:
            value = int(float(found["value"]))
        except (ValueError, OverflowError):
            continue
        if found["name"] == OUR_COUNTER:
            total += Count(value, value if labels.get("code") == "5xx" else 0)
        elif labels.get("model") == model:
            if found["name"] == "nv_inference_request_success":
                total += Count(value, 0)
            elif found["name"] == "nv_inference_request_failure":
                # A request may also be cancelled by its client, or be wrong; before Triton 24
                # there is no reason.
                fault = labels.get("reason", "BACKEND") == "BACKEND"
                total += Count(value, value if fault else 0)
    return total
