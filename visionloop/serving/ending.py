"""Serves until the process is told to end, and ends in order.

At SIGTERM or SIGINT the server is not ready any more. It goes on answering for a while, if that is
asked for; then it finishes what is under way and refuses what still comes with 503, over gRPC
UNAVAILABLE; and once nothing is under way, or its time is up, it closes and sends its events. All
of that has one deadline. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any

from visionloop.serving.answering import Answerer
from visionloop.serving.asgi import App
from visionloop.serving.following import ModelFollower
from visionloop.serving.listening import announce, run_until_told, uvicorn_server
from visionloop.serving.request_counts import count_error
from visionloop.serving.tap import BODY_SECONDS, MAX_CONNECTIONS

# To close connections, 1.5 at most, and for the events that wait, beside what requests leave.
CLOSING_SECONDS = 4.0
_LOOK_SECONDS = 0.02
# Kept open a moment for those who connected before they could know.
_LINGER_SECONDS = 0.2


@dataclass
class Ending:
    """How the server ends, after `drain`, `grace` and `CLOSING_SECONDS` at most.

    Attributes:
        answerer: Says what is under way, and refuses what comes.
        drain: Seconds that it goes on answering, not ready.
        grace: Seconds that requests under way may take after that.
    """

    answerer: Answerer
    drain: float
    grace: float
    _until: float | None = None

    @property
    def left(self) -> float:
        """Seconds until the process shall be gone."""
        return CLOSING_SECONDS if self._until is None else max(0.0, self._until - time.monotonic())

    def hurry(self) -> None:
        """Leave no time."""
        self._until = time.monotonic()

    async def run(self) -> None:
        """Return once the server may close."""
        self._until = time.monotonic() + self.drain + self.grace + CLOSING_SECONDS
        self.answerer.ending = True
        await asyncio.sleep(self.drain)
        self.answerer.closed = True
        until = asyncio.get_running_loop().time() + self.grace
        await asyncio.sleep(min(_LINGER_SECONDS, self.grace))
        while self.answerer.under_way and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_SECONDS)


def serve_until_told(
    app: App,
    listener: socket.socket,
    serve_grpc: Any,
    host: str,
    grpc_port: int | None,
    port_file: str,
    ending: Ending,
    follower: ModelFollower,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: The REST application.
        listener: Bound to its port.
        serve_grpc: Coroutine function that starts gRPC at a host and port.
        host: Address to listen at.
        grpc_port: Port of gRPC; None does without.
        port_file: File that gets the ports; empty for none.
        ending: How to end.
        follower: The ports are told once it has tried the first model.

    Raises:
        InputError: The bundle that was named directly does not load.
    """
    from visionloop.serving.http_limits import protocol_of

    protocol = protocol_of(count_error, max_connections=MAX_CONNECTIONS, body_seconds=BODY_SECONDS)
    server = uvicorn_server(
        app,
        http=protocol,
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=65,
    )
    tasks: list[asyncio.Task[None]] = []

    async def end() -> None:
        await ending.run()
        server.should_exit = True

    def told() -> None:
        if tasks:
            ending.hurry()
            server.should_exit = server.force_exit = True
        else:
            tasks.append(asyncio.get_running_loop().create_task(end()))

    async def serve() -> None:
        ports = {"http": listener.getsockname()[1]}
        grpc_server = None
        if grpc_port is not None:
            grpc_server, ports["grpc"] = await serve_grpc(host, grpc_port)
        # Alive from now on; ready when there is a model.
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not (follower.tried or serving.done()):
            await asyncio.sleep(_LOOK_SECONDS)
        if follower.error:
            server.should_exit = True
        elif follower.tried:
            announce("serve", ports, port_file=port_file)
        await serving
        if grpc_server is not None:
            await grpc_server.stop(grace=min(0.5, ending.left))

    run_until_told(server, serve, told)
    if follower.error:
        raise follower.error
