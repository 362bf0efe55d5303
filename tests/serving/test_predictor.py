"""A real KServe server on an ONNX model, over HTTP and gRPC, and from there to the lake."""
# Over 400 lines: every protocol asks the one server that the module starts.

from __future__ import annotations

import base64
import io
import json
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import (
    CLASSES,
    SIZE,
    Server,
    Starter,
    kserve_grpc,
    picture,
    write_bundle,
)
from visionloop.inference import OnnxModel, to_input
from visionloop.media.decode import decode_rgb

JSON = {"Content-Type": "application/json"}
LENGTH = "Inference-Header-Content-Length"


class Setup:
    """A predictor that reports to a collector, and the model to compare with."""

    def __init__(self, folder: Path) -> None:
        starter = Starter(folder)
        self.end = starter.end
        self.events = folder / "lake" / "events"
        bundle = write_bundle(folder / "m1", "model-1", seed=1)
        self.model = OnnxModel.load(bundle)
        self.collector = starter("collect", events=str(self.events), port=0)
        self.server = starter(
            "serve",
            model_uri=str(bundle),
            name="clf",
            http_port=0,
            grpc_port=0,
            events_url=self.collector.url,
            namespace="test",
            inferenceservice="clf-service",
            metadata_headers=["X-Request-Id"],
        )

    def expected(self, *images: bytes) -> np.ndarray:
        batch = np.stack([to_input(decode_rgb(image), SIZE) for image in images])
        return self.model.predict(batch)[0]

    def v1(self, value: Any, **headers: str) -> Any:
        status, body, _ = self.server.post(
            "/v1/models/clf:predict", json.dumps(value).encode(), {**JSON, **headers}
        )
        assert status == 200, body
        return json.loads(body)

    def v2(self, value: Any, tail: bytes = b"", **headers: str) -> tuple[Any, bytes]:
        head = json.dumps(value).encode()
        status, body, got = self.server.post(
            "/v2/models/clf/infer", head + tail, {**JSON, **headers}
        )
        assert status == 200, body
        length = int(got.get(LENGTH.lower(), len(body)))
        return json.loads(body[:length]), body[length:]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    held = Setup(tmp_path_factory.mktemp("predictor"))
    yield held
    held.end()


def rows_of(reply: Any) -> np.ndarray:
    return np.array([row["probabilities"] for row in reply["predictions"]], np.float32)


def output(reply: Any, name: str) -> Any:
    return next(entry for entry in reply["outputs"] if entry["name"] == name)


def b64(image: bytes) -> str:
    return base64.b64encode(image).decode()


# --- V1 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "image/jpeg"}, JSON])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_v1_takes_an_image_as_it_is(setup: Setup, form: str, headers: dict[str, str]) -> None:
    image = picture(1, form=form, size=20)
    status, body, _ = setup.server.post("/v1/models/clf:predict", image, headers)
    reply = json.loads(body)
    assert status == 200
    assert np.array_equal(rows_of(reply), setup.expected(image))
    (row,) = reply["predictions"]
    assert row["label"] == CLASSES[int(np.argmax(row["probabilities"]))]
    assert row["score"] == max(row["probabilities"])
    assert reply["model_id"] == "model-1"
    assert "embedding" not in row


def test_v1_takes_base64_in_both_spellings_and_batches(setup: Setup) -> None:
    images = [picture(n) for n in range(3)]
    reply = setup.v1(
        {"instances": [{"b64": b64(images[0])}, {"image": {"b64": b64(images[1])}}, b64(images[2])]}
    )
    assert np.array_equal(rows_of(reply), setup.expected(*images))


def test_v1_takes_lists_of_pixels(setup: Setup) -> None:
    image = picture(4)
    pixels = decode_rgb(image)
    reply = setup.v1({"instances": [pixels.tolist(), {"image": pixels.tolist()}]})
    assert np.array_equal(rows_of(reply), setup.expected(image, image))
    assert len(setup.v1({"instances": [pixels[:, :, 0].tolist()]})["predictions"]) == 1


