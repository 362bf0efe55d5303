"""The collector's HTTP server, plain or over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from visionloop.serving.listening import run_until_told, uvicorn_server

if TYPE_CHECKING:
    from visionloop.serving.access import Certificates

# For a handshake of TLS, and before the next try where there are no descriptors left.
_HANDSHAKE_SECONDS = 5.0
_NO_ROOM_SECONDS = 1.0


def serve(
    app: Any,
    listener: socket.socket,
    protocol: type[HttpToolsProtocol],
    certificates: Certificates | None,
    ready: Callable[[], None],
    *,
    refused: Callable[[str], None],
    max_connections: int,
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first.

    Args:
        app: The ASGI application.
        listener: Bound to its port.
        protocol: From `visionloop.serving.http_limits.protocol_of`.
        certificates: For TLS; None serves without.
        ready: Called once a signal ends it in order.
        refused: Counts a refusal, by reason.
        max_connections: Clients at once, as the protocol has it: those in a handshake count, too.
    """
    server = uvicorn_server(
        app,
        http=protocol,
        ws="none",
        log_level="critical",
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
    )
    server.config.load()
    accepting: list[asyncio.Task[None]] = []

    async def run() -> None:
        ready()
        if certificates is None:
            await server.serve(sockets=[listener])
            return
        connect = functools.partial(
            protocol, config=server.config, server_state=server.server_state, app_state={}
        )
        doorman = _Doorman(listener, connect, certificates, refused)
        connections = server.server_state.connections
        accepting.append(
            asyncio.create_task(doorman.accept(lambda: max_connections - len(connections)))
        )
        await server.serve(sockets=[])

    def told() -> None:
        server.should_exit = True
        for task in accepting:
            task.cancel()

    run_until_told(server, run, told)


class _Doorman:
    """Accepts clients over TLS, and counts them before their handshake is over: asyncio does not.

    Args:
        listener: Bound to its port; closed at the end.
        connect: Makes the protocol of a connection.
        certificates: For the handshake.
        refused: Counts a refusal, by reason.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        certificates: Certificates,
        refused: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._context = certificates.context
        self._refused = refused
        self._handshakes: set[asyncio.Task[None]] = set()

    async def accept(self, room: Callable[[], int]) -> None:
        """Accept clients until cancelled.

        Args:
            room: How many more connections there may be, handshakes left out.
        """
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                try:
                    client, _ = await loop.sock_accept(self._listener)
                except OSError:
                    await asyncio.sleep(_NO_ROOM_SECONDS)
                    continue
                if len(self._handshakes) >= room():
                    self._refused("connections")
                    client.close()
                    continue
                task = loop.create_task(self._shake(client))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)

    async def _shake(self, client: socket.socket) -> None:
        # A client that goes away, speaks no TLS, or takes too long.
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connect,
                client,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
