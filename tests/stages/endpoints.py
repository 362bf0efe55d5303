"""Endpoints as a publish and a watch meet them: real HTTP servers that say little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers import answering
from visionloop.serving.pointer import read_pointer


@contextmanager
def endpoint(
    pointer: str, *, refuses: bool = False, after: int = 0, port: int = 0
) -> Iterator[str]:
    """Serve V2 model metadata, following a pointer as a predictor does; yields the address.

    Args:
        pointer: Where the pointer lies.
        refuses: It never has a model.
        after: It has none for so many requests.
        port: Where it listens; 0 takes a free port.
    """
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal asked
            asked += 1
            held = read_pointer(pointer)
            if held is None or refuses or asked <= after:
                self.send_error(404)
                return
            body = json.dumps({"name": "test", "versions": [held.model_id]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    with answering(Handler, port) as address:
        yield f"http://{address}"


@contextmanager
def counting(pages: list[tuple[int, int]]) -> Iterator[str]:
    """Serve a predictor's metrics, a page each time; yields the address.

    Args:
        pages: Of each page, requests that were answered well, and those with an error.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good, bad = pages.pop(0)
            name = "visionloop_inference_requests_total"
            body = f'{name}{{code="2xx"}} {good}\n{name}{{code="5xx"}} {bad}\n'.encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    with answering(Handler) as address:
        yield f"http://{address}"