def test_the_embedding_comes_when_it_is_asked_for(setup: Setup) -> None:
    image = picture(5)
    want = setup.model.predict(to_input(decode_rgb(image), SIZE)[None])[1][0]
    by_v1 = setup.v1({"instances": [{"b64": b64(image)}], "parameters": {"embedding": True}})
    assert np.array_equal(np.float32(by_v1["predictions"][0]["embedding"]), want)
    _, body, _ = setup.server.post("/v1/models/clf:predict?embedding=true", image)
    assert np.array_equal(np.float32(json.loads(body)["predictions"][0]["embedding"]), want)
    inputs = [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [b64(image)]}]
    by_parameter, _ = setup.v2({"inputs": inputs, "parameters": {"embedding": True}})
    by_output, _ = setup.v2({"inputs": inputs, "outputs": [{"name": "embedding"}]})
    for reply in (by_parameter, by_output):
        assert np.array_equal(np.float32(output(reply, "embedding")["data"]), want)
    assert [entry["name"] for entry in by_output["outputs"]] == ["embedding"]


# --- V2 over REST -------------------------------------------------------------------------------


def test_v2_takes_tensors_in_json(setup: Setup) -> None:
    images = [picture(n) for n in range(2)]
    pixels = np.stack([decode_rgb(image) for image in images])
    chw = pixels.transpose(0, 3, 1, 2)
    want = setup.expected(*images)
    for datatype, array, nested in (
        ("FP32", chw.astype(np.float32) / np.float32(255), False),
        ("FP32", chw.astype(np.float32) / np.float32(255), True),
        ("FP32", pixels.astype(np.float32) / np.float32(255), False),
        ("UINT8", chw, False),
        ("UINT8", pixels, False),
    ):
        data = array if nested else array.ravel()
        entry = {"name": "image", "shape": list(array.shape), "datatype": datatype}
        reply, _ = setup.v2({"id": "7", "inputs": [entry | {"data": data.tolist()}]})
        got = np.float32(output(reply, "probabilities")["data"]).reshape(2, -1)
        assert np.array_equal(got, want)
        assert (reply["id"], reply["model_version"], reply["model_name"]) == ("7", "model-1", "clf")
        assert output(reply, "label")["data"] == [CLASSES[n] for n in want.argmax(axis=1)]


def test_v2_resizes_a_tensor_of_another_size(setup: Setup) -> None:
    big = np.full((1, 3, 24, 40), 0.25, np.float32)
    entry = {"name": "image", "shape": list(big.shape), "datatype": "FP32"}
    reply, _ = setup.v2({"inputs": [entry | {"data": big.ravel().tolist()}]})
    want = setup.model.predict(np.full((1, 3, SIZE, SIZE), 0.25, np.float32))[0]
    assert np.allclose(output(reply, "probabilities")["data"], want[0], atol=1e-6)


@pytest.mark.parametrize("with_length", [True, False])
def test_v2_takes_raw_tensors_and_answers_raw(setup: Setup, with_length: bool) -> None:
    image = picture(6)
    chw = decode_rgb(image).transpose(2, 0, 1)[None]
    want = setup.expected(image)
    cases = [
        ("FP32", list(chw.shape), (chw.astype("<f4") / np.float32(255)).tobytes()),
        ("UINT8", list(chw.shape), chw.tobytes()),
        ("BYTES", [1], struct.pack("<I", len(image)) + image),
        ("BYTES", [1], struct.pack("<I", len(b64(image))) + b64(image).encode()),
    ]
    for datatype, shape, raw in cases:
        entry = {"name": "image", "shape": shape, "datatype": datatype,
                 "parameters": {"binary_data_size": len(raw)}}  # fmt: skip
        for parameters, outputs in (
            ({"binary_data_output": True}, None),
            (
                {},
                [{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}],
            ),
        ):
            value: dict[str, Any] = {"inputs": [entry], "parameters": parameters}
            if outputs:
                value["outputs"] = outputs
            length = {LENGTH: str(len(json.dumps(value)))} if with_length else {}
            reply, tail = setup.v2(value, raw, **length)
            names = [o["name"] for o in reply["outputs"]]
            assert names == (
                ["probabilities", "label"] if not outputs else ["label", "probabilities"]
            )
            start = 0
            for described in reply["outputs"]:
                size = described.get("parameters", {}).get("binary_data_size", 0)
                if described["name"] == "probabilities":
                    got = np.frombuffer(tail[start : start + size], "<f4")
                    assert np.array_equal(got, want[0])
                start += size
            assert start == len(tail)


