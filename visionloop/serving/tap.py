"""What the predictor shows of its REST traffic: replies to the metrics, all of it to the events.

An ASGI middleware around KServe's application. Like KServe's agent it reports every request but a
kubelet's probes, health and metadata included; the harvest tells them apart. It also keeps a body
within bounds, which KServe's server does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from visionloop.serving.cloudevents import REQUEST, RESPONSE, EventSender, new_id
from visionloop.serving.request_counts import count, is_inference

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Tap:
    """Reads each request whole, hands it on, counts its reply, and reports both.

    Args:
        app: The application behind it.
        sender: Who sends the events; None where nothing is reported.
        max_body_bytes: A larger request is answered with 413.
    """

    def __init__(
        self, app: App, sender: EventSender | None, *, max_body_bytes: int = 128 * 1024 * 1024
    ) -> None:
        self._app = app
        self._sender = sender
        self._max_body = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            await _refuse(send, self._max_body)
            return
        replay = _replay(body, receive)
        headers = [(k.decode("latin-1").lower(), _text(v)) for k, v in scope["headers"]]
        first = dict(reversed(headers))
        if is_inference(scope["method"], scope["path"]):
            send = _counted(send)
        if self._sender is None or _is_probe(first):
            await self._app(scope, replay, send)
            return
        sender = self._sender
        event = {
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

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body; None where it is too large. A client that went away has sent less."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b"".join(parts)
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body:
                return None
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


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


async def _refuse(send: Send, limit: int) -> None:
    body = orjson.dumps({"error": f"the body is larger than {limit} bytes"})
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
