"""`visionloop serve`: a KServe model server on ONNX Runtime that follows the model in service.

``kserve.ModelServer`` and ``kserve.Model`` carry the endpoints, health, metrics and their metrics'
names. What is ours: the inference routes, because the stock ones answer 422 or 500 to bodies that a
client got wrong, spend 40 ms turning a tensor into Python lists, and need a content type; inference
in threads and batches (`visionloop.serving.batching`), because the stock server predicts on its one
event loop; readiness, which waits for a model that has answered; the end, which finishes what began
and refuses the rest (`visionloop.serving.ending`); and the events
(`visionloop.serving.cloudevents`), where no agent logs them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from visionloop.errors import InputError
from visionloop.inference.session import PROCESSOR, device, find_providers
from visionloop.progress import log
from visionloop.serving.answering import MAX_WAITING, Answerer
from visionloop.serving.batching import MAX_BATCH, MAX_DELAY_MS, Batcher
from visionloop.serving.cloudevents import EventSender, Origin, model_annotations
from visionloop.serving.ending import Ending, serve_until_told
from visionloop.serving.following import ModelFollower
from visionloop.serving.listening import bind
from visionloop.serving.payloads import MAX_PIXELS
from visionloop.serving.request_counts import count_run
from visionloop.serving.tap import MAX_BODY_BYTES, Tap


@dataclass(frozen=True)
class Limits:
    """What the server takes, and how it works on it.

    Attributes:
        workers: Requests that are decoded at a time; 0 takes the number of processors.
        threads: ONNX Runtime's threads of one run of the network; 0 shares the processors among
            the runs, and gives all of them to a request that is alone.
        runs: Runs of the network at a time; 0 takes two on processors, and one on a GPU.
        max_batch: Pictures of different requests that go through the network at once; 1 for none.
        max_delay_ms: Longest wait of a run for requests that are being decoded; 0 never waits.
        max_pixels: An image with more is answered with 400, before it is decoded.
        max_body_bytes: A larger request is answered with 413.
        max_waiting: Requests at a time; more are answered with 503 at once.
        drain_s: Seconds that it goes on answering after SIGTERM, not ready any more, so that load
            balancers notice.
        grace_s: Seconds that requests under way may take then; new ones are answered with 503.
    """

    workers: int = 0
    threads: int = 0
    runs: int = 0
    max_batch: int = MAX_BATCH
    max_delay_ms: float = MAX_DELAY_MS
    max_pixels: int = MAX_PIXELS
    max_body_bytes: int = MAX_BODY_BYTES
    max_waiting: int = MAX_WAITING
    drain_s: float = 0.0
    grace_s: float = 20.0

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_pixels", "max_body_bytes", "max_waiting"):
            _refuse_below(name, getattr(self, name), 1)
        for name in ("workers", "threads", "runs", "max_delay_ms", "drain_s", "grace_s"):
            _refuse_below(name, getattr(self, name), 0)


def _refuse_below(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise InputError(
            "a limit of the server is too small",
            where=f"{name} {value:g}",
            remedy=f"Give a number from {least} on; the default is {getattr(Limits, name):g}",
        )


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
    providers: Sequence[str] = (),
    **limits: Any,
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
        port_file: File that gets ``{"http": port, "grpc": port, "pid": …}`` once the first model
            was tried; a probe at a port that is known is answered before.
        providers: ONNX Runtime's execution providers by name, see
            `visionloop.inference.session.find_providers`; by default a GPU that the process was
            given, else the processor.
        limits: See `Limits`.

    Raises:
        InputError: A limit is too small, a port is taken, this build of ONNX Runtime lacks a
            provider, or a bundle that was named directly does not load.
    """
    held = Limits(**limits)
    # Before anything is loaded, and whatever the pointer says.
    found = find_providers(providers)
    on_processors = found[0][0] == PROCESSOR if found else device() == "CPU"
    listener = bind(host, http_port)
    processors = len(os.sched_getaffinity(0))
    runs = held.runs or (min(2, processors) if on_processors else 1)
    follower = ModelFollower(
        model_uri,
        threads=held.threads or max(1, processors // runs),
        threads_alone=0 if held.threads or runs == 1 else processors,
        providers=providers,
        batch=held.max_batch,
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
        from visionloop.serving.kserve_model import build, stage_timer

    batcher = Batcher(
        workers=held.workers or processors,
        runs=runs,
        max_batch=held.max_batch,
        max_delay_ms=held.max_delay_ms,
        max_pixels=held.max_pixels,
        observe=stage_timer(name),
        ran=lambda model, pictures: count_run(model.card.model_id, pictures, held.max_batch),
    )
    answerer = Answerer(name, follower, batcher, max_waiting=held.max_waiting)
    app, serve_grpc = build(answerer, follower, sender, max_body_bytes=held.max_body_bytes)
    tap = Tap(app, answerer, sender, max_body_bytes=held.max_body_bytes)
    ending = Ending(answerer, drain=held.drain_s, grace=held.grace_s)
    follower.start()
    try:
        serve_until_told(tap, listener, serve_grpc, host, grpc_port, port_file, ending, follower)
    finally:
        at_rest = [batcher.close(), follower.stop(seconds=min(1.0, ending.left))]
        if sender:
            sender.close(seconds=ending.left)
    if not all(at_rest):
        # Python would wait for its threads, and nothing can stop a network that runs.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide the command line: kserve parses it for its own options when it is imported."""
    held = sys.argv
    sys.argv = held[:1]
    try:
        yield
    finally:
        sys.argv = held
