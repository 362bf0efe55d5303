"""`visionloop collect`: the HTTP sink that KServe's payload logger posts its events to.

The logger sends each event once, does not retry, and keeps what it cannot deliver in memory without
a bound. So the sink answers within milliseconds, always: an event is acknowledged (200) as soon as
the kernel has it, and when more comes in than can be written the sink says so at once (503) instead
of making the logger wait. Whatever was acknowledged survives a ``kill -9``.

Events are kept as they came, garbage included; to judge them is the harvest's work. One line each:
``{"received_at": …, "headers": {…}, "body_b64": …}``, headers in lower case with their bytes
decoded as Latin-1.

Bodies hold what production sent, and pixels may be personal data: ``keep="hashes"`` stores of a
request only what the harvest needs of it, the hashes of its images and tensors. Images that were
never ingested can then be counted and ranked, but not labelled. To find the hashes takes as long as
a sender likes, so it is not done here:

1. the event goes as it came into a private spool (``.raw``, 0700, files 0600), and is acknowledged;
2. a process beside this one (`visionloop.serving.reducing`) takes segments out of the spool within
   about half a second, appends the hashes to ``*.events.jsonl``, and deletes what it took.

After a crash of either, pixels lie in the spool until the reducer is done with them: it goes on
where the collector was killed, the collector starts it again where it died, and the next collector
on the same folder finds what both left behind. While the spool is full, events are refused (503).

Paths: POST anywhere; GET ``/healthz`` (alive), ``/readyz`` (takes events), ``/metrics``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from visionloop.lake.storage import local_path, scheme_of
from visionloop.serving import raw_spool
from visionloop.serving.reducing import Plan, Reducer
from visionloop.serving.segment_writer import SegmentWriter
from visionloop.serving.uploader import Uploader

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Keep = Literal["bodies", "hashes"]

# Base64 of so much is made in a millisecond; then other events have their turn.
_SLICE = 3 * 256 * 1024


def run_collector(
    events: str,
    *,
    host: str = "0.0.0.0",
    port: int = 8090,
    port_file: str = "",
    keep: Keep = "bodies",
    durable: bool = False,
    max_body_bytes: int = 128 * 1024 * 1024,
    max_queued_bytes: int = 256 * 1024 * 1024,
    max_segment_bytes: int = 64 * 1024 * 1024,
    max_segment_seconds: float = 300.0,
    max_spool_bytes: int = 1024 * 1024 * 1024,
    spool: str = "",
) -> None:
    """Collect events until SIGTERM or SIGINT.

    Args:
        events: Folder of the segments, by default a lake's ``events``: a path, ``file://…``, or
            ``gs://…``, where closed segments are uploaded to.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        port_file: File that gets ``{"http": port, "pid": …}`` as soon as the port is bound.
        keep: ``bodies`` whole, or only the ``hashes`` of what requests carried.
        durable: Acknowledge after fsync(2): survives a power cut too, at the disk's pace.
        max_body_bytes: A larger event is refused with 413.
        max_queued_bytes: While more than this waits to be written, events are refused with 503.
        max_segment_bytes: A segment of this size is closed.
        max_segment_seconds: A segment of this age is closed.
        max_spool_bytes: While more than this waits to be reduced to hashes, events are refused
            with 503.
        spool: Local folder of the segments on their way to ``gs://``; by default one in the
            temporary folder, which a pod should replace by a volume that outlives it. With
            ``hashes`` also the folder of what is not reduced yet, by default ``.raw`` beside the
            segments.

    Raises:
        InputError: The URI has a scheme that is not supported, or the port is taken.
        VisionloopError: The folder cannot be written to.
    """
    from visionloop.serving.listening import announce, bind, run_asgi

    listener = bind(host, port)
    local = scheme_of(events) == "file"
    if local:
        folder = local_path(events)
    else:
        name = hashlib.sha256(events.encode()).hexdigest()[:16]
        folder = Path(spool or Path(tempfile.gettempdir()) / f"visionloop-spool-{name}")
    upload = reducer = None
    if keep == "hashes":
        raw = raw_spool.make_folder(Path(spool or folder) / raw_spool.FOLDER)
        plan = Plan(
            raw=str(raw),
            folder=str(folder),
            upload="" if local else events,
            max_bytes=max_segment_bytes,
            max_seconds=max_segment_seconds,
            durable=durable,
        )
        reducer = Reducer(plan)
        writer = SegmentWriter(
            raw,
            max_bytes=min(max_segment_bytes, raw_spool.BYTES),
            max_seconds=min(max_segment_seconds, raw_spool.SECONDS),
            durable=durable,
            closed=reducer.notify,
            suffix=raw_spool.SUFFIX,
            mode=raw_spool.MODE,
        )
    else:
        upload = None if local else Uploader(events, folder)
        writer = SegmentWriter(
            folder,
            max_bytes=max_segment_bytes,
            max_seconds=max_segment_seconds,
            durable=durable,
            closed=upload.add if upload else None,
        )
    app = Collector(
        writer,
        uploader=upload,
        reducer=reducer,
        max_body_bytes=max_body_bytes,
        max_queued_bytes=max_queued_bytes,
        max_spool_bytes=max_spool_bytes,
    )
    announce("collect", {"http": listener.getsockname()[1]}, port_file=port_file)
    try:
        run_asgi(app, listener)
    finally:
        writer.close()
        if reducer:
            reducer.close()
        if upload:
            upload.close()


class Collector:
    """The sink as an ASGI application.

    Args:
        writer: Where the lines go.
        uploader: Who carries closed segments away, where someone does.
        reducer: Who makes hashes of what is written, where ``hashes`` are kept.
        max_body_bytes: See `run_collector`.
        max_queued_bytes: See `run_collector`.
        max_spool_bytes: See `run_collector`.
        body_seconds: A body that takes longer to arrive is refused with 408.
    """

    def __init__(
        self,
        writer: SegmentWriter,
        *,
        uploader: Uploader | None = None,
        reducer: Reducer | None = None,
        max_body_bytes: int = 128 * 1024 * 1024,
        max_queued_bytes: int = 256 * 1024 * 1024,
        max_spool_bytes: int = 1024 * 1024 * 1024,
        body_seconds: float = 30.0,
    ) -> None:
        self._writer = writer
        self._uploader = uploader
        self._reducer = reducer
        self._max_body = max_body_bytes
        self._max_queued = max_queued_bytes
        self._max_spool = max_spool_bytes
        self._body_seconds = body_seconds
        self._arriving = 0
        self._refused = {"overload": 0, "too_large": 0, "incomplete": 0, "unwritable": 0}
        self._slowest = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._status(scope["path"], send)
        elif scope["method"] in ("POST", "PUT"):
            await self._take(scope, receive, send)
        else:
            await _answer(send, 405, b"POST events here\n")

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        declared = headers.get("content-length", "0")
        size = int(declared) if declared.isdigit() else 0
        if size > self._max_body:
            await self._refuse(send, "too_large", 413)
            return
        if self._overloaded(size):
            await self._refuse(send, "overload", 503)
            return
        arrival = _Arrival(size)
        self._arriving += size
        try:
            await asyncio.wait_for(self._body(receive, arrival), self._body_seconds)
            data = await self._record(headers, arrival.parts)
            began = time.perf_counter()
            safe = self._written(data)
        except (TimeoutError, _IncompleteError):
            await self._refuse(send, "incomplete", 408)
            return
        except _TooLargeError:
            await self._refuse(send, "too_large", 413)
            return
        except _OverloadError:
            await self._refuse(send, "overload", 503)
            return
        finally:
            self._arriving -= arrival.reserved
        ok = await safe
        self._slowest = max(self._slowest, time.perf_counter() - began)
        if ok:
            await _answer(send, 200, b"")
        else:
            await self._refuse(send, "unwritable", 503)

    def _written(self, data: bytes) -> asyncio.Future[bool]:
        """Queue a record; the future tells whether it is safe."""
        loop = asyncio.get_running_loop()
        safe: asyncio.Future[bool] = loop.create_future()

        def done(ok: bool) -> None:
            loop.call_soon_threadsafe(_settle, safe, ok)

        self._writer.write(data, done)
        return safe

    def _overloaded(self, size: int) -> bool:
        memory = self._arriving + self._writer.queued_bytes + size
        if memory > self._max_queued:
            return True
        # What was written since the reducer's folder was looked at is at most a moment's traffic.
        return bool(self._reducer and self._reducer.waiting + memory > self._max_spool)

    async def _body(self, receive: Receive, arrival: _Arrival) -> None:
        """Read a body, and count what comes beyond its declared size: all of a chunked one."""
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _IncompleteError
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise _TooLargeError
            if size > arrival.reserved:
                more = size - arrival.reserved
                if self._overloaded(more):
                    raise _OverloadError
                self._arriving += more
                arrival.reserved = size
            arrival.parts.append(part)
            if not message.get("more_body"):
                return

    async def _record(self, headers: dict[str, str], parts: list[bytes]) -> bytes:
        """Return what is written: as it came for the reducer, else a line of a segment."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        head = {"received_at": now, "headers": headers}
        if self._reducer:
            return raw_spool.pack(head, parts)
        body = memoryview(b"".join(parts))
        line = [orjson.dumps(head)[:-1], b',"body_b64":"']
        for start in range(0, len(body), _SLICE):
            line.append(base64.b64encode(body[start : start + _SLICE]))
            await asyncio.sleep(0)
        return b"".join([*line, b'"}\n'])

    async def _refuse(self, send: Send, why: str, status: int) -> None:
        self._refused[why] += 1
        await _answer(send, status, why.encode() + b"\n", (b"retry-after", b"1"))

    async def _status(self, path: str, send: Send) -> None:
        if path in ("/", "/healthz", "/livez"):
            await _answer(send, 200, b"alive\n")
        elif path in ("/readyz", "/ready"):
            error = self._writer.written.error
            if error or self._overloaded(0):
                await _answer(send, 503, (error or "overloaded").encode() + b"\n")
            else:
                await _answer(send, 200, b"ready\n")
        elif path == "/metrics":
            await _answer(send, 200, self._metrics().encode())
        else:
            await _answer(send, 404, b"GET /healthz, /readyz or /metrics; POST events anywhere\n")

    def _metrics(self) -> str:
        written = self._writer.written
        lines = [
            "# TYPE visionloop_collector_events_total counter",
            f"visionloop_collector_events_total {written.lines}",
            "# TYPE visionloop_collector_bytes_total counter",
            f"visionloop_collector_bytes_total {written.bytes}",
            "# TYPE visionloop_collector_segments_total counter",
            f"visionloop_collector_segments_total {written.segments}",
            "# TYPE visionloop_collector_queued_bytes gauge",
            f"visionloop_collector_queued_bytes {self._writer.queued_bytes}",
            "# TYPE visionloop_collector_slowest_ack_seconds gauge",
            f"visionloop_collector_slowest_ack_seconds {self._slowest:.6f}",
            "# TYPE visionloop_collector_refused_total counter",
        ]
        lines += [
            f'visionloop_collector_refused_total{{reason="{reason}"}} {number}'
            for reason, number in self._refused.items()
        ]
        if self._reducer:
            lines += [
                "# TYPE visionloop_collector_spooled_bytes gauge",
                f"visionloop_collector_spooled_bytes {self._reducer.waiting}",
            ]
        if self._uploader:
            lines += [
                "# TYPE visionloop_collector_waiting_uploads gauge",
                f"visionloop_collector_waiting_uploads {self._uploader.waiting}",
            ]
        return "\n".join(lines) + "\n"


@dataclass
class _Arrival:
    """A body on its way in, and how many bytes of it are counted as arriving."""

    reserved: int
    parts: list[bytes] = field(default_factory=list)


class _IncompleteError(Exception):
    """The client went away."""


class _TooLargeError(Exception):
    """The body is larger than is taken."""


class _OverloadError(Exception):
    """There is no room for the body."""


def _settle(future: asyncio.Future[bool], ok: bool) -> None:
    if not future.done():
        future.set_result(ok)


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
