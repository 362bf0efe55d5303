"""The predictor as KServe sees it: a model with health, metadata and metrics, and a gRPC service.

This is the one module that imports kserve.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import kserve
import orjson
from fastapi import FastAPI, Request, Response
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.metrics import PRE_HIST_TIME, PREDICT_HIST_TIME, get_labels
from kserve.model_server import app as kserve_app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from prometheus_client import REGISTRY, Gauge
from prometheus_client.registry import Collector

from visionloop.inference import OnnxModel
from visionloop.serving.answering import Answerer, Refused
from visionloop.serving.asgi import App
from visionloop.serving.cloudevents import EventSender
from visionloop.serving.following import ModelFollower
from visionloop.serving.replies import FIXED, metadata
from visionloop.serving.request_counts import observe
from visionloop.serving.routes import InferenceRoutes

JSON = "application/json"

GrpcStarter = Callable[[str, int], Awaitable[tuple[Any, int]]]


class VisionModel(kserve.Model):  # type: ignore[misc]
    """The model as KServe's registry has it: its health, and not its answers.

    Inference comes in by `visionloop.serving.routes` and `visionloop.serving.grpc_service`.

    Args:
        answerer: Knows the model in service.
    """

    def __init__(self, answerer: Answerer) -> None:
        super().__init__(answerer.name)
        self._answerer = answerer

    @property
    def current(self) -> OnnxModel:
        """The model in service.

        Raises:
            ModelNotReady: There is none yet.
        """
        try:
            return self._answerer.current
        except Refused as error:
            raise ModelNotReady(self.name, str(error)) from None

    def check(self, version: str) -> None:
        """Check that a version is the one in service; empty for any.

        Raises:
            ModelNotFound: It is not.
            ModelNotReady: There is none yet.
        """
        if version and self.current.card.model_id != version:
            raise ModelNotFound(f"{self.name}/versions/{version}")

    async def healthy(self) -> bool:
        """Whether there is a model that answered, and the server goes on."""
        return self._answerer.ready

    def load(self) -> bool:
        """Nothing to load on demand: the follower does."""
        return self._answerer.ready

    def start(self) -> None:
        """Nothing to start: readiness is `healthy`."""

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        """Refuse what comes past our routes: KServe's ``:explain``.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput("this model explains nothing; ask it with :predict or /infer")


class FixedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """KServe's repository routes: the pointer says which model is served, not a request."""

    async def load(self, model_name: str) -> None:
        """Refuse: nothing would be loaded.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput(FIXED)

    async def unload(self, model_name: str) -> None:
        """Refuse: one anonymous request must not take the model out of service.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput(FIXED)


class ReadyDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, ready when its models are."""

    async def ready(self) -> bool:
        """Whether every model is ready."""
        names = list(self.model_registry.get_models())
        return all([await self.model_registry.is_model_ready(name) for name in names])


def build(
    answerer: Answerer,
    follower: ModelFollower,
    sender: EventSender | None,
    *,
    max_body_bytes: int,
) -> tuple[App, GrpcStarter]:
    """Make the server.

    Args:
        answerer: Answers inference.
        follower: Holds the model in service.
        sender: Who sends the events of gRPC; REST has its middleware.
        max_body_bytes: Of a message of gRPC.

    Returns:
        The REST application, and a coroutine function that starts gRPC at a host and port and
        returns the server and its port.
    """
    # Only what goes wrong here; not four lines for each request.
    server = kserve.ModelServer(
        http_port=0, grpc_port=0, enable_grpc=False, enable_latency_logging=False
    )
    for logger in ("kserve", "kserve.trace"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    server.register_model(VisionModel(answerer))
    server.dataplane = ReadyDataPlane(model_registry=server.registered_models)
    _register_metrics(answerer, follower, sender)
    _add_routes(kserve_app, server.dataplane, follower, sender)
    server.model_repository_extension = FixedRepository(model_registry=server.registered_models)
    rest = RESTServer(
        "kserve.model_server:app", server.dataplane, server.model_repository_extension, http_port=0
    )
    rest.create_application()
    kserve_app.add_exception_handler(InvalidInput, _bad_request)

    async def start_grpc(host: str, port: int) -> tuple[Any, int]:
        from visionloop.serving.grpc_service import start

        return await start(host, port, server, answerer, sender, max_body_bytes=max_body_bytes)

    return InferenceRoutes(answerer, kserve_app), start_grpc


def stage_timer(name: str) -> Callable[[str, float], None]:
    """Return a function that counts the seconds of a stage, in KServe's metrics too.

    Args:
        name: Name of the model.
    """
    labels = get_labels(name)
    kserves = {
        "decode": PRE_HIST_TIME.labels(**labels).observe,
        "inference": PREDICT_HIST_TIME.labels(**labels).observe,
    }

    def timed(stage: str, seconds: float) -> None:
        observe(stage, seconds)
        if stage in kserves:
            kserves[stage](seconds)

    return timed


def _add_routes(
    app: FastAPI, plane: DataPlane, follower: ModelFollower, sender: EventSender | None
) -> None:
    """Add our routes before KServe's: the first that fits answers."""

    async def describe(model_name: str, model_version: str = "") -> Response:
        model = plane.get_model_from_registry(model_name)
        model.check(model_version)
        return Response(orjson.dumps(metadata(model_name, model.current.card)), media_type=JSON)

    async def ready(model_name: str, model_version: str) -> Response:
        plane.get_model_from_registry(model_name).check(model_version)
        if not await plane.model_ready(model_name):
            raise ModelNotReady(model_name)
        return Response(orjson.dumps({"name": model_name, "ready": True}), media_type=JSON)

    async def status() -> Response:
        return Response(orjson.dumps(_status(follower, sender)), media_type=JSON)

    for path in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
        app.add_api_route(path, describe, methods=["GET"])
    app.add_api_route(f"{path}/ready", ready, methods=["GET"])
    app.add_api_route("/visionloop/status", status, methods=["GET"])


def _status(follower: ModelFollower, sender: EventSender | None) -> dict[str, Any]:
    """Say which model is in service, which was refused and why, and what became of the events."""
    model, refusal = follower.model, follower.refusal
    return {
        "ready": model is not None,
        "model_id": model.card.model_id if model else None,
        "model_uri": model.uri if model else None,
        "provider": model.provider if model else None,
        "swaps": follower.swaps,
        "refused": asdict(refusal) if refusal else None,
        "events": None
        if sender is None
        else {
            "delivered": sender.sent.delivered,
            "waiting": sender.waiting,
            "dropped": dict(sender.sent.dropped),
        },
    }


async def _bad_request(_: Request, error: Exception) -> Response:
    return Response(orjson.dumps({"error": str(error)}), 400, media_type=JSON)


class _EventMetrics(Collector):
    """The sender's counts, read when metrics are asked for."""

    def __init__(self, sender: EventSender) -> None:
        self._sender = sender

    def collect(self) -> Any:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield CounterMetricFamily(
            "visionloop_events_delivered", "Events taken by the sink", self._sender.sent.delivered
        )
        dropped = CounterMetricFamily(
            "visionloop_events_dropped", "Events given up, by reason", labels=["reason"]
        )
        for reason, number in dict(self._sender.sent.dropped).items():
            dropped.add_metric([reason], number)
        yield dropped
        yield GaugeMetricFamily(
            "visionloop_events_waiting", "Events that wait to be sent", self._sender.waiting
        )


class _ModelMetrics(Collector):
    """The model in service, read when metrics are asked for."""

    def __init__(self, follower: ModelFollower) -> None:
        self._follower = follower

    def collect(self) -> Any:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield CounterMetricFamily(
            "visionloop_model_swaps",
            "Models taken into service since the start",
            self._follower.swaps,
        )
        info = GaugeMetricFamily(
            "visionloop_model_info", "The model in service", labels=["model_id", "provider"]
        )
        if model := self._follower.model:
            info.add_metric([model.card.model_id, model.provider], 1)
        yield info


def _register_metrics(
    answerer: Answerer, follower: ModelFollower, sender: EventSender | None
) -> None:
    if sender:
        REGISTRY.register(_EventMetrics(sender))
    REGISTRY.register(_ModelMetrics(follower))
    for name, words, value in (
        ("inference_under_way", "Requests that are being answered", lambda: answerer.under_way),
        (
            "model_refused",
            "1 while the published model is refused",
            lambda: 1.0 if follower.refusal else 0.0,
        ),
    ):
        Gauge(f"visionloop_{name}", words).set_function(value)
