"""What a client may cost the servers before its request is looked at, over real connections."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from tests.serving.conftest import Server, Starter, kserve_grpc, picture, write_bundle
from tests.serving.test_collector import EVENT, lines
from tests.serving.test_collector_access import Authority, over_tls
from tests.serving.test_collector_room import refused
from visionloop.serving.answering import Answerer, Refused
from visionloop.serving.tap import Tap

V1, V2 = "/v1/models/clf:predict", "/v2/models/clf/infer"
MEBIBYTE = 1024 * 1024
HEADERS = b"".join(b"X-T%05d: " % n + b"y" * 1000 + b"\r\n" for n in range(1000))
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """A predictor that takes two requests at a time and reports them, and its collector."""
    folder = tmp_path_factory.mktemp("http")
    starter = Starter(folder)
    collector = starter("collect", events=str(folder / "events"), port=0)
    bundle = write_bundle(folder / "m", "model-1", seed=1)
    predictor = starter(
        "serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=0, max_waiting=2,
        max_body_bytes=2 * MEBIBYTE, events_url=collector.url,
    )  # fmt: skip
    yield {"collect": collector, "serve": predictor}
    starter.end()


@pytest.fixture
def predictor(servers: dict[str, Server]) -> Server:
    return servers["serve"]


def metrics(server: Server) -> dict[str, float]:
    found = re.findall(r"^(visionloop\S+) (\S+)$", server.get("/metrics").decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def errors(server: Server, reason: str) -> float:
    return metrics(server)[f'visionloop_inference_errors_total{{reason="{reason}"}}']


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=10)


def memory(server: Server) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def eventually(held: Any) -> None:
    deadline = time.monotonic() + 10
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pour(connection: socket.socket, begin: bytes, block: bytes) -> int:
    """Send a beginning and 40 MB after it; return the bytes that were taken."""
    sent = 0
    try:
        connection.sendall(begin)
        for _ in range(40):
            connection.sendall(block)
            sent += len(block)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("what", ["serve", "collect"])
@pytest.mark.parametrize(
    ("begin", "block"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\n", HEADERS),
        (CHUNKED + b"1\r\nx\r\n0\r\n", HEADERS),
        (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"y" * MEBIBYTE),
        (CHUNKED + b"1;", b"y" * MEBIBYTE),
    ],
    ids=["head", "trailers", "one trailer", "chunk's extension"],
)
def test_headers_without_an_end_are_cut_off(
    servers: dict[str, Server], what: str, begin: bytes, block: bytes
) -> None:
    server = servers[what]

    def counted() -> float:
        return (
            errors(server, "too_large") if what == "serve" else refused(server).get("too_large", 0)
        )

    before, cut = memory(server), counted()
    with connect(server) as connection:
        assert pour(connection, begin, block) < 20 * MEBIBYTE
    assert memory(server) - before < 10
    assert counted() == cut + 1
    assert server.post(V1 if what == "serve" else "/", picture(), EVENT)[0] == 200


@pytest.mark.parametrize("what", ["serve", "collect"])
@pytest.mark.parametrize("piece", [50_000, 2_000_000], ids=["in pieces", "at once"])
def test_a_head_that_is_too_large_is_refused_however_it_comes(
    servers: dict[str, Server], what: str, piece: int
) -> None:
    server = servers[what]
    path = V1 if what == "serve" else "/"
    for size, expected in ((200_000, 200), (300_000, 431), (800_000, 431)):
        image = picture()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCe-Id: h\r\nContent-Length: {len(image)}\r\n"
        text = head.encode() + b"X-Long: " + b"y" * size + b"\r\n\r\n" + image
        with connect(server) as connection:
            for start in range(0, len(text), piece):
                try:
                    connection.sendall(text[start : start + piece])
                    time.sleep(0.02)
                except OSError:
                    break
            assert connection.recv(100).startswith(b"HTTP/1.1 %d " % expected), size


def chunked(path: str, body: bytes, trailer: bytes) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nCe-Id: t\r\nConnection: close\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
        + body + b"\r\n0\r\n" + trailer + b"\r\n\r\n"
    )  # fmt: skip


def test_what_follows_a_body_is_no_header(servers: dict[str, Server], tmp_path: Path) -> None:
    entry = {"name": "image", "shape": [1], "datatype": "BYTES",
             "data": [base64.b64encode(picture()).decode()]}  # fmt: skip
    body = json.dumps({"inputs": [entry]}).encode()
    with connect(servers["serve"]) as connection:
        connection.sendall(chunked(V2, body, b"Inference-Header-Content-Length: 99999"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_collector_keeps_no_trailers(start: Starter, tmp_path: Path) -> None:
    server = start("collect", events=str(tmp_path / "events"), port=0)
    with connect(server) as connection:
        connection.sendall(chunked("/", b"x", b"Ce-Type: t"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    server.stop()
    (line,) = lines(tmp_path / "events")
    assert line["headers"]["ce-id"] == "t"
    assert "ce-type" not in line["headers"]


def test_heads_without_a_body_take_nobodys_place(predictor: Server) -> None:
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n".encode()
    idle = [connect(predictor) for _ in range(5)]
    for connection in idle:
        connection.sendall(head)
    eventually(lambda: metrics(predictor)["visionloop_inference_under_way"] == 5)
    assert predictor.post(V1, picture())[0] == 200
    for connection in idle:
        connection.close()
    eventually(lambda: metrics(predictor)["visionloop_inference_under_way"] == 0)


def test_a_client_that_went_away_asked_nothing(predictor: Server) -> None:
    body = picture(form="JPEG", size=64)
    counted = ("visionloop_inference_requests_total", "visionloop_events")
    before, gone = metrics(predictor), errors(predictor, "gone")
    with connect(predictor) as connection:
        head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:-300])
        eventually(lambda: metrics(predictor)["visionloop_inference_under_way"] == 1)
    eventually(lambda: errors(predictor, "gone") == gone + 1)
    after = metrics(predictor)
    for name, value in before.items():
        if name.startswith(counted) and "delivered" not in name and "waiting" not in name:
            assert after[name] == value
    assert errors(predictor, "invalid_image") == before.get(
        'visionloop_inference_errors_total{reason="invalid_image"}'
    )


def flat(side: int) -> str:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def test_requests_are_shed_while_too_many_are_answered(predictor: Server) -> None:
    slow = json.dumps({"instances": [flat(4900)] * 4}).encode()
    answered: list[int] = []
    threads = [
        threading.Thread(target=lambda: answered.append(predictor.post(V1, slow)[0]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: metrics(predictor)["visionloop_inference_under_way"] == 2)
    time.sleep(0.2)  # their bodies are there
    status, body, headers = predictor.post(V1, picture())
    assert (status, headers["retry-after"]) == (503, "1")
    assert "ask again later" in json.loads(body)["error"]
    assert json.loads(predictor.get("/v2/health/ready")) == {"ready": True}
    for thread in threads:
        thread.join()
    assert answered == [200, 200]
    assert predictor.post(V1, picture())[0] == 200


class _Follower:
    model = None
    refusal = None


def tapped(messages: list[dict[str, Any]], **limits: Any) -> list[dict[str, Any]]:
    """Hand a request's messages to a tap, and then nothing; return what it sends."""
    held: Any = _Follower()
    answerer = Answerer("clf", held, held)
    sent: list[dict[str, Any]] = []
    coming = iter(messages)

    async def receive() -> Any:
        for message in coming:
            return message
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})

    scope = {"type": "http", "method": "POST", "path": V1, "headers": []}
    asyncio.run(Tap(app, answerer, None, **limits)(scope, receive, send))
    assert answerer.under_way == 0
    return sent