def test_metadata_names_the_model(setup: Setup) -> None:
    described = json.loads(setup.server.get("/v2/models/clf"))
    assert described["versions"] == ["model-1"]
    assert described["outputs"][0]["shape"] == [-1, len(CLASSES)]
    assert json.loads(setup.server.get("/v1/models/clf")) == {"name": "clf", "ready": True}
    assert json.loads(setup.server.get("/v2/health/ready")) == {"ready": True}
    assert b"request_predict_seconds" in setup.server.get("/metrics")
    assert b"visionloop_events_delivered" in setup.server.get("/metrics")


# --- mistakes -----------------------------------------------------------------------------------

IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES"}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("v1", b"", "empty"),
        ("v1", b"hello", "neither JSON nor an image"),
        ("v1", b'{"instances": 3}', "`instances`"),
        ("v1", b'{"instances": []}', "`instances`"),
        ("v1", b'{"instances": [{"b64": "aGVsbG8="}]}', "image 0 is unreadable"),
        ("v1", b'{"instances": [{"b64": "***"}]}', "base64"),
        ("v1", b'{"instances": [[1, 2], [3]]}', "instance 0 has shape"),
        ("v1", b'{"instances": [[[0.5, 0.5]]]}', "whole numbers 0..255"),
        ("v1", b'{"instances": [[[300, 1]]]}', "whole numbers 0..255"),
        ("v1", b'{"instances": [{}]}', "no image"),
        ("v1", b'{"instances": [[[1, 2], [3]]]}', "differ in length"),
        ("v1", b"[1]", "object"),
        ("v1", b'{"instances":' + b"[" * 20000, "nested"),
        ("v1", picture(form="JPEG", size=64)[:-300], "truncated"),
        ("v2", b"", "empty"),
        ("v2", b"{}", "list of tensors"),
        ("v2", b'{"inputs": []}', "one input"),
        ("v2", json.dumps({"inputs": [IMAGE | {"data": ["aGVsbG8="]}]}).encode(), "unreadable"),
        ("v2", json.dumps({"inputs": [IMAGE | {"shape": [2], "data": ["aGVsbG8="]}]}).encode(),
         "number of values"),
        ("v2", json.dumps({"inputs": [IMAGE | {"datatype": "FP99", "data": [1]}]}).encode(),
         "datatype"),
        ("v2", json.dumps({"inputs": [IMAGE | {"datatype": "INT64", "data": [1]}]}).encode(),
         "INT64"),
        ("v2", json.dumps({"inputs": [IMAGE | {"datatype": "FP32", "shape": [1, 3, 1, 1],
                                               "data": [7, 0, 0]}]}).encode(), "outside 0..1"),
        ("v2", json.dumps({"inputs": [IMAGE | {"datatype": "FP32", "shape": [1, 2, 1, 1],
                                               "data": [0, 0]}]}).encode(), "[N,3,H,W]"),
        ("v2", json.dumps({"inputs": [IMAGE | {"parameters": {"binary_data_size": 9}}]}).encode(),
         "binary_data_size"),
        ("v2", json.dumps({"inputs": [IMAGE | {"data": [b64(picture())]}],
                           "outputs": [{"name": "nope"}]}).encode(), "no output 'nope'"),
    ],
)  # fmt: skip
def test_a_mistake_is_the_clients_and_says_what_is_wrong(
    setup: Setup, path: str, body: bytes, words: str
) -> None:
    where = "/v1/models/clf:predict" if path == "v1" else "/v2/models/clf/infer"
    for headers in (JSON, {}):
        status, answer, _ = setup.server.post(where, body, headers)
        assert status == 400, answer
        assert words in json.loads(answer)["error"]


