"""`visionloop serve`: a KServe model server on ONNX Runtime that follows the model in service.

``kserve.ModelServer`` and ``kserve.Model`` carry the endpoints, health, metrics and their metrics'
names. What is ours: the inference routes, because the stock ones answer 422 or 500 to bodies that a
client got wrong, spend 40 ms turning a tensor into Python lists, and need a content type; inference
in threads, because the stock server predicts on its one event loop; readiness, which waits for the
first model; and the events (`visionloop.serving.cloudevents`), where no agent logs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from visionloop.errors import InputError
from visionloop.progress import log
from visionloop.serving.cloudevents import EventSender, Origin, model_annotations
from visionloop.serving.following import ModelFollower
from visionloop.serving.listening import announce, bind, uvicorn_server
from visionloop.serving.payloads import MAX_PIXELS
from visionloop.serving.tap import Tap


def run_server(
    model_uri: str,
    name: str,
    http_port: int = 8080,
    grpc_port: int | None = 8081,
    events_url: str = "",
    *,
    host: str = "0.0.0.0",
    inferenceservice: str = "",
    namespace: str = "default",
    endpoint: str = "",
    source: str = "",
    metadata_headers: tuple[str, ...] = (),
    port_file: str = "",
    workers: int = 0,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Serve a model until SIGTERM or SIGINT; requests under way are finished, events sent.

    Args:
        model_uri: A pointer (``….json``), which is followed, or a model bundle. Without a pointer
            the server starts, and is not ready until there is one.
        name: Name of the model in the paths, ``/v1/models/<name>:predict``.
        http_port: Port of REST; 0 takes a free one.
        grpc_port: Port of gRPC; 0 takes a free one, None does without gRPC.
        events_url: Address of the collector; empty where KServe's agent logs, or nobody shall.
        host: Address to listen at.
        inferenceservice: Name of the InferenceService in the events; the model's name by default.
        namespace: Its namespace in the events.
        endpoint: KServe's endpoint in the events.
        source: `ce-source` of the events; by default this host and process.
        metadata_headers: Headers of requests that the events carry, such as ``X-Request-Id``.
        port_file: File that gets ``{"http": port, "grpc": port, "pid": …}`` once they are bound.
        workers: Requests that are worked on at a time; 0 takes the number of processors.
        threads: ONNX Runtime's threads of one prediction; 0 takes half the processors, so that two
            requests share the machine.
        max_pixels: An image with more is answered with 400, before it is decoded.

    Raises:
        InputError: `max_pixels` is not positive, a port is taken, or a bundle that was named
            directly does not load.
    """
    if max_pixels < 1:
        raise InputError(
            "an image must be allowed to have pixels",
            where=f"max_pixels {max_pixels}",
            remedy=f"Give a positive number; the default is {MAX_PIXELS}",
        )
    listener = bind(host, http_port)
    processors = len(os.sched_getaffinity(0))
    follower = ModelFollower(
        model_uri,
        threads=threads or max(1, processors // 2),
        log=lambda text: log(f"serve: {text}"),
    )

    def annotations() -> dict[str, str]:
        model = follower.model
        return model_annotations(model.card.model_id if model else "")

    sender = None
    if events_url:
        origin = Origin(
            service=inferenceservice or name,
            namespace=namespace,
            endpoint=endpoint,
            source=source or f"{socket.gethostname()}-{os.getpid()}",
            metadata_headers=metadata_headers,
            annotations=annotations,
        )
        sender = EventSender(events_url, origin, log=lambda text: log(f"serve: {text}"))
    with _no_arguments():
        # kserve's own routes set off a warning of FastAPI at their first answer.
        warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
        from visionloop.serving.kserve_model import build

    pool = ThreadPoolExecutor(workers or processors)
    app, serve_grpc = build(name, follower, sender, pool=pool, max_pixels=max_pixels)
    follower.start()
    try:
        asyncio.run(_serve(Tap(app, sender), listener, serve_grpc, host, grpc_port, port_file))
    finally:
        follower.stop()
        if sender:
            sender.close()


async def _serve(
    app: Any, listener: socket.socket, serve_grpc: Any, host: str, grpc_port: int | None, file: str
) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=30,
        timeout_keep_alive=65,
    )
    server = uvicorn_server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    ports = {"http": listener.getsockname()[1]}
    grpc_server = None
    if grpc_port is not None:
        grpc_server, ports["grpc"] = await serve_grpc(host, grpc_port)
    announce("serve", ports, port_file=file)
    await server.serve(sockets=[listener])
    if grpc_server is not None:
        await grpc_server.stop(grace=30)


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide the command line: kserve parses it for its own options when it is imported."""
    held = sys.argv
    sys.argv = held[:1]
    try:
        yield
    finally:
        sys.argv = held
