"""What the load generators share: requests as bytes, connections, and a process of their own."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_HEAD_END = b"\r\n\r\n"


def http_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a POST request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def in_own_process(module: str, *job: Any) -> dict[str, Any]:
    """Run a module with a job, pickled, as its input; return the JSON object that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=pickle.dumps(job), stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


class Connection:
    """A connection to this machine with at most one request under way.

    Attributes:
        socket: Non-blocking.
        unsent: What is left of the request.
        since: When the request's time began to count, by `time.perf_counter`.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.since = 0.0
        self._got = bytearray()

    def begin(self, request: bytes, since: float) -> None:
        """Send a request, or as much of it as the socket takes."""
        self.unsent, self.since = memoryview(request), since
        self._got.clear()
        self.send()

    def send(self) -> None:
        """Send what is left of the request, or as much as the socket takes."""
        while self.unsent:
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except BlockingIOError:
                return

    def receive(self) -> int:
        """Return the status of the answer once it is whole, until then 0."""
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionError("the server closed a connection")
        self._got += part
        end = self._got.find(_HEAD_END)
        if end < 0:
            return 0
        head = bytes(self._got[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        return int(head[9:12]) if len(self._got) == end + len(_HEAD_END) + length else 0
