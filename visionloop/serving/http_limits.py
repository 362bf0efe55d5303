"""What a client may cost a server before its request is looked at: of the collector and predictor.

uvicorn bounds neither how long a head takes, nor how large it is, nor how long a refused body may
trickle, nor what follows the body, nor how many clients there are: here each has a limit, and is
counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# In the scope's extensions, where the client has a certificate that was verified.
CERTIFIED = "visionloop.certified"

HEAD_SECONDS = 10.0
# Of a head, of what follows a body, and of what stands between two of its chunks.
_HEAD_BYTES = 256 * 1024
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 12\r\n"
    b"connection: close\r\n\r\nconnections\n"
)
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


def protocol_of(
    refused: Callable[[str], None], *, max_connections: int, body_seconds: float
) -> type[HttpToolsProtocol]:
    """Return the protocol of connections.

    Args:
        refused: Counts a refusal, by reason.
        max_connections: Clients at once; more are refused with 503.
        body_seconds: A body may take so long before the application refuses it; a refused one may
            trickle as long again, and then its connection is closed.
    """

    class Protocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _in_head = True
        _beside = 0  # bytes since a head began, or since the last of a body
        _names = 0  # bytes of the headers that were read of a message, or that follow its body
        _cut = False
        _certified = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._certified = bool(transport.get_extra_info("peercert"))
            if len(self.connections) > max_connections:
                refused("connections")
                transport.write(_BUSY)
                transport.close()
                return
            self._allow(HEAD_SECONDS)

        def connection_lost(self, exc: Exception | None) -> None:
            self._disallow()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._in_head and self._timer is None:
                self._allow(HEAD_SECONDS)
            self._beside += len(data)
            super().data_received(data)
            # Only now: what came may have held the end of a head, and a body of any length.
            if self._beside > _HEAD_BYTES:
                self._cut_off()

        def _cut_off(self) -> None:
            if not self._cut and not self.transport.is_closing():
                self._cut = True
                refused("too_large")
                self.transport.write(_TOO_LONG)
                self.transport.close()

        def on_url(self, url: bytes) -> None:
            self._weigh(url)
            super().on_url(url)

        def _weigh(self, *texts: bytes) -> None:
            self._names += sum(map(len, texts))
            if self._names > _HEAD_BYTES:
                self._cut_off()

        def on_message_begin(self) -> None:
            self._names = 0
            super().on_message_begin()
            if self._certified:
                self.scope["extensions"] = {CERTIFIED: {}}

        def on_header(self, name: bytes, value: bytes) -> None:
            self._weigh(name, value)
            if self._in_head and not self._cut:  # what follows a body is no header, and is not kept
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head, self._beside = False, 0
            if not self._cut:
                self._allow(2 * body_seconds)
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._beside = 0
            if not self._cut:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self._in_head, self._beside = True, 0
            self._disallow()
            if not self._cut:
                super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            if not self._cut:
                refused("malformed")
                super().send_400_response(msg)

        def _allow(self, seconds: float) -> None:
            self._disallow()
            self._timer = self.loop.call_later(seconds, self._late)

        def _disallow(self) -> None:
            if self._timer:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            if self._in_head and self._beside:
                refused("too_slow")
            self.transport.abort()

    return Protocol