def test_another_model_or_version_is_not_found(setup: Setup) -> None:
    assert setup.server.post("/v1/models/nope:predict", picture())[0] == 404
    value = {"inputs": [IMAGE | {"data": [b64(picture())]}]}
    body = json.dumps(value).encode()
    assert setup.server.post("/v2/models/clf/versions/model-1/infer", body, JSON)[0] == 200
    assert setup.server.post("/v2/models/clf/versions/other/infer", body, JSON)[0] == 404


# --- gRPC ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grpc_stub(setup: Setup) -> Iterator[Any]:
    import grpc

    service = kserve_grpc()[1]
    with grpc.insecure_channel(f"127.0.0.1:{setup.server.ports['grpc']}") as channel:
        yield service.GRPCInferenceServiceStub(channel)


def message(datatype: str, shape: list[int], **more: Any) -> Any:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest(model_name=more.pop("model", "clf"), id="g")
    tensor = request.inputs.add(name="image", datatype=datatype, shape=shape)
    if "raw" in more:
        request.raw_input_contents.append(more["raw"])
    else:
        getattr(tensor.contents, more["field"]).extend(more["values"])
    return request


def test_grpc_takes_images_and_tensors(setup: Setup, grpc_stub: Any) -> None:
    image = picture(8)
    chw = decode_rgb(image).transpose(2, 0, 1)[None]
    floats = chw.astype("<f4") / np.float32(255)
    shape = list(chw.shape)
    for request in (
        message("BYTES", [1], field="bytes_contents", values=[image]),
        message("BYTES", [1], field="bytes_contents", values=[b64(image).encode()]),
        message("BYTES", [1], raw=struct.pack("<I", len(image)) + image),
        message("FP32", shape, raw=floats.tobytes()),
        message("FP32", shape, field="fp32_contents", values=floats.ravel().tolist()),
        message("UINT8", shape, raw=chw.tobytes()),
        message("UINT8", shape, field="uint_contents", values=chw.ravel().tolist()),
    ):
        reply = grpc_stub.ModelInfer(request, timeout=10)
        assert (reply.id, reply.model_name, reply.model_version) == ("g", "clf", "model-1")
        got = np.frombuffer(reply.raw_output_contents[0], "<f4")
        assert np.array_equal(got, setup.expected(image)[0])
    request.parameters["embedding"].bool_param = True
    reply = grpc_stub.ModelInfer(request, timeout=10)
    assert [entry.name for entry in reply.outputs] == ["probabilities", "label", "embedding"]


def test_grpc_names_mistakes(setup: Setup, grpc_stub: Any) -> None:
    import grpc

    for request, code in (
        (message("BYTES", [1], raw=b"\x01"), grpc.StatusCode.INVALID_ARGUMENT),
        (message("BYTES", [1], field="bytes_contents", values=[b"hello"]),
         grpc.StatusCode.INVALID_ARGUMENT),
        (message("FP32", [1, 3, 8, 9], raw=b"1234"), grpc.StatusCode.INVALID_ARGUMENT),
        (message("BYTES", [1], model="nope", raw=b""), grpc.StatusCode.NOT_FOUND),
    ):  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            grpc_stub.ModelInfer(request, timeout=10)
        assert caught.value.code() == code


def test_grpc_answers_health_and_metadata(setup: Setup, grpc_stub: Any) -> None:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    assert grpc_stub.ServerReady(pb.ServerReadyRequest(), timeout=10).ready
    assert grpc_stub.ModelReady(pb.ModelReadyRequest(name="clf"), timeout=10).ready
    described = grpc_stub.ModelMetadata(pb.ModelMetadataRequest(name="clf"), timeout=10)
    assert list(described.versions) == ["model-1"]


# --- from the client to the lake ----------------------------------------------------------------