@pytest.mark.parametrize("parts", [[], [{"type": "http.request", "body": b"x", "more_body": True}]])
def test_a_body_that_does_not_come_is_refused_in_time(parts: list[dict[str, Any]]) -> None:
    assert tapped(parts, body_seconds=0.05)[0]["status"] == 408


def test_a_body_of_many_small_parts_takes_time_in_proportion() -> None:
    def parts(number: int) -> list[dict[str, Any]]:
        return [{"type": "http.request", "body": b"x", "more_body": n < number - 1}
                for n in range(number)]  # fmt: skip

    def seconds(number: int) -> float:
        took = []
        for _ in range(5):
            messages = parts(number)
            began = time.process_time()
            assert tapped(messages)[0]["status"] == 299
            took.append(time.process_time() - began)
        return min(took)

    # Copying all that was read with each part would take a hundred times as long.
    assert seconds(30_000) < 30 * seconds(3_000)


def test_bodies_are_bounded_together() -> None:
    held: Any = _Follower()
    answerer = Answerer("clf", held, held, max_waiting=1)
    with answerer.holding() as hold, answerer.holding() as other:
        assert hold(300 * MEBIBYTE) == 300 * MEBIBYTE
        assert (other(MEBIBYTE), other(MEBIBYTE)) == (MEBIBYTE, 2 * MEBIBYTE)
        with pytest.raises(Refused, match="too many bytes"):
            other(300 * MEBIBYTE)
    with answerer.holding() as hold:
        assert hold(512 * MEBIBYTE)
    with answerer.begun(), answerer.begun(), answerer.admitted():
        assert answerer.under_way == 2
        with pytest.raises(Refused, match="ask again later"), answerer.begun():
            pass
        with pytest.raises(Refused, match="ask again later"), answerer.admitted():
            pass
    assert answerer.under_way == 0


