"""A collector that is flooded with garbage: it neither crashes nor grows, and accounts for all."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import Server, Starter, picture
from tests.serving.test_collector import children, encoded_request
from tests.serving.test_collector_faults import into_the_lake
from visionloop.lake import Lake
from visionloop.serving.events import events_of

PIXELS = encoded_request(picture(5))
TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "ce-id", "ce-type", "ce-time", "ce-specversion", "content-type", "content-encoding",
            "ce-metadata", "inference-header-content-length", "x-odd", "expect", "upgrade",
        ]
    ),
    st.one_of(
        TOKENS,
        st.sampled_from(
            [
                "org.kubeflow.serving.inference.request",
                "org.kubeflow.serving.inference.response",
                "application/json",
                "application/cloudevents+json",
                "application/cloudevents-batch+json",
                "application/octet-stream",
                "gzip",
                "100-continue",
                "-1",
                "99999999999999999999",
            ]
        ),
    ),
    max_size=6,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda one: (
        st.lists(one, max_size=4)
        | st.dictionaries(
            st.sampled_from(["instances", "inputs", "b64", "data", "shape", "datatype", "name"]),
            one,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=2000),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.integers(0, len(PIXELS)).map(lambda cut: PIXELS[:cut]),
    st.binary(max_size=60).map(lambda data: b"\x1f\x8b\x08" + data),
    st.binary(max_size=60).map(lambda data: b"\x00\x00\x00\x00" + bytes([len(data)]) + data),
    st.binary(max_size=60).map(
        lambda data: json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}).encode()
    ),
)
# What is small, and grows where it is read without care.
DOT = base64.b64encode(picture(1, size=1)).decode()
GROWING = st.one_of(
    st.tuples(st.integers(0, 20_000), st.integers(1, 10_000)).map(
        lambda n: b'{"instances":[["%s"%s]]}' % (b"x" * n[0], b",1" * n[1])
    ),
    st.tuples(st.integers(0, 20_000), st.integers(1, 10_000)).map(
        lambda n: (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":["%s"%s]}]}'
            % (b"x" * n[0], b",1" * n[1])
        )
    ),
    st.integers(1, 4000).map(lambda n: gzip.compress(b"") * n),
    st.integers(1, 400).map(lambda n: json.dumps({"instances": [{"b64": DOT}] * n}).encode()),
    st.integers(1, 40_000).map(lambda n: b"[" * n + b"]" * n),
    st.integers(1, 90_000).map(lambda n: b'{"instances":[%s]}' % (b"9" * n)),
)
INFERENCES = st.sampled_from(["request", "response"]).map(
    lambda kind: {"ce-id": "one", "ce-type": f"org.kubeflow.serving.inference.{kind}"}
)
EVENTS = st.builds(
    lambda kind, value: {"specversion": "1.0", "id": "one", **kind, "data": value},
    st.sampled_from([{}, {"type": "org.kubeflow.serving.inference.response"}, {"type": 7}]),
    JSON,
)
STRUCTURED = st.tuples(
    st.sampled_from(["", "-batch"]).map(
        lambda batch: {"content-type": f"application/cloudevents{batch}+json"}
    ),
    (EVENTS | st.lists(EVENTS | JSON, max_size=5)).map(lambda value: json.dumps(value).encode())
    | st.integers(1, 30_000).map(lambda n: b"[" + b"0," * n + b"0]"),
)
HTTP = st.tuples(HEADERS, BODIES) | st.tuples(INFERENCES, GROWING) | STRUCTURED
TRAILED = {"ce-id": "trailed"}
NO_HTTP = (
    st.binary(min_size=1, max_size=300)
    | st.integers(0, 100).map(
        lambda n: b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % n
    )
    | st.integers(0, 30_000).map(
        lambda n: (
            b"POST / HTTP/1.1\r\nHost: x\r\nCe-Id: trailed\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n%s\r\n" % (b"X-Trailer: more\r\n" * n)
        )
    )
)


def peak(process: int) -> int:
    """Return the most memory that a process ever had, in bytes."""
    told = Path(f"/proc/{process}/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) * 1024


@dataclass
class Sent:
    """The events of a flood, by their digests: those acknowledged, and those where it is not known.

    A connection that breaks may have taken its last event.
    """

    sure: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0


def digests(headers: dict[str, str], body: bytes) -> list[str]:
    return [event.digest for event in events_of(headers, body, received_at=None)]


def flood(server: Server, seconds: float, sent: Sent) -> None:
    """Send garbage, as HTTP and as none, for so long."""
    end = time.monotonic() + seconds
    port = server.ports["http"]

    @settings(
        max_examples=50,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(HTTP, min_size=1, max_size=8), st.none() | NO_HTTP)
    def send(posts: list[tuple[dict[str, str], bytes]], bare: bytes | None) -> None:
        if time.monotonic() > end:
            return
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as to:
            for headers, body in posts:
                to.request("POST", "/", body=body, headers=headers)
                try:
                    reply = to.getresponse()
                    reply.read()
                except (http.client.HTTPException, ConnectionError):
                    sent.unsure.update(digests(headers, body))
                    continue
                assert reply.status in (200, 400, 413, 431)
                if reply.status == 200:
                    sent.sure.update(digests(headers, body))
                    sent.deliveries += 1
        if bare:
            sent.unsure.update(digests(TRAILED, b"") + digests({}, b""))
            plain = socket.create_connection(("127.0.0.1", port), timeout=20)
            with plain, contextlib.suppress(OSError):
                plain.sendall(bare)

    while time.monotonic() < end:
        send()


def flooded(start: Starter, folder: Path, seconds: float) -> None:
    server = start(
        "collect", events=str(folder), port=0, keep="hashes", max_body_bytes=100_000, durable=False
    )
    sent = Sent()
    flood(server, min(3.0, seconds / 4), sent)
    processes = [server.process.pid, *children(server.process.pid)]
    before = [peak(process) for process in processes]
    flood(server, seconds, sent)
    assert server.get("/readyz") == b"ready\n"
    assert [server.process.pid, *children(server.process.pid)] == processes, "the reducer died"
    after = [peak(process) for process in processes]
    for one, other in zip(before, after, strict=True):
        assert other - one < 32 * 1024 * 1024
    assert sent.deliveries > 10 * seconds
    assert server.stop() == 0
    outputs = into_the_lake(folder)
    rows = Lake.open(str(folder.parent), loop="test").read("harvest_events")
    assert outputs.n_events == len(rows)
    found = Counter(rows["line_sha256"].to_pylist())
    assert sent.sure <= found <= sent.sure + sent.unsure


@pytest.mark.slow
def test_garbage_neither_crashes_nor_grows_a_collector_and_all_of_it_is_accounted_for(
    start: Starter, tmp_path: Path
) -> None:
    flooded(start, tmp_path / "lake" / "events", seconds=30)


@pytest.mark.soak
def test_ten_minutes_of_garbage_neither_crash_nor_grow_a_collector(
    start: Starter, tmp_path: Path
) -> None:
    flooded(start, tmp_path / "lake" / "events", seconds=600)