def test_what_is_harvested_is_what_the_clients_got(setup: Setup, grpc_stub: Any) -> None:
    """Of every protocol, with the same ids and bodies as KServe's agent would log."""
    from visionloop.serving.harvesting import harvest_events, see
    from visionloop.serving.segments import Position, Reader, find

    images = [picture(100 + n) for n in range(6)]
    got: dict[str, np.ndarray] = {}
    _, body, _ = setup.server.post("/v1/models/clf:predict", images[0], {"Ce-Id": "e2e-0"})
    got["e2e-0"] = rows_of(json.loads(body))
    reply = setup.v1({"instances": [{"b64": b64(images[1])}]}, **{"Ce-Id": "e2e-1"})
    got["e2e-1"] = rows_of(reply)
    inputs = [IMAGE | {"shape": [2], "data": [b64(images[2]), b64(images[3])]}]
    value, _ = setup.v2({"inputs": inputs}, **{"Ce-Id": "e2e-2", "X-Request-Id": "größe"})
    got["e2e-2"] = np.float32(output(value, "probabilities")["data"]).reshape(2, -1)
    raw = struct.pack("<I", len(images[4])) + images[4]
    inputs = [IMAGE | {"parameters": {"binary_data_size": len(raw)}}]
    value, tail = setup.v2(
        {"inputs": inputs, "parameters": {"binary_data_output": True}}, raw, **{"Ce-Id": "e2e-3"}
    )
    got["e2e-3"] = np.frombuffer(tail[: 4 * len(CLASSES)], "<f4")[None]
    call = grpc_stub.ModelInfer(
        message("BYTES", [1], field="bytes_contents", values=[images[5]]),
        metadata=(("ce-id", "e2e-4"),), timeout=10,
    )  # fmt: skip
    got["e2e-4"] = np.frombuffer(call.raw_output_contents[0], "<f4")[None]
    setup.server.post("/v1/models/clf:predict", b"broken", {"Ce-Id": "e2e-5"})

    deadline = time.monotonic() + 20
    while True:
        waiting = json.loads(setup.server.get("/visionloop/status"))["events"]["waiting"]
        if waiting <= 4 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    seen = [see(e) for i in find(str(setup.events)) for e in Reader(i, Position()).events()]
    found = harvest_events(seen, [], orphaned_before=datetime.now(UTC))
    rows = {
        (row["event_id"], row["row"]): row
        for row in found.new_confidences.to_pylist()
        if row["event_id"].startswith("e2e-")
    }
    assert {key[0] for key in rows} == set(got)
    for (event_id, row), kept in rows.items():
        assert np.array_equal(np.float32(kept["probabilities"]), got[event_id][row])
        assert kept["model_id"] == "model-1"
        assert (kept["endpoint"], kept["namespace"]) == ("clf-service", "test")
        assert kept["label"] == CLASSES[int(np.argmax(kept["probabilities"]))]
    import hashlib

    samples = [rows[key]["sample_id"] for key in sorted(rows)]
    assert samples == [hashlib.sha256(image).hexdigest() for image in images]
    # A mistake of the client leaves a request without a response, as status 400 does.
    alone = [e for e in seen if e.event_id == "e2e-5"]
    assert [one.kind for one in alone] == ["request"]
    (captured,) = {one.half.metadata for one in seen if one.event_id == "e2e-2" and one.half}
    assert json.loads(captured) == {"X-Request-Id": ["größe"]}


def test_probes_are_not_reported_and_other_paths_are(setup: Setup) -> None:
    import urllib.request

    before = json.loads(setup.server.get("/visionloop/status"))["events"]
    for _ in range(5):
        probe = urllib.request.Request(
            setup.server.url + "/v2/health/ready", headers={"User-Agent": "kube-probe/1.30"}
        )
        urllib.request.urlopen(probe, timeout=5).read()
    time.sleep(0.3)
    after = json.loads(setup.server.get("/visionloop/status"))["events"]
    # The look at the status before, and the request of this one.
    assert after["delivered"] + after["waiting"] - before["delivered"] - before["waiting"] <= 3