def test_handshakes_of_tls_are_counted_and_end(start: Starter, tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    certificate = ours.issue("collector", tmp_path / "collector.pem")
    server = start(
        "collect", events=str(tmp_path / "e"), port=0, certificate=str(certificate),
        max_connections=10,
    )  # fmt: skip
    assert over_tls(server, ours.path) == 200
    silent = [connect(server) for _ in range(60)]

    def descriptors() -> int:
        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))

    time.sleep(0.5)
    assert descriptors() < 50
    with pytest.raises(OSError):
        over_tls(server, ours.path)
    deadline = time.monotonic() + 15
    while True:  # the handshakes' time is up: there is room again
        try:
            assert over_tls(server, ours.path) == 200
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    for connection in silent:
        connection.close()
    assert server.stop() == 0


# --- gRPC, versions, and what is not offered ----------------------------------------------------


def call(server: Server, method: str, message: Any) -> Any:
    """Call a method of the service; return its reply, or its status."""
    service = kserve_grpc()[1]
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        try:
            return getattr(service.GRPCInferenceServiceStub(channel), method)(message, timeout=10)
        except grpc.RpcError as error:
            return error.code()


def test_a_message_of_grpc_has_the_limits_of_a_body(predictor: Server) -> None:
    pb = kserve_grpc()[0]
    request = pb.ModelInferRequest(model_name="clf")
    request.inputs.add(name="image", datatype="UINT8", shape=[10, 3, 200, 200])
    request.raw_input_contents.append(bytes(10 * 3 * 200 * 200))
    assert call(predictor, "ModelInfer", request).model_version == "model-1"
    request.inputs[0].contents.uint_contents.append(1)
    assert call(predictor, "ModelInfer", request) == grpc.StatusCode.INVALID_ARGUMENT
    request.raw_input_contents[0] = bytes(2 * MEBIBYTE)
    assert call(predictor, "ModelInfer", request) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_versions_are_known_everywhere(predictor: Server) -> None:
    pb = kserve_grpc()[0]
    ready = json.loads(predictor.get("/v2/models/clf/versions/model-1/ready"))
    assert ready == {"name": "clf", "ready": True}
    for path in ("clf/versions/nope/ready", "clf/versions/nope", "nope/versions/model-1/ready"):
        with pytest.raises(OSError, match="404"):
            predictor.get(f"/v2/models/{path}")
    for method, message in (("ModelReady", pb.ModelReadyRequest),
                            ("ModelMetadata", pb.ModelMetadataRequest)):  # fmt: skip
        for version in ("", "model-1"):
            assert call(predictor, method, message(name="clf", version=version)).ByteSize()
        wrong = call(predictor, method, message(name="clf", version="nope"))
        assert wrong == grpc.StatusCode.NOT_FOUND


def test_no_request_loads_or_unloads_a_model(predictor: Server) -> None:
    pb = kserve_grpc()[0]
    for verb in ("load", "unload"):
        status, told, _ = predictor.post(f"/v2/repository/models/clf/{verb}", b"")
        assert status == 400
        assert "publishing" in json.loads(told)["error"]
        message = getattr(pb, f"RepositoryModel{verb.title()}Request")(model_name="clf")
        answer = call(predictor, f"RepositoryModel{verb.title()}", message)
        assert answer == grpc.StatusCode.UNIMPLEMENTED


def test_a_large_request_is_told_as_the_runs_that_it_took(predictor: Server) -> None:
    def runs() -> tuple[float, float]:
        held = metrics(predictor)
        name = 'visionloop_inference_batch_images_bucket{{le="{}"}}'
        return held[name.format("16.0")], held[name.format("+Inf")]

    before = runs()
    body = json.dumps({"instances": [base64.b64encode(picture()).decode()] * 100}).encode()
    assert predictor.post(V1, body)[0] == 200
    after = runs()
    assert [after[n] - before[n] for n in range(2)] == [7, 7]
