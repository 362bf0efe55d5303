"""Ports: bound before anything is loaded, told to whoever started the server, closed in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from visionloop.errors import InputError


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen; 0 takes a free port.

    Raises:
        InputError: The port is taken, or may not be used, or there is no such port.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(
            f"there is no port {port}",
            where="--port",
            remedy="Give one from 1 to 65535, or 0 for a free one",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen: {error.strerror}",
            where=f"{host}:{port}",
            remedy="Choose another port, or 0 for a free one",
        ) from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def announce(what: str, ports: dict[str, int], *, port_file: str = "") -> None:
    """Say which ports are bound: a line on stdout, and a file for programs.

    Args:
        what: Name of the server.
        ports: Port by protocol.
        port_file: File to write, whole or not at all; empty for none.
    """
    listed = ", ".join(f"{name} on port {port}" for name, port in ports.items())
    print(f"visionloop {what}: {listed}", flush=True)
    if port_file:
        path = Path(port_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps({**ports, "pid": os.getpid()}), encoding="utf-8")
        part.replace(path)


def uvicorn_server(app: Any, **settings: Any) -> Any:
    """Return a uvicorn server without headers of its own that leaves the signals to its caller.

    Args:
        app: The ASGI application.
        settings: More for `uvicorn.Config`.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    plain: dict[str, Any] = {
        "access_log": False,
        "lifespan": "off",
        "server_header": False,
        "date_header": False,
    }
    return Server(uvicorn.Config(app, **plain, **settings))


def run_until_told(
    server: Any, serve: Callable[[], Coroutine[Any, Any, None]], told: Callable[[], None]
) -> None:
    """Run a server's coroutine on uvloop where it is installed, as kserve has it.

    Args:
        server: From `uvicorn_server`.
        serve: Serves until it is done.
        told: Called in the event loop at each SIGTERM and SIGINT.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        await serve()

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(run())
