"""The predictor as KServe sees it: a model, its REST routes and its gRPC service.

This is the one module that imports kserve.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import kserve
import orjson
from fastapi import FastAPI, Request, Response
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.model_server import app as kserve_app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from prometheus_client import Gauge
from prometheus_client.registry import Collector

from visionloop.inference import OnnxModel
from visionloop.serving.cloudevents import EventSender
from visionloop.serving.following import ModelFollower
from visionloop.serving.payloads import Ask, BadRequest, prepare, read_v1, read_v2
from visionloop.serving.replies import Answer, metadata, write_v1, write_v2

JSON = "application/json"
HEADER_LENGTH = "inference-header-content-length"

GrpcStarter = Callable[[str, int], Awaitable[tuple[Any, int]]]


class VisionModel(kserve.Model):  # type: ignore[misc]
    """A classifier: pictures in, probabilities out, in threads.

    Args:
        name: Name of the model.
        follower: Holds the model in service.
        pool: Threads that decode and predict.
        max_pixels: Of one image.
    """

    def __init__(
        self, name: str, follower: ModelFollower, pool: ThreadPoolExecutor, max_pixels: int
    ) -> None:
        super().__init__(name)
        self._max_pixels = max_pixels
        self._follower = follower
        self._pool = pool

    @property
    def current(self) -> OnnxModel:
        """The model in service.

        Raises:
            ModelNotReady: There is none yet.
        """
        model = self._follower.model
        if model is None:
            refusal = self._follower.refusal
            raise ModelNotReady(self.name, refusal.reason if refusal else "No model is published.")
        return model

    async def healthy(self) -> bool:
        """Whether there is a model."""
        return self._follower.model is not None

    def load(self) -> bool:
        """Nothing to load on demand: the follower does."""
        return self._follower.model is not None

    def start(self) -> None:
        """Nothing to start: readiness is `healthy`."""

    def validate(self, payload: Any) -> Any:
        """Bodies are checked where they are read."""
        return payload

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        """Read the request, and decode and resize its pictures.

        Args:
            payload: A function that reads the request, run in a thread.
            headers: Of the request.

        Raises:
            InvalidInput: The request or one of its pictures cannot be read.
        """
        if not callable(payload):
            # KServe's own route `:explain` comes here, past our reading of the request.
            raise InvalidInput("this model explains nothing; ask it with :predict or /infer")
        # Taken once: the whole request is answered by one model, whatever is published meanwhile.
        model = self.current

        def read() -> tuple[OnnxModel, Ask, Any]:
            ask = payload()
            size = model.card.image_size
            return model, ask, prepare(ask.pictures, size, max_pixels=self._max_pixels)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, read)
        except BadRequest as error:
            raise InvalidInput(str(error)) from None

    async def predict(
        self, payload: Any, headers: Any = None, response_headers: Any = None
    ) -> tuple[Ask, Answer]:
        """Run the network on what `preprocess` prepared.

        Args:
            payload: Model, question and batch, float32 ``[n, 3, S, S]``.
            headers: Of the request.
            response_headers: Of the reply; left as they are.

        Returns:
            What was asked, and the answer of the model that the batch was made for.
        """
        model, ask, batch = payload
        probabilities, embedding = await asyncio.get_running_loop().run_in_executor(
            self._pool, model.predict, batch
        )
        return ask, Answer(model.card, probabilities, embedding)


class FixedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """KServe's repository routes: the pointer says which model is served, not a request."""

    async def unload(self, model_name: str) -> None:
        """Refuse: one anonymous request must not take the model out of service.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput("the model in service is changed by publishing, not by a request")


class ReadyDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, ready when its models are."""

    async def ready(self) -> bool:
        """Whether every model is ready."""
        names = list(self.model_registry.get_models())
        return all([await self.model_registry.is_model_ready(name) for name in names])


