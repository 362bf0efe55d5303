"""The ASGI interface as the predictor's own applications use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_JSON = (b"content-type", b"application/json")


async def reply(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a whole answer.

    Args:
        send: Of the request.
        status: HTTP status.
        body: The body; JSON, unless a header says otherwise.
        headers: Lower-case names and values.
    """
    given = [*headers, (b"content-length", b"%d" % len(body))]
    if all(name != b"content-type" for name, _ in headers):
        given.append(_JSON)
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})
