"""What the predictor refuses, how it ends, and what its metrics say of it: over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import SIZE, Server, Starter, picture, write_bundle
from visionloop.errors import InputError, VisionloopError
from visionloop.inference.session import SMALLEST, find_providers, start_session
from visionloop.serving.payloads import BadRequest, prepare, read_v1, read_v2
from visionloop.serving.request_counts import REASONS

V1, V2 = "/v1/models/clf:predict", "/v2/models/clf/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    starter = Starter(folder)
    bundle = write_bundle(folder / "m", "model-1", seed=1)
    yield starter(
        "serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
        max_body_bytes=200_000, providers=["cpu"],
    )  # fmt: skip
    starter.end()


def metrics(server: Server) -> dict[str, float]:
    found = re.findall(r"^(visionloop\S+) (\S+)$", server.get("/metrics").decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def error(reply: tuple[int, bytes, Any]) -> tuple[int, str]:
    return reply[0], json.loads(reply[1])["error"]


def tensor(array: np.ndarray, *, name: str = "image") -> tuple[bytes, dict[str, str]]:
    raw = array.tobytes()
    entry = {"name": name, "shape": list(array.shape), "datatype": "FP32",
             "parameters": {"binary_data_size": len(raw)}}  # fmt: skip
    head = json.dumps({"inputs": [entry]}).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(server: Server, bad: float) -> None:
    array = np.full((2, 3, SIZE, SIZE), 0.5, np.float32)
    array[1, 2, 3, 4] = bad
    status, told = error(server.post(V2, *tensor(array)))
    assert status == 400
    assert told == "input 'image' holds NaN or infinity"


def test_an_input_of_another_name_is_refused_by_name(server: Server) -> None:
    body, headers = tensor(np.zeros((1, 3, SIZE, SIZE), np.float32), name="pixels")
    status, told = error(server.post(V2, body, headers))
    assert status == 400
    assert "no input 'pixels'" in told and "`image`" in told


def test_a_body_that_is_too_large_gets_413_whether_its_length_is_said_or_not(
    server: Server,
) -> None:
    assert error(server.post(V1, b"x" * 200_001)) == (413, "the body is larger than 200000 bytes")
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=20)
    connection.request("POST", V1, body=iter([b"x" * 50_000] * 5), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 413
    connection.close()
    # A client that waits for a word gets it before it has sent anything.
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=10) as waiting:
        waiting.sendall(
            f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert waiting.recv(65536).startswith(b"HTTP/1.1 413")
    assert server.post(V1, picture())[0] == 200


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_make_a_request_anything_but_answerable_or_refused(data: st.DataObject) -> None:
    """Requests with bytes replaced, put in and taken out: never another exception."""
    whole, headers = tensor(np.zeros((1, 3, SIZE, SIZE), np.float32))
    json_body = json.dumps(
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="]}],
         "parameters": {"binary_data_output": True}, "outputs": [{"name": "label"}]}
    ).encode()  # fmt: skip
    instances = json.dumps({"instances": [{"b64": "aGk="}, [[1, 2], [3, 4]]]}).encode()
    body = bytearray(
        data.draw(st.sampled_from([whole, json_body, instances, picture(form="JPEG")]))
    )
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    length = data.draw(st.sampled_from([None, *headers.values(), "0", "7", "-1", "x"]))
    for read in (lambda: read_v1(bytes(body)), lambda: read_v2(bytes(body), length)):
        try:
            batch = prepare(read().pictures, SIZE)
        except BadRequest as error:
            assert error.reason in REASONS
        else:
            assert batch.dtype == np.float32 and batch.shape[1:] == (3, SIZE, SIZE)


def test_each_error_is_counted_by_its_reason(server: Server) -> None:
    before = metrics(server)
    asked = {
        "invalid_request": (V1, b"{}"),
        "invalid_image": (V1, picture(form="JPEG", size=64)[:-200]),
        "too_large": (V1, b"x" * 200_001),
        "not_found": ("/v1/models/nope:predict", picture()),
    }
    for path, body in asked.values():
        assert server.post(path, body)[0] >= 400
    server.post(V1, picture())
    after = metrics(server)
    for reason in asked:
        name = f'visionloop_inference_errors_total{{reason="{reason}"}}'
        assert after[name] - before[name] == 1
    for code, number in (("2xx", 1), ("4xx", 4), ("5xx", 0)):
        name = f'visionloop_inference_requests_total{{code="{code}"}}'
        assert after[name] - before[name] == number


def test_the_metrics_tell_stages_batches_and_the_model(server: Server) -> None:
    body = json.dumps({"instances": [np.zeros((SIZE, SIZE, 3), int).tolist()] * 3}).encode()
    before = metrics(server)
    assert server.post(V1, body)[0] == 200
    after = metrics(server)
    for stage in ("decode", "queue", "inference"):
        name = f'visionloop_inference_seconds_count{{stage="{stage}"}}'
        assert after[name] - before[name] == 1
    for name in (
        "visionloop_inference_batch_images_sum",
        'visionloop_inference_images_total{model_id="model-1"}',
    ):
        assert after[name] - before.get(name, 0) == 3
    provider = "CPUExecutionProvider"
    assert after[f'visionloop_model_info{{model_id="model-1",provider="{provider}"}}'] == 1
    assert after["visionloop_inference_under_way"] == 0


def test_every_metric_is_in_the_documentation(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    plain = {name.partition("{")[0] for name in metrics(server)}
    told = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in plain}
    assert len(told) >= 8
    missing = sorted(name for name in told if name not in page)
    assert not missing


# --- more than it can take, and its end ---------------------------------------------------------


def slow_post(server: Server, body: bytes) -> tuple[socket.socket, bytes]:
    """Send all but the last byte of a request."""
    connection = socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20)
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:-1])
    return connection, body[-1:]


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(65536)[9:12])


def under_way(server: Server, number: int) -> None:
    deadline = time.monotonic() + 10
    while metrics(server)["visionloop_inference_under_way"] != number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def over_grpc(server: Server) -> bytes:
    """Ask over gRPC, by bytes: the service is asked for a model of no name."""
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return bytes(ask(b"", timeout=10))


def test_it_ends_in_order(start: Starter, bundle: Path) -> None:
    server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=0,
                   grace_s=15, drain_s=0.7)  # fmt: skip
    began_before, last = slow_post(server, picture(1))
    under_way(server, 1)
    server.process.send_signal(signal.SIGTERM)

    def ready() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=10)
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status

    # Not ready at once, and yet it answers until load balancers have noticed.
    deadline = time.monotonic() + 5
    while ready() != 503:
        assert time.monotonic() < deadline
    assert server.post(V1, picture())[0] == 200
    while (late := server.post(V1, picture()))[0] == 200:
        time.sleep(0.05)
    assert late[0] == 503
    assert "another replica" in json.loads(late[1])["error"]
    with pytest.raises(grpc.RpcError) as caught:
        over_grpc(server)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert server.process.poll() is None
    # What began before is finished, and then it goes.
    began_before.sendall(last)
    assert status_of(began_before) == 200
    assert server.process.wait(timeout=10) == 0


def test_the_end_is_bounded_whatever_clients_do(start: Starter, bundle: Path) -> None:
    server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
                   grace_s=0.5)  # fmt: skip
    never, _ = slow_post(server, picture(1))
    under_way(server, 1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 15
    never.close()


def test_a_second_signal_ends_it_at_once(start: Starter, bundle: Path) -> None:
    server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
                   grace_s=600)  # fmt: skip
    never, _ = slow_post(server, picture(1))
    under_way(server, 1)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.process.poll() is None
    assert server.stop() == 0
    never.close()


def test_a_stalled_or_dead_sink_does_not_slow_the_endpoint(start: Starter, bundle: Path) -> None:
    """The sink accepts and never answers: the worst that it can do."""
    with socket.create_server(("127.0.0.1", 0)) as sink:
        stop = threading.Event()
        server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
                       events_url=f"http://127.0.0.1:{sink.getsockname()[1]}")  # fmt: skip
        seconds = []
        for n in range(60):
            began = time.monotonic()
            assert server.post(V1, picture(n))[0] == 200
            seconds.append(time.monotonic() - began)
        stop.set()
        assert sorted(seconds)[30] < 0.5
        told = json.loads(server.get("/visionloop/status"))["events"]
        assert told["waiting"] + sum(told["dropped"].values()) >= 118
        server.process.kill()


def test_it_is_not_ready_before_a_model_has_answered(start: Starter, tmp_path: Path) -> None:
    from visionloop.serving.pointer import Pointer, write_pointer

    pointer = str(tmp_path / "clf.json")
    broken = write_bundle(tmp_path / "broken", "model-x", broken=True)
    write_pointer(pointer, Pointer("model-x", str(broken), "", ""))
    server = start("serve", model_uri=pointer, name="clf", http_port=0, grpc_port=None)
    status, told = error(server.post(V1, picture()))
    assert status == 503
    assert "ONNX" in told
    with pytest.raises(OSError, match="503"):
        server.get("/v2/health/ready")
    assert metrics(server)['visionloop_inference_errors_total{reason="not_ready"}'] == 1


# --- providers ----------------------------------------------------------------------------------


def test_a_provider_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    from visionloop.serving.predictor import run_server

    for name, words in (
        ("OpenVINO", "has no OpenVINOExecutionProvider"),
        ("tensorrtexecutionprovider", "has no TensorrtExecutionProvider"),
        ("nope", "knows no execution provider 'nope'"),
    ):
        with pytest.raises(InputError, match=words):
            run_server(str(tmp_path / "p.json"), "clf", 0, None, providers=[name])
    with pytest.raises(InputError, match="key=value"):
        find_providers(["cpu:fast"])


def test_providers_are_taken_by_short_names_with_options() -> None:
    assert find_providers(["CPU", "cpuExecutionProvider:arena=1,b=2"]) == [
        ("CPUExecutionProvider", {}),
        ("CPUExecutionProvider", {"arena": "1", "b": "2"}),
    ]
    session = start_session(SMALLEST, where="here", providers=["cpu"])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_provider_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would go on without it, and log it only."""
    import onnxruntime

    held = onnxruntime.get_available_providers()
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [*held, "DnnlExecutionProvider"]
    )
    with pytest.raises(VisionloopError, match="cannot use DnnlExecutionProvider"):
        start_session(SMALLEST, where="here", providers=["dnnl"])


