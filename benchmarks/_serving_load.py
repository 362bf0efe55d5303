"""Requests to a server as fast as it answers, from a process of its own.

Raw sockets and prepared bodies under one epoll: some 30 µs a request beside the kernel's copying,
so that the server's processors are left to the server. Its processor time is told, for the share
that it took on the same machine.
"""

from __future__ import annotations

import json
import pickle
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What a run of requests came to.

    Attributes:
        requests: Answered with 200 within the time.
        refused: Answered with anything else.
        seconds: From the first request to the last answer.
        latencies: Seconds of each request, in the order of the answers.
        own_cpu: Processor seconds of the generator.
    """

    requests: int
    refused: int
    seconds: float
    latencies: list[float]
    own_cpu: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def http_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a POST request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def load(port: int, requests: list[bytes], *, connections: int, seconds: float) -> Load:
    """Keep so many connections busy, each with one request at a time, in a process of its own.

    Args:
        port: Of the server on this machine.
        requests: From `http_request`; taken in turn.
        connections: How many requests are under way at a time.
        seconds: For how long new ones are sent.
    """
    job = pickle.dumps((port, requests, connections, seconds))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._serving_load"],
        input=job, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    return Load(**json.loads(done.stdout))


class _Connection:
    """One connection with one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.got = bytearray()
        self.began = 0.0

    def begin(self, request: bytes) -> None:
        self.unsent, self.began = memoryview(request), time.perf_counter()
        self.got.clear()
        self.send()

    def send(self) -> None:
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
        self.got += part
        end = self.got.find(_HEAD_END)
        if end < 0:
            return 0
        head = bytes(self.got[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        return int(head[9:12]) if len(self.got) == end + 4 + length else 0


def _run(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    events = selectors.DefaultSelector()
    sent = done = refused = 0
    latencies: list[float] = []
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds

    def begin(one: _Connection) -> None:
        nonlocal sent
        one.begin(requests[sent % len(requests)])
        sent += 1
        events.modify(one.socket, both if one.unsent else selectors.EVENT_READ, one)

    for _ in range(connections):
        one = _Connection(port)
        events.register(one.socket, selectors.EVENT_READ, one)
        begin(one)
    under_way = connections
    while under_way:
        for key, ready in events.select():
            one = key.data
            if ready & selectors.EVENT_WRITE:
                one.send()
                if not one.unsent:
                    events.modify(one.socket, selectors.EVENT_READ, one)
            if not ready & selectors.EVENT_READ or not (status := one.receive()):
                continue
            now = time.perf_counter()
            latencies.append(now - one.began)
            done, refused = done + (status == 200), refused + (status != 200)
            if now < end:
                begin(one)
            else:
                under_way -= 1
                events.unregister(one.socket)
                one.socket.close()
    return Load(done, refused, time.perf_counter() - began, latencies, time.process_time() - cpu)


if __name__ == "__main__":
    print(json.dumps(vars(_run(*pickle.load(sys.stdin.buffer)))))
