"""Requests at a fixed rate, whether or not the server keeps up, from a process of its own.

Each request has a time at which it is due; its latency counts from there, not from when a
connection was free to send it. So a server that stands still for a second is told as a second for
all that were due meanwhile (no coordinated omission). What was not acknowledged never was: to
refuse at once makes no latency better.
"""

from __future__ import annotations

import collections
import json
import math
import pickle
import selectors
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks._connection import Connection, in_own_process


@dataclass(frozen=True)
class Arrivals:
    """What a run came to.

    Attributes:
        acknowledged: Answered with 200.
        refused: Answered with anything else, or not until three times the time was up.
        seconds: From the first request to the last answer.
        latencies: Seconds from when each request was due to its acknowledgement, infinite where
            there was none, sorted.
        late: Seconds that the generator itself was late at worst.
        own_cpu: Processor seconds of the generator.
    """

    acknowledged: int
    refused: int
    seconds: float
    latencies: list[float]
    late: float
    own_cpu: float

    @property
    def rate(self) -> float:
        """Acknowledged requests a second."""
        return self.acknowledged / self.seconds

    def quantile(self, share: float) -> float:
        """Return a quantile of the latencies, in seconds."""
        return self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


def arrivals(
    port: int, requests: Sequence[bytes], *, rate: float, count: int, connections: int = 64
) -> Arrivals:
    """Send so many requests at a rate, in a process of its own.

    Args:
        port: Of the server on this machine.
        requests: From `http_request`; taken in turn. ``@@@@@@@@@@@@`` in one becomes its number.
        rate: Requests a second.
        count: How many.
        connections: Requests under way at most; more wait, and their waiting counts.
    """
    return Arrivals(
        **in_own_process("benchmarks._open_loop", port, list(requests), rate, count, connections)
    )


_IDLE_SECONDS = 2.0


def _run(port: int, requests: list[bytes], rate: float, count: int, connections: int) -> Arrivals:
    events = selectors.DefaultSelector()
    # As many as are needed at once, as a client has them. A server closes those that stay idle.
    free: list[Connection] = []
    opened = 0
    waiting: collections.deque[int] = collections.deque()
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    latencies: list[float] = []
    began, cpu = time.perf_counter() + 0.05, time.process_time()
    made = answered = 0
    late = 0.0
    end = began + 3 * count / rate + 1.0
    while answered < count:
        now = time.perf_counter()
        if now > end:
            break
        while made < count and began + made / rate <= now:
            late = max(late, now - (began + made / rate))
            waiting.append(made)
            made += 1
        while waiting and (free or opened < connections):
            number = waiting.popleft()
            if free:
                one = free.pop()
                if now - one.since > _IDLE_SECONDS:
                    one.socket.close()
                    one = Connection(port)
            else:
                one, opened = Connection(port), opened + 1
            request = requests[number % len(requests)]
            one.begin(request.replace(b"@" * 12, b"%012d" % number, 1), began + number / rate)
            events.register(one.socket, both if one.unsent else selectors.EVENT_READ, one)
        pause = began + made / rate - time.perf_counter() if made < count else 1.0
        for key, ready in events.select(max(0.0, pause)):
            one = key.data
            if ready & selectors.EVENT_WRITE:
                one.send()
                if not one.unsent:
                    events.modify(one.socket, selectors.EVENT_READ, one)
            if ready & selectors.EVENT_READ and (status := one.receive()):
                answered += 1
                if status == 200:
                    latencies.append(time.perf_counter() - one.since)
                events.unregister(one.socket)
                free.append(one)
    seconds = time.perf_counter() - began
    acknowledged = len(latencies)
    latencies = sorted(latencies) + [math.inf] * (count - acknowledged)
    own = time.process_time() - cpu
    return Arrivals(acknowledged, count - acknowledged, seconds, latencies, late, own)


if __name__ == "__main__":
    print(json.dumps(vars(_run(*pickle.load(sys.stdin.buffer)))))