@pytest.mark.parametrize("name", ["runs", "max_batch", "max_pixels", "max_body_bytes", "grace_s"])
def test_a_limit_that_is_too_small_is_refused(name: str) -> None:
    from visionloop.serving.predictor import run_server

    with pytest.raises(InputError, match=f"{name} -1"):
        run_server("m", "clf", 0, None, **{name: -1})


def test_the_configuration_becomes_options_of_the_command() -> None:
    import argparse

    from pydantic import ValidationError

    from visionloop.cli import serve
    from visionloop.serving.config import PredictorConfig

    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    wanted = PredictorConfig(
        providers=["TensorRT:trt_fp16_enable=1", "CUDA"], max_batch=4, max_delay_ms=0.5, drain_s=3
    )
    args = parser.parse_args(["--model", "m", *wanted.arguments])
    assert args.provider == wanted.providers
    assert (args.max_batch, args.max_delay_ms, args.drain_s) == (4, 0.5, 3)
    args = parser.parse_args(["--model", "m", *PredictorConfig().arguments])
    assert (args.provider, args.max_batch, args.max_delay_ms, args.drain_s) == ([], 16, 2, 5)
    with pytest.raises(ValidationError, match="no execution provider"):
        PredictorConfig(providers=["OpenVINO:fast"])
