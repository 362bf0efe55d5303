"""What anybody may send is read within bounds of memory and time: by predictor, reducer, harvest.

Each body is read in a process of its own, a fork, of which the kernel tells the most memory it had.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard

from tests.serving.conftest import Starter, kserve_grpc, picture
from visionloop.serving.bodies import MAX_VALUES, Undecodable, parse_json, unpack
from visionloop.serving.payloads import BadRequest, read_v1, read_v2
from visionloop.serving.protobuf import looks_framed, parse_message
from visionloop.serving.requests import decode_request
from visionloop.serving.responses import decode_response

ROOT = Path(__file__).parents[2]
MEBIBYTE = 1024 * 1024

_MEASURE = """
import os, resource, sys, time
from pathlib import Path
from tests.serving.test_bounded_bodies import EXPENSIVE
from visionloop.serving.payloads import BadRequest, read_v1, read_v2
from visionloop.serving.protobuf import parse_message
from visionloop.serving.requests import decode_request
from visionloop.serving.responses import decode_response

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

def predicted(read):
    try:
        read()
    except BadRequest:
        pass

decode_request(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}')
decode_response(b"\\0\\0\\0\\0\\3\\x0a\\1m")
for line in sys.stdin:
    if os.fork():
        if os.wait()[1]:
            print("[]", flush=True)
        continue
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    body = EXPENSIVE[line.strip()]()
    before, began = peak(), time.process_time()
    decode_request(body)
    decode_response(body)
    predicted(lambda: read_v1(body))
    predicted(lambda: read_v2(body, None))
    print([len(body) / 2**20, peak() - before, time.process_time() - began], flush=True)
    os._exit(0)
