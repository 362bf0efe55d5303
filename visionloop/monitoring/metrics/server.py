"""Serves a loop's metrics to Prometheus."""

from __future__ import annotations

import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from visionloop.errors import InputError
from visionloop.monitoring.metrics.reader import Reader
from visionloop.serving.listening import announce

# A client that says nothing for so long is let go.
_IDLE_SECONDS = 10.0


def serve(reader: Reader, *, host: str, port: int, port_file: str = "", every: float = 60) -> None:
    """Answer ``/metrics`` and ``/healthz`` until SIGTERM or SIGINT.

    The lake is read by a thread of its own, first at once.

    Args:
        reader: What is told.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        port_file: File that gets ``{"http": port, "pid": …}``; empty for none.
        every: Seconds between two readings.

    Raises:
        InputError: The port is taken, or there is none.
    """
    ending = threading.Event()
    server = bind(reader, host, port)

    def read() -> None:
        reader.refresh()
        while not ending.wait(every):
            reader.refresh()

    def end(*_: object) -> None:
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    threading.Thread(target=read, name="reads the lake", daemon=True).start()
    threading.Thread(target=server.serve_forever, name="answers", daemon=True).start()
    announce("metrics", {"http": server.server_port}, port_file=port_file)
    ending.wait()
    server.shutdown()
    server.server_close()


def bind(reader: Reader, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server that listens and answers once it is told to serve.

    Args:
        reader: What is told.
        host: Address to listen at.
        port: Port; 0 takes a free one.

    Raises:
        InputError: The port is taken, or there is none.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_SECONDS
        server_version = "visionloop"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, reader.text())
            elif path in ("/", "/healthz"):
                self._answer(200, "text/plain; charset=utf-8", b"ok\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"look at /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a scrape every few seconds is no news."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    if not 0 <= port < 1 << 16:
        raise InputError(f"there is no port {port}", where="--port", remedy="Give 0 to 65535")
    try:
        return Server((host, port), Handler)
    except OSError as error:
        raise InputError(
            f"cannot listen: {error.strerror}",
            where=f"{host}:{port}",
            remedy="Choose another port, or 0 for a free one",
        ) from error