def build(
    name: str,
    follower: ModelFollower,
    sender: EventSender | None,
    *,
    pool: ThreadPoolExecutor,
    max_pixels: int,
) -> tuple[FastAPI, GrpcStarter]:
    """Make the server.

    Args:
        name: Name of the model.
        follower: Holds the model in service.
        sender: Who sends the events of gRPC; REST has its middleware.
        pool: Threads that decode and predict.
        max_pixels: Of one image; a larger one is answered with 400.

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
    model = VisionModel(name, follower, pool, max_pixels)
    server.register_model(model)
    server.dataplane = ReadyDataPlane(model_registry=server.registered_models)
    _register_metrics(follower, sender)
    _add_routes(kserve_app, server.dataplane, follower, sender)
    server.model_repository_extension = FixedRepository(model_registry=server.registered_models)
    rest = RESTServer(
        "kserve.model_server:app", server.dataplane, server.model_repository_extension, http_port=0
    )
    rest.create_application()
    kserve_app.add_exception_handler(InvalidInput, _bad_request)

    async def start_grpc(host: str, port: int) -> tuple[Any, int]:
        from visionloop.serving.grpc_service import start

        return await start(host, port, server, sender)

    return kserve_app, start_grpc


def _add_routes(
    app: FastAPI, plane: DataPlane, follower: ModelFollower, sender: EventSender | None
) -> None:
    """Add our routes before KServe's: the first that fits answers."""

    async def infer(name: str, read: Callable[[], Ask], headers: Any) -> tuple[Ask, Answer]:
        if not await plane.model_ready(name, True):
            plane.get_model_from_registry(name).current  # noqa: B018  (raises, with the reason)
        answered, _ = await plane.infer(model_name=name, request=read, headers=headers)
        ask, answer = answered
        return ask, answer

    async def v1(model_name: str, request: Request) -> Response:
        body = await request.body()
        embedding = request.query_params.get("embedding", "").lower() in ("true", "1")
        ask, answer = await infer(
            model_name, lambda: read_v1(body, embedding=embedding), dict(request.headers)
        )
        return Response(write_v1(ask, answer, model_name), media_type=JSON)

    async def v2(model_name: str, request: Request, model_version: str = "") -> Response:
        body = await request.body()
        held = _version(plane, model_name, model_version)
        length = request.headers.get(HEADER_LENGTH)
        ask, answer = await infer(model_name, lambda: read_v2(body, length), dict(request.headers))
        if held and answer.card.model_id != held:
            raise ModelNotFound(f"{model_name}/versions/{held}")
        content, json_length = write_v2(
            ask, answer, model_name, ask.request_id or str(uuid.uuid4())
        )
        if json_length is None:
            return Response(content, media_type=JSON)
        return Response(
            content,
            media_type="application/octet-stream",
            headers={HEADER_LENGTH: str(json_length)},
        )

    async def describe(model_name: str, model_version: str = "") -> Response:
        model = plane.get_model_from_registry(model_name)
        _version(plane, model_name, model_version)
        return Response(orjson.dumps(metadata(model_name, model.current.card)), media_type=JSON)

    async def status() -> Response:
        return Response(orjson.dumps(_status(follower, sender)), media_type=JSON)

    app.add_api_route("/v1/models/{model_name}:predict", v1, methods=["POST"])
    for path in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
        app.add_api_route(path + "/infer", v2, methods=["POST"])
        app.add_api_route(path, describe, methods=["GET"])
    app.add_api_route("/visionloop/status", status, methods=["GET"])


def _version(plane: DataPlane, name: str, version: str) -> str:
    """Check that a version which a path names is in service."""
    if version and plane.get_model_from_registry(name).current.card.model_id != version:
        raise ModelNotFound(f"{name}/versions/{version}")
    return version


def _status(follower: ModelFollower, sender: EventSender | None) -> dict[str, Any]:
    """Say which model is in service, which was refused and why, and what became of the events."""
    model = follower.model
    return {
        "ready": model is not None,
        "model_id": model.card.model_id if model else None,
        "model_uri": model.uri if model else None,
        "swaps": follower.swaps,
        "refused": asdict(follower.refusal) if follower.refusal else None,
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


def _register_metrics(follower: ModelFollower, sender: EventSender | None) -> None:
    from prometheus_client import REGISTRY

    if sender:
        REGISTRY.register(_EventMetrics(sender))
    swaps = Gauge("visionloop_model_swaps", "Models taken into service since the start")
    swaps.set_function(lambda: follower.swaps)
    refused = Gauge("visionloop_model_refused", "1 while the published model is refused")
    refused.set_function(lambda: 1.0 if follower.refusal else 0.0)