def test_requests_are_worked_on_side_by_side(setup: Setup) -> None:
    from concurrent.futures import ThreadPoolExecutor

    images = [picture(n, form="JPEG", size=400) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(
            pool.map(lambda image: setup.server.post("/v1/models/clf:predict", image), images)
        )
    for image, (status, body, _) in zip(images, replies, strict=True):
        assert status == 200
        assert np.array_equal(rows_of(json.loads(body)), setup.expected(image))


def test_a_taken_port_is_an_error(setup: Setup) -> None:
    from visionloop.errors import InputError
    from visionloop.serving.listening import bind

    with pytest.raises(InputError, match="cannot listen"):
        bind("127.0.0.1", setup.server.ports["http"])


# --- pictures that are small to send and large to decode ----------------------------------------


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A picture of 179 million pixels in 22 KB: a palette with transparency, all of one colour."""
    out = io.BytesIO()
    Image.new("P", (13370, 13370)).save(out, "PNG", transparency=0, compress_level=9)
    assert len(out.getvalue()) < 25_000
    return out.getvalue()


def peak_memory(server: Server) -> int:
    """Return the largest resident memory of a server so far, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def test_a_bomb_is_refused_with_words_and_costs_no_memory(setup: Setup, bomb: bytes) -> None:
    setup.v1({"instances": [{"b64": b64(picture())}]})
    before = peak_memory(setup.server)
    for body in (bomb, json.dumps({"instances": [{"b64": b64(bomb)}] * 50}).encode()):
        status, reply, _ = setup.server.post("/v1/models/clf:predict", body, {})
        assert status == 400
        told = json.loads(reply)["error"]
        assert "image 0 is too large, 13370 by 13370 pixels" in told
        assert "25,000,000" in told
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [b64(bomb)]}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert setup.server.post("/v2/models/clf/infer", body, JSON)[0] == 400
    assert peak_memory(setup.server) - before < 100_000_000


def test_the_largest_pictures_of_a_request_are_decoded_one_at_a_time(setup: Setup) -> None:
    out = io.BytesIO()
    Image.new("P", (5000, 5000)).save(out, "PNG", transparency=0)
    before = peak_memory(setup.server)
    reply = setup.v1({"instances": [{"b64": b64(out.getvalue())}] * 4})
    assert len(reply["predictions"]) == 4
    # One of them takes 25 million times 4 bytes twice; four at once would be a gigabyte.
    assert peak_memory(setup.server) - before < 500_000_000


def test_how_many_pixels_are_taken_is_an_option(tmp_path: Path) -> None:
    starter = Starter(tmp_path)
    bundle = write_bundle(tmp_path / "m1", "model-1", seed=1)
    try:
        server = starter(
            "serve",
            model_uri=str(bundle),
            name="clf",
            http_port=0,
            grpc_port=None,
            max_pixels=20 * 20,
        )
        assert server.post("/v1/models/clf:predict", picture(size=20))[0] == 200
        assert server.post("/v1/models/clf:predict", picture(size=21))[0] == 400
    finally:
        starter.end()


def test_the_pixels_of_a_whole_request_are_bounded() -> None:
    from visionloop.serving.payloads import BadRequest, prepare

    image = picture(size=20)
    assert len(prepare([image] * 41, SIZE, max_pixels=400)) == 41
    with pytest.raises(BadRequest, match="send fewer images"):
        prepare([image] * 42, SIZE, max_pixels=400)


def test_a_jpeg_is_reduced_as_in_training_and_not_by_its_decoder() -> None:
    from visionloop.serving.payloads import prepare

    image = picture(3, size=256, form="JPEG")
    assert np.array_equal(prepare([image], SIZE)[0], to_input(decode_rgb(image), SIZE))


def test_the_command_line_has_the_servers_default() -> None:
    import argparse
    from dataclasses import asdict

    from visionloop.cli import serve
    from visionloop.serving.predictor import Limits

    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    told = vars(parser.parse_args(["--model", "m"]))
    assert {name: told[name] for name in asdict(Limits())} == asdict(Limits())
    assert parser.parse_args(["--model", "m", "--max-pixels", "9"]).max_pixels == 9