"""

# Of a body of a mebibyte and more so many times its length; less may take so many mebibytes.
_TIMES, _LEAST, _SECONDS = 60, 24, 20


def _listed(what: bytes, *parts: bytes) -> bytes:
    """Return a body whose one key holds a list of a list."""
    return b'{"' + what + b'":[[' + b"".join(parts) + b"]]}"


def _raw(datatype: str, size: int) -> bytes:
    """Return a body with as many zeros in a raw tensor, said to be a quarter as many values."""
    entry = {"name": "image", "datatype": datatype, "shape": [size // 4],
             "parameters": {"binary_data_size": size}}  # fmt: skip
    return json.dumps({"inputs": [entry]}).encode() + bytes(size)


def v2(shape: list[Any], data: Any, datatype: str = "FP32") -> bytes:
    entry = {"name": "image", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [entry]}).encode()


def _text(size: int) -> bytes:
    return b'"' + b"x" * size + b'"'


EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "a long text beside numbers": lambda: _listed(b"instances", _text(20_000), b",1" * 10_000),
    "a long text beside probabilities": lambda: _listed(
        b"predictions", _text(50_000), b",1" * 50_000
    ),
    "a long text beside numbers of a tensor": lambda: v2([1], ["x" * 100_000, *[1] * 50_000]),
    "texts of many lengths": lambda: _listed(b"instances", b",".join(map(_text, range(1500)))),
    "members of gzip without content": lambda: gzip.compress(b"") * 100_000,
    "frames of zstd without content": lambda: zstandard.compress(b"") * 200_000,
    "messages of gRPC without content": lambda: bytes(5) * 400_000,
    "tensors of gRPC without content": lambda: b"\0\0\x40\0\0" + b"\x2a\0" * (2 << 20),
    "many zeros, compressed": lambda: gzip.compress(bytes(1 << 29), 1),
    "many numbers, compressed": lambda: gzip.compress(
        _listed(b"instances", b"0", b",0" * (30 << 20)), 1
    ),
    "many objects": lambda: _listed(b"instances", b"{}", b",{}" * (2 << 20)),
    "many lists": lambda: _listed(b"instances", b"[]", b",[]" * (2 << 20)),
    "many numbers": lambda: _listed(b"instances", b"0.5", b",0.5" * (3 << 20)),
    "many probabilities": lambda: _listed(b"predictions", b"0.5", b",0.5" * (3 << 20)),
    "rows of one number": lambda: b'{"instances":[[1]' + b",[1]" * 100_000 + b"]}",
    "probabilities of many rows": lambda: b'{"predictions":[[0,1]' + b",[0,1]" * 100_000 + b"]}",
    "a raw tensor of rows of one number": lambda: _raw("FP32", 8 * MEBIBYTE),
    "a raw tensor of empty texts": lambda: _raw("BYTES", 8 * MEBIBYTE),
    "a deep nest": lambda: b'{"instances":' + b"[" * 1000 + b"1" + b"]" * 1000 + b"}",
    "a nest too deep": lambda: b'{"instances":' + b"[" * 2_000_000,
    "many nests": lambda: _listed(
        b"instances", b"1", (b"," + b"[" * 60 + b"1" + b"]" * 60) * 3_000
    ),
    "a huge integer": lambda: _listed(b"instances", b"9" * 2_000_000),
    "a huge integer that orjson refuses": lambda: _listed(b"instances", b"NaN,", b"9" * 2_000_000),
    "a number of many digits": lambda: _listed(b"instances", b"NaN,0.", b"9" * 2_000_000),
    "many escapes": lambda: _listed(b"instances", b'"', b"\\\\" * 1_000_000, b'"'),
}


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """A process that reads bodies, and says the size, the memory and the seconds of each."""
    command = [sys.executable, "-c", _MEASURE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        yield process


@pytest.mark.parametrize("name", EXPENSIVE)
def test_no_short_body_takes_long_or_much_memory(reader: subprocess.Popen[str], name: str) -> None:
    assert reader.stdin and reader.stdout
    reader.stdin.write(name + "\n")
    reader.stdin.flush()
    size, memory, seconds = json.loads(reader.stdout.readline())
    assert memory < max(_LEAST, _TIMES * size)
    assert seconds < _SECONDS


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (v2([2], [1, "x"]), "request_not_numbers"),
        (v2([2], [1, None]), "request_not_numbers"),
        (v2([2], [[1], 2]), "request_ragged"),
        (v2([3], [[1], [2, 3]]), "request_ragged"),
        (v2([0, 1 << 62, 1 << 62], []), "request_shape_invalid"),
        (v2([], [1]), "request_not_an_image"),
        (v2([1 << 17], [0] * (1 << 17)), "request_too_many_rows"),
        (b'{"instances":[' + b"0," * MAX_VALUES + b"0]}", "request_too_many_values"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(body: bytes, reason: str) -> None:
    assert decode_request(body).problem == reason


def test_a_body_of_as_many_values_as_it_may_have_is_read() -> None:
    body = b'{"instances":[[' + b"0," * (MAX_VALUES - 100) + b"0]]}"
    assert decode_request(body).rows == 1
    with pytest.raises(BadRequest, match="4,000,000 values") as caught:
        read_v1(body.replace(b"]]", b",0" * 200 + b"]]"))
    assert caught.value.reason == "too_large"


def test_raw_tensors_are_no_values_whatever_their_bytes_look_like() -> None:
    """Pixels of 44 are commas. The JSON ends before the first byte that no JSON has."""
    shape = [1, 3, 1500, 1500]
    pixels = b"\x00" + b",[{" * (2_250_000 - 1) + b",,"
    entry = {"name": "image", "datatype": "UINT8", "shape": shape,
             "parameters": {"binary_data_size": len(pixels)}}  # fmt: skip
    head = json.dumps({"inputs": [entry]}).encode()
    assert decode_request(head + pixels).rows == 1
    assert len(read_v2(head + pixels, None).pictures) == 1
    # With its length said, not even that is needed.
    assert len(read_v2(head + b"," + pixels[1:], str(len(head))).pictures) == 1


@pytest.mark.parametrize("given", [{"a": 1}, ["a"], 7, True])
def test_the_id_of_a_request_is_a_string(given: object) -> None:
    body = json.loads(v2([1], ["aGk="], "BYTES"))
    with pytest.raises(BadRequest, match="`id` must be a string"):
        read_v2(json.dumps({**body, "id": given}).encode(), None)
    assert read_v2(json.dumps({**body, "id": None}).encode(), None).request_id == ""


def test_many_streams_in_one_body_are_refused() -> None:
    assert unpack(gzip.compress(b"ab") * 16) == b"ab" * 16
    with pytest.raises(Undecodable, match="compression_invalid"):
        unpack(gzip.compress(b"ab") * 17)


def test_a_message_of_grpc_is_weighed_before_it_is_parsed() -> None:
    pb = kserve_grpc()[0]
    request = pb.ModelInferRequest(model_name="clf")
    request.raw_input_contents.append(bytes(32 * MEBIBYTE))
    tensor = request.inputs.add(name="image", datatype="FP32", shape=[1])
    assert parse_message(request.SerializeToString(), request=True).model_name == b"clf"
    del request.raw_input_contents[:]
    tensor.contents.fp32_contents.extend([0.5] * 100_000)
    tensor.contents.bytes_contents.extend([b""] * 100 + [bytes(MEBIBYTE)] * 4)
    assert len(parse_message(request.SerializeToString(), request=True).tensors) == 1
    good = request.SerializeToString()
    long = pb.InferParameter(string_param="x" * 1_100_000)
    for contents, parameters, inner in (
        ({"bytes_contents": [b""] * (1 << 16)}, {}, {}),
        ({"int_contents": [1] * (MAX_VALUES + 1)}, {}, {}),
        ({}, {"p": long}, {}),
        ({}, {}, {"p": long}),
    ):
        more = pb.ModelInferRequest(parameters=parameters)
        more.inputs.add(contents=pb.InferTensorContents(**contents), parameters=inner)
        with pytest.raises(Undecodable, match="too_many_values"):
            parse_message(good + more.SerializeToString(), request=True)


@pytest.mark.parametrize(
    "payload", [b"\x80", b"\x0a\x05ab", b"\x0b", b"\x0d\0", b"\xff" * 12, b"\x2a\x03\x2a\x05a"]
)
def test_a_message_of_grpc_that_is_cut_is_told(payload: bytes) -> None:
    with pytest.raises(Undecodable, match="grpc_invalid"):
        parse_message(payload, request=True)


def test_an_inference_is_a_few_messages_of_grpc() -> None:
    assert looks_framed(bytes(5) * 16)
    assert not looks_framed(bytes(5) * 17)
    assert decode_request(bytes(5) * 17).problem == "request_not_json"
    assert decode_response(bytes(5) * 17, "application/grpc").problem == "too_many_values"


def test_json_of_few_values_may_be_long() -> None:
    text = "," * 100
    assert parse_json(json.dumps(["x" * (8 * MEBIBYTE), text]).encode())[0][1] == text


def test_a_predictor_stays_small_whatever_it_is_sent(start: Starter, bundle: Path) -> None:
    server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=0)
    status = Path(f"/proc/{server.process.pid}/status")

    def peak(of: str = "VmHWM:") -> int:
        return int(status.read_text().partition(of)[2].split()[0]) // 1024

    assert server.post("/v1/models/clf:predict", picture())[0] == 200
    before = peak()
    for name in ("a long text beside numbers", "many numbers", "many probabilities", "many lists"):
        body = EXPENSIVE[name]()
        for path in ("/v1/models/clf:predict", "/v2/models/clf/infer"):
            assert server.post(path, body)[0] == 400
    assert peak() - before < 400
    # An error over gRPC holds nobody's message.
    garbage, seen = b"\xff" * (40 * MEBIBYTE), []
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(8):
            with pytest.raises(grpc.RpcError, match="is no ModelInferRequest"):
                ask(garbage, timeout=20)
            seen.append(peak("VmRSS:"))
    assert seen[-1] - seen[1] < 4 * 40
    assert server.post("/v1/models/clf:predict", picture())[0] == 200
