"""Traces of stages for OpenTelemetry: a trace a round, a span a stage.

Nothing is imported or sent unless OpenTelemetry's own variables name a collector
(``OTEL_EXPORTER_OTLP_ENDPOINT``), and the extra ``otel`` is installed. The tasks of a round run in
pods that know nothing of each other, so the trace's id is made of what all of them know: the lake,
the loop and the round. A collector that is down costs a stage `environment.trace_timeout` seconds
at most, and never its success.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from visionloop import __version__, environment
from visionloop.progress import log
from visionloop.redaction import redacted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True)
class StageSpan:
    """What is told of one stage, or of a whole round.

    Attributes:
        name: The stage's, or ``round 3``.
        place: Root of the lake.
        loop: Name of the loop.
        round_id: The round that it worked on.
        run_id: The run, empty where that is not known.
        started: Seconds since 1970.
        ended: Seconds since 1970.
        attributes: More of it: counts, versions; plain values.
        error: Why it failed, fit to be told; empty where it did not.
        error_type: The exception's class.
        whole: Whether it is the round itself, the parent of its stages.
    """

    name: str
    place: str
    loop: str
    round_id: str
    run_id: str
    started: float
    ended: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    error_type: str = ""
    whole: bool = False


def trace_ids(place: str, loop: str, round_id: str) -> tuple[int, int]:
    """Return the ids of a round's trace (16 bytes) and of its first span (8 bytes).

    Args:
        place: Root of the lake.
        loop: Name of the loop.
        round_id: The round.
    """
    digest = hashlib.sha256("\n".join((place, loop, round_id)).encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def send(span: StageSpan) -> bool:
    """Send a span to the collector, if there is one.

    Args:
        span: What is told.

    Returns:
        Whether the collector took it; what went wrong is a line of the log.
    """
    if not environment.sends_traces():
        return False
    told: list[str] = []
    # A name that does not resolve may block for longer than any timeout of a request.
    worker = threading.Thread(target=_try, args=(span, told), name="traces", daemon=True)
    worker.start()
    worker.join(environment.trace_timeout() + 1.0)
    if told == [""]:
        return True
    why = told[0] if told else "it does not answer in time"
    log(f"{span.name}: its trace was not sent: {why}", level="warning")
    return False


def _try(span: StageSpan, told: list[str]) -> None:
    try:
        told.append(_export(span))
    except ModuleNotFoundError as error:
        told.append(f"{error.name} is not installed; pip install 'visionloop[otel]'")
    except Exception as error:
        told.append(redacted(f"{type(error).__name__}: {error}"))


def _export(span: StageSpan) -> str:
    import logging

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    # Its own lines tell of each try, with a traceback; ours is one.
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    exporter = OTLPSpanExporter(timeout=environment.trace_timeout())
    try:
        result = exporter.export([readable(span)])
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
    return "" if result is SpanExportResult.SUCCESS else "the collector did not take it"


def readable(span: StageSpan) -> ReadableSpan:
    """Return a span as OpenTelemetry's SDK has it; attributes are named ``visionloop.…``."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    trace_id, root_id = trace_ids(span.place, span.loop, span.round_id)
    sampled = TraceFlags(TraceFlags.SAMPLED)
    root = SpanContext(trace_id, root_id, is_remote=True, trace_flags=sampled)
    own = RandomIdGenerator().generate_span_id()
    context = SpanContext(trace_id, own, is_remote=False, trace_flags=sampled)
    named = {
        "round_id": span.round_id,
        "run_id": span.run_id,
        "loop": span.loop,
        "lake": span.place,
        **({} if span.whole else {"stage": span.name}),
        **span.attributes,
    }
    attributes = {f"visionloop.{name}": value for name, value in named.items() if value != ""}
    status, events = Status(StatusCode.OK), []
    if span.error:
        status = Status(StatusCode.ERROR, span.error)
        told = {"exception.type": span.error_type, "exception.message": span.error}
        events = [Event("exception", told, int(span.ended * 1e9))]
    service = {"service.name": environment.trace_service(), "service.version": __version__}
    return ReadableSpan(
        name=span.name,
        context=root if span.whole else context,
        parent=None if span.whole else root,
        resource=Resource.create(service),
        attributes=attributes,
        events=events,
        kind=SpanKind.INTERNAL,
        status=status,
        start_time=int(span.started * 1e9),
        end_time=int(span.ended * 1e9),
        instrumentation_scope=InstrumentationScope("visionloop", __version__),
    )
