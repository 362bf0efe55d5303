"""What the predictor sees of its REST traffic: bodies within bounds, counts, and the events.

An ASGI middleware around the routes and KServe's application. Like KServe's agent it reports every
request but a kubelet's probes, health and metadata included; the harvest tells them apart. It also
keeps bodies within bounds of size and time, which KServe's server does not, and refuses inference
while too many requests wait or the server ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import orjson

from visionloop.serving.answering import Answerer, Refused
from visionloop.serving.asgi import App, Message, Receive, Scope, Send, reply
from visionloop.serving.cloudevents import REQUEST, RESPONSE, EventSender, new_id
from visionloop.serving.request_counts import count, count_error, is_inference

MAX_BODY_BYTES = 128 * 1024 * 1024
# So many of the largest body may be thrown away so that a client that sends first and reads then
# gets its answer.
_DISCARDED = 2
BODY_SECONDS = 60.0
# Clients at once; one that is idle takes some 10 KB.
MAX_CONNECTIONS = 4096

_CLOSE = (b"connection", b"close")


class _GoneError(Exception):
    """The client went away before its body was there: nobody asked anything."""


class Tap:
    """Reads each request whole, hands it on, counts its reply, and reports both.

    Args:
        app: The application behind it.
        answerer: Admits inference requests.
        sender: Who sends the events; None where nothing is reported.
        max_body_bytes: A larger request is answered with 413.
        body_seconds: A body that takes longer is answered with 408.
    """

    def __init__(
        self,
        app: App,
        answerer: Answerer,
        sender: EventSender | None,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._answerer = answerer
        self._sender = sender
        self._max_body = max_body_bytes
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        inference = is_inference(scope["method"], scope["path"])
        if inference:
            send = _counted(send)
        try:
            with self._answerer.begun() if inference else nullcontext():
                await self._bounded(scope, receive, send, inference=inference)
        except _GoneError:
            if inference:
                count_error("gone")
        except Refused as error:
            if inference:
                count_error(error.reason)
            await _refuse(send, error)

    async def _bounded(
        self, scope: Scope, receive: Receive, send: Send, *, inference: bool
    ) -> None:
        declared = 0
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                declared = int(value)
        if declared > self._max_body:
            await self._discard(scope, receive, declared)
            raise self._too_large()
        with self._answerer.holding() as hold:
            body = await self._read(receive, hold)
            with self._answerer.admitted() if inference else nullcontext():
                await self._tapped(scope, _replay(body, receive), send, body)

    async def _tapped(self, scope: Scope, replay: Receive, send: Send, body: bytes) -> None:
        sender = self._sender
        if sender is None:
            await self._app(scope, replay, send)
            return
        headers = [(k.decode("latin-1").lower(), _text(v)) for k, v in scope["headers"]]
        first = dict(reversed(headers))
        if _is_probe(first):
            await self._app(scope, replay, send)
            return
        event: dict[str, Any] = {
            "event_id": first.get("ce-id") or new_id(),
            "content_type": first.get("content-type", ""),
            "metadata": sender.metadata_of(headers),
        }
        sender.emit(REQUEST, body=body, **event)
        status = 0
        parts: list[bytes] = []

        async def tapped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and status == 200:
                parts.append(message.get("body", b""))
            await send(message)

        await self._app(scope, replay, tapped)
        if status == 200:
            sender.emit(RESPONSE, body=b"".join(parts), **event)

    async def _read(self, receive: Receive, hold: Callable[[int], int]) -> bytes:
        parts: list[bytes] = []
        more = True
        try:
            async with asyncio.timeout(self._body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    parts.append(message.get("body", b""))
                    if hold(len(parts[-1])) > self._max_body:
                        raise self._too_large()
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refused(
                408, "too_slow", f"the body took longer than {self._body_seconds:g} s"
            ) from None
        return b"".join(parts)

    async def _discard(self, scope: Scope, receive: Receive, declared: int) -> None:
        """Read a body that is too large, within bounds, unless its client waits for a word first.

        A connection that is closed on what was not read is reset, and the answer may be lost.
        """
        asks_first = any(name == b"expect" for name, _ in scope["headers"])
        if asks_first or declared > _DISCARDED * self._max_body:
            return
        try:
            async with asyncio.timeout(self._body_seconds):
                while (await receive()).get("more_body"):
                    pass
        except TimeoutError:
            return

    def _too_large(self) -> Refused:
        return Refused(413, "too_large", f"the body is larger than {self._max_body} bytes")


def _counted(send: Send) -> Send:
    async def counted(message: Message) -> None:
        if message["type"] == "http.response.start":
            count(message["status"])
        await send(message)

    return counted


def _replay(body: bytes, receive: Receive) -> Receive:
    done = False

    async def replay() -> Message:
        nonlocal done
        if done:
            return await receive()
        done = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _is_probe(headers: dict[str, str]) -> bool:
    return headers.get("user-agent", "").startswith("kube-probe/") or "k-kubelet-probe" in headers


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _refuse(send: Send, error: Refused) -> None:
    headers = [_CLOSE]
    if error.status == 503:
        headers.append((b"retry-after", b"1"))
    await reply(send, error.status, orjson.dumps({"error": str(error)}), *headers)
