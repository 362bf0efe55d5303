"""The collector as an ASGI application: takes an event, has it written, acknowledges it."""

from __future__ import annotations

import asyncio
import binascii
import threading
import time
from dataclasses import dataclass, field

import orjson

from visionloop.serving import raw_spool
from visionloop.serving.access import Access
from visionloop.serving.asgi import Receive, Scope, Send
from visionloop.serving.collector_metrics import Metrics, Parts
from visionloop.serving.http_limits import CERTIFIED
from visionloop.serving.label_webhook import PATH as WEBHOOK_PATH
from visionloop.serving.refusals import now

# A larger event goes to segments of its own: others would wait until the disk has it.
_LARGE = 1024 * 1024
# As with `authorization`, who sent an event is not kept with it.
_CREDENTIALS = ("cookie", "proxy-authorization")


class EventSink:
    """Answers what comes.

    Args:
        parts: Where events go to, and what is counted.
        access: Decides who may post.
        raw: Write records of the private spool; otherwise lines of segments.
        max_body_bytes: A larger event is refused with 413.
        body_seconds: A body that takes longer to arrive is refused with 408.
    """

    def __init__(
        self, parts: Parts, access: Access, *, raw: bool, max_body_bytes: int, body_seconds: float
    ) -> None:
        self._parts = parts
        self._room = parts.room
        self._access = access
        self._raw = raw
        self._max_body = max_body_bytes
        self._body_seconds = body_seconds
        self._metrics = Metrics(parts)
        self._lock = threading.Lock()
        self._settled: list[tuple[asyncio.Future[bool], bool]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._status(scope["path"], send)
        elif scope["method"] not in ("POST", "PUT"):
            await _answer(send, 405, b"POST events here\n")
        elif self._parts.webhook and scope["path"].startswith(WEBHOOK_PATH):
            await self._parts.webhook.take(scope, receive, send)
        else:
            await self._take(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        certified = CERTIFIED in scope.get("extensions", {})
        # Who they are is nobody's business but ours: it is not kept with the event.
        if not self._access.grants(headers.pop("authorization", ""), certified=certified):
            await self._refuse(send, "unauthorized", 401, (b"www-authenticate", b"Bearer"))
            return
        for name in _CREDENTIALS:
            headers.pop(name, None)
        declared = headers.get("content-length", "0")
        size = int(declared) if declared.isdigit() and len(declared) < 20 else 0
        if size > self._max_body:
            await self._refuse(send, "too_large", 413)
            return
        if why := self._room.lacks(size, self._parts.queued):
            await self._refuse(send, why, 503)
            return
        arrival = _Arrival(size, base64=not self._raw)
        self._room.arriving += size
        try:
            async with asyncio.timeout(self._body_seconds):
                await self._body(receive, arrival)
            began = time.perf_counter()
            safe = self._write(headers, arrival)
        except TimeoutError:
            await self._refuse(send, "too_slow", 408)
            return
        except _RefusedError as error:
            await self._refuse(send, error.why, error.status)
            return
        finally:
            self._room.arriving -= arrival.reserved
        if await safe:
            self._metrics.acknowledged += 1
            self._metrics.ack.observe(time.perf_counter() - began)
            await _answer(send, 200, b"")
        else:
            await self._refuse(send, "unwritable", 503)

    async def _body(self, receive: Receive, arrival: _Arrival) -> None:
        """Read a body, and count what comes beyond its declared size: all of a chunked one."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _RefusedError("incomplete", 408)
            arrival.add(message.get("body", b""))
            if arrival.size > self._max_body:
                raise _RefusedError("too_large", 413)
            if arrival.size > arrival.reserved:
                more = arrival.size - arrival.reserved
                if why := self._room.lacks(more, self._parts.queued):
                    raise _RefusedError(why, 503)
                self._room.arriving += more
                arrival.reserved = arrival.size
            if not message.get("more_body"):
                return

    def _write(self, headers: dict[str, str], arrival: _Arrival) -> asyncio.Future[bool]:
        """Queue a record; the future tells whether it is safe."""
        head = {"received_at": now(), "headers": headers}
        if self._raw:
            record = raw_spool.pack(head, arrival.parts)
        else:
            arrival.end()
            begin = orjson.dumps(head)[:-1] + b',"body_b64":"'
            record = [begin, *arrival.parts, b'"}\n']
        loop = asyncio.get_running_loop()
        safe: asyncio.Future[bool] = loop.create_future()

        def done(ok: bool) -> None:
            # A batch is told at once: the loop is woken by its first event.
            with self._lock:
                first = not self._settled
                self._settled.append((safe, ok))
            if first:
                loop.call_soon_threadsafe(self._settle)

        self._parts.writers[arrival.size > _LARGE].write(record, done)
        return safe

    def _settle(self) -> None:
        with self._lock:
            settled, self._settled = self._settled, []
        for future, ok in settled:
            if not future.done():
                future.set_result(ok)

    async def _refuse(
        self, send: Send, why: str, status: int, *headers: tuple[bytes, bytes]
    ) -> None:
        self._parts.refusals.add(why)
        if status in (408, 503):  # what is too large, or unknown, will be so again
            headers += ((b"retry-after", b"1"),)
        await _answer(send, status, why.encode() + b"\n", *headers)

    async def _status(self, path: str, send: Send) -> None:
        if path in ("/", "/healthz", "/livez"):
            await _answer(send, 200, b"alive\n")
        elif path in ("/readyz", "/ready"):
            error = self._parts.error or self._room.lacks(0, self._parts.queued)
            await _answer(send, 503 if error else 200, (error or "ready").encode() + b"\n")
        elif path == "/metrics":
            kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            await _answer(send, 200, self._metrics.text(), kind)
        else:
            await _answer(send, 404, b"GET /healthz, /readyz or /metrics; POST events anywhere\n")


@dataclass
class _Arrival:
    """A body on its way in.

    Attributes:
        reserved: Bytes that are counted as arriving.
        base64: Whether its parts are kept as base64; they are made so one by one, since at once a
            large body would hold everybody else up.
        size: Bytes that arrived.
        parts: What arrived, as it is written.
    """

    reserved: int
    base64: bool
    size: int = 0
    parts: list[bytes] = field(default_factory=list)
    _carry: bytes = b""

    def add(self, part: bytes) -> None:
        """Take the next part."""
        self.size += len(part)
        if self.base64 and part:
            data = self._carry + part if self._carry else part
            cut = len(data) // 3 * 3
            self._carry = data[cut:]
            self.parts.append(binascii.b2a_base64(memoryview(data)[:cut], newline=False))
        elif part:
            self.parts.append(part)

    def end(self) -> None:
        """Say that there is no more."""
        if self._carry:
            self.parts.append(binascii.b2a_base64(self._carry, newline=False))
            self._carry = b""


class _RefusedError(Exception):
    """The event is not taken."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.why = why
        self.status = status


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
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})
