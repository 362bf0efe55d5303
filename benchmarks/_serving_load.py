"""Requests to a server as fast as it answers, from a process of its own.

Raw sockets and prepared bodies under one epoll: some 30 µs a request beside the kernel's copying,
so that the server's processors are left to the server. Its processor time is told, for the share
that it took on the same machine.
"""

from __future__ import annotations

import json
import pickle
import selectors
import sys
import time
from dataclasses import dataclass

from benchmarks._connection import Connection, in_own_process


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


def load(port: int, requests: list[bytes], *, connections: int, seconds: float) -> Load:
    """Keep so many connections busy, each with one request at a time, in a process of its own.

    Args:
        port: Of the server on this machine.
        requests: From `http_request`; taken in turn.
        connections: How many requests are under way at a time.
        seconds: For how long new ones are sent.
    """
    return Load(**in_own_process("benchmarks._serving_load", port, requests, connections, seconds))


def _run(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    events = selectors.DefaultSelector()
    sent = done = refused = 0
    latencies: list[float] = []
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds

    def begin(one: Connection) -> None:
        nonlocal sent
        one.begin(requests[sent % len(requests)], time.perf_counter())
        sent += 1
        events.modify(one.socket, both if one.unsent else selectors.EVENT_READ, one)

    for _ in range(connections):
        one = Connection(port)
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
            latencies.append(now - one.since)
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
