"""Bodies that nobody recorded: other models, other servers, other mistakes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import zlib
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import picture
from visionloop.serving.requests import decode_request
from visionloop.serving.responses import Response, decode_response

FLAT = [0.25, 0.5, 0.25]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def v1(predictions: Any, **more: Any) -> Response:
    return decode_response(json.dumps({"predictions": predictions, **more}).encode())


def v2(*outputs: dict[str, Any], tail: bytes = b"", **more: Any) -> Response:
    head = {"model_name": "m", "id": "1", "outputs": list(outputs), **more}
    return decode_response(json.dumps(head).encode() + tail)


def fp32(name: str, values: Any) -> dict[str, Any]:
    array = np.asarray(values, np.float64)
    return {
        "name": name,
        "datatype": "FP32",
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def values(answer: Response) -> list[list[float]]:
    assert answer.probabilities is not None, answer.problem
    assert answer.probabilities.dtype == np.float32
    return answer.probabilities.tolist()


# --- replies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["probabilities", "probs", "softmax", "output_0", "dense_3"])
def test_the_distribution_is_found_whatever_it_is_called_and_wherever_it_stands(name: str) -> None:
    others = [
        fp32("embedding", [[0.6, 0.8]]),
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["b"]},
        {"name": "class_id", "datatype": "INT64", "shape": [1], "data": [1]},
        fp32("logits", [[1.0, 3.0, -2.0]]),
    ]
    for place in range(len(others) + 1):
        outputs = [*others[:place], fp32(name, [FLAT]), *others[place:]]
        answer = v2(*outputs)
        assert values(answer) == [FLAT]
        assert answer.labels == ("b",)


def test_two_heads_of_which_none_is_named_are_not_guessed() -> None:
    assert v2(fp32("species", [FLAT]), fp32("age", [[0.5, 0.5]])).problem == "ambiguous_outputs"
    assert values(v2(fp32("age", [[0.5, 0.5]]), fp32("probs", [FLAT]))) == [FLAT]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: v2(fp32("probs", [[0.9]])), "single_score"),
        (lambda: v2(fp32("probs", [[1.0], [1.0]])), "single_score"),
        (lambda: v2(fp32("scores", [0.9, 0.8, 0.7])), "single_score"),
        (lambda: v1([0.9, 0.3]), "single_score"),
        (lambda: v1([{"label": "cat", "score": 0.9}]), "top_k_only"),
        (lambda: v1([[{"label": "a", "score": 0.6}, {"label": "b", "score": 0.1}]]), "top_k_only"),
        (lambda: v1(["cat", "dog"]), "label_only"),
        (lambda: v1([3, 1]), "label_only"),
        (lambda: v1([{"label": "cat"}]), "label_only"),
        (lambda: v1([[2.0, -1.0, 0.1]]), "not_probabilities"),
        (lambda: v1([[1.2, -0.2]]), "not_probabilities"),
        (lambda: v1([[0.5, 0.4]]), "sum_not_1"),
        (lambda: v1([FLAT, [0.5, 0.5]]), "ragged"),
        (lambda: v1([]), "no_rows"),
        (lambda: v1({"a": 1}), "no_predictions"),
        (lambda: v1(None), "no_predictions"),
        (lambda: v1([[0.5, None]]), "not_numbers"),
        (lambda: v1([["0.5", "0.5"]]), "not_numbers"),
        (lambda: v2(fp32("mask", np.full((1, 2, 4, 4), 0.5))), "no_probabilities"),
        (lambda: v2({"name": "label", "datatype": "BYTES", "shape": [1], "data": ["x"]}),
         "label_only"),
        (lambda: v2(fp32("probs", [FLAT]) | {"shape": [10**12, 10**12]}), "shape_mismatch"),
        (lambda: decode_response(b'{"predictions":[[1e400,0.5]]}'), "not_finite"),
        (lambda: decode_response(b'{"predictions":[[NaN,0.5]]}'), "not_finite"),
        (lambda: decode_response(b'{"error":"overloaded"}'), "error_reply"),
        (lambda: decode_response(b'{"explanations":[1]}'), "no_predictions"),
        (lambda: decode_response(b""), "response_empty"),
        (lambda: decode_response(b"", "application/grpc"), "grpc_error"),
        (lambda: decode_response(b'"ok"'), "not_an_object"),
        (lambda: decode_response(b'{"predictions":[[0.5,' + b"[" * 20000), "nested_too_deep"),
    ],
)  # fmt: skip
def test_what_is_no_distribution_is_rejected_with_its_reason(answer: Any, reason: str) -> None:
    assert answer().problem == reason
    assert answer().probabilities is None


def test_the_tolerance_is_a_thousandth() -> None:
    assert values(v1([[0.5, 0.5009]])) == [[0.5, float(np.float32(0.5009))]]
    assert v1([[0.5, 0.5011]]).problem == "sum_not_1"


@pytest.mark.parametrize(
    "predictions",
    [
        [{"cat": 0.25, "ant": 0.5, "bee": 0.25}],
        [[{"label": "ant", "score": 0.5}, {"label": "cat", "score": 0.25},
          {"label": "bee", "score": 0.25}]],
        [{"label": "ant", "probabilities": {"bee": 0.25, "cat": 0.25, "ant": 0.5}}],
    ],
)  # fmt: skip
def test_replies_that_name_their_classes_are_put_in_one_order(predictions: Any) -> None:
    answer = v1(predictions)
    assert values(answer) == [[0.5, 0.25, 0.25]]
    assert answer.classes == ("ant", "bee", "cat")
    assert answer.labels == ("ant",)


def test_a_flat_distribution_is_one_row() -> None:
    assert values(v1(FLAT)) == [FLAT]
    assert values(v2(fp32("probs", FLAT))) == [FLAT]
    assert values(v2(fp32("probs", [[[[p]] for p in FLAT]]))) == [FLAT]


def test_columns_as_tensorflow_serving_answers_them() -> None:
    assert values(v1({"probabilities": [FLAT, FLAT], "classes": [1, 1]})) == [FLAT, FLAT]


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "BF16"])
def test_raw_outputs_of_every_float_type(datatype: str) -> None:
    raw = {
        "FP64": np.array(FLAT, "<f8").tobytes(),
        "FP32": np.array(FLAT, "<f4").tobytes(),
        "FP16": np.array(FLAT, "<f2").tobytes(),
        "BF16": (np.array(FLAT, "<f4").view("<u4") >> 16).astype("<u2").tobytes(),
    }[datatype]
    labels = b"\x01\x00\x00\x00b"
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [1],
         "parameters": {"binary_data_size": len(labels)}},
        {"name": "p", "datatype": datatype, "shape": [1, 3],
         "parameters": {"binary_data_size": len(raw)}},
    ]  # fmt: skip
    answer = v2(*outputs, tail=labels + raw)
    assert values(answer) == [FLAT]
    assert answer.labels == ("b",)
    assert answer.protocol == "v2-binary"
    assert v2(*outputs, tail=labels + raw[:-1]).problem == "binary_size"
    assert v2(*outputs, tail=labels + raw + b"x").problem == "binary_size"


def test_a_brace_in_a_string_or_in_the_raw_bytes_does_not_end_the_json() -> None:
    raw = np.array(FLAT, "<f4").tobytes()
    output = {"name": "p}{\"}", "datatype": "FP32", "shape": [1, 3],
              "parameters": {"binary_data_size": len(raw)}}  # fmt: skip
    assert values(v2(output, tail=raw)) == [FLAT]


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zlib.compress,
        lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:]),
        lambda data: __import__("pyarrow").compress(data, codec="zstd", asbytes=True),
        lambda data: (
            __import__("zstandard").compress(data[:20])
            + __import__("zstandard").compress(data[20:])
        ),
    ],
)
def test_bodies_compressed_by_http_are_unpacked(pack: Any) -> None:
    body = json.dumps({"predictions": [FLAT]}).encode()
    assert values(decode_response(pack(body))) == [FLAT]
    image = picture()
    request = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()
    assert decode_request(pack(request)).samples == (sha256(image),)


def test_a_compression_bomb_is_refused_before_it_is_unpacked(monkeypatch: Any) -> None:
    bomb = gzip.compress(b"0" * 400_000_000, compresslevel=1)
    assert decode_response(bomb).problem == "body_too_large"
    assert decode_request(bomb).problem == "request_body_too_large"
    import zstandard

    packed = zstandard.compress(b"0" * 100_000_000)
    assert decode_request(packed).problem == "request_body_too_large"
    assert decode_request(packed[:-5]).problem in (
        "request_body_too_large", "request_compression_invalid"
    )  # fmt: skip
    assert decode_request(b"\x28\xb5\x2f\xfd" + b"\xff" * 50).problem == (
        "request_compression_invalid"
    )
    cut = zstandard.compress(bytes(range(256)) * 100)[:-20]
    assert decode_request(cut).problem == "request_compression_invalid"


def test_names_of_model_and_version() -> None:
    assert v2(fp32("p", [FLAT]), model_version="7").model_id == "7"
    assert v2(fp32("p", [FLAT]), model_version=None).model_id == ""
    assert v1([FLAT], model_id="abc").model_id == "abc"


def test_text_that_is_no_unicode_does_not_hide_the_probabilities() -> None:
    answer = decode_response(b'{"predictions":[{"label":"\\ud800","probabilities":[0.25,0.75]}]}')
    assert values(answer) == [[0.25, 0.75]]
    assert answer.labels == ("?",)


@pytest.mark.parametrize(
    "body",
    [b'{"ready":true}', b'{"live":true}', b'{"models":["m"]}', b'{"name":"m","ready":true}',
     b'{"name":"m","versions":["1"],"platform":"x","inputs":[],"outputs":[{"name":"p",'
     b'"datatype":"FP32","shape":[-1,3]}]}', b"# HELP x\n", b"<html></html>"],
)  # fmt: skip
def test_what_a_server_answers_beside_inferences_is_told_apart(body: bytes) -> None:
    assert not decode_response(body).inference


def test_detections_keep_their_boxes() -> None:
    reply = v1([{"boxes": [[1, 2, 3, 4]], "scores": [0.9], "labels": ["car"]}, {"boxes": []}])
    assert reply.boxes is not None
    assert reply.boxes[0] == [
        {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4, "label": "car", "scores": [0.9]}
    ]
    assert reply.boxes[1] == []
    both = v2(
        fp32("boxes", np.arange(16).reshape(2, 2, 4)),
        fp32("scores", [[0.9, 0.1], [0.5, 0.4]]),
        {"name": "num_detections", "datatype": "INT32", "shape": [2], "data": [1, 2]},
    )
    assert both.boxes is not None
    assert [len(boxes) for boxes in both.boxes] == [1, 2]


# --- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_image_is_its_hash_however_it_was_sent(form: str) -> None:
    image = picture(form=form)
    b64 = base64.b64encode(image).decode()
    want = (sha256(image),)
    raw = {"name": "x", "shape": [1], "datatype": "BYTES",
           "parameters": {"binary_data_size": len(image) + 4}}  # fmt: skip
    for body in (
        image,
        json.dumps({"instances": [{"b64": b64}]}).encode(),
        json.dumps({"instances": [{"image_bytes": {"b64": b64}, "threshold": 0.5}]}).encode(),
        json.dumps({"instances": [b64]}).encode(),
        json.dumps({"instances": [f"data:image/png;base64,{b64}"]}).encode(),
        json.dumps({"inputs": [
            {"name": "x", "shape": [1], "datatype": "BYTES", "data": [b64]}]}).encode(),
        json.dumps({"inputs": [raw]}).encode() + len(image).to_bytes(4, "little") + image,
        json.dumps({"inputs": [{"name": "x", "shape": [1, len(image)], "datatype": "UINT8",
                                "data": list(image)}]}).encode(),
    ):  # fmt: skip
        assert decode_request(body).samples == want
        assert decode_request(body).problem == ""


def test_tensors_are_hashed_as_they_were_sent() -> None:
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 3)
    request = decode_request(json.dumps({"instances": pixels.tolist()}).encode())
    assert request.tensors == tuple(sha256(row.tobytes()) for row in pixels)
    floats = pixels.transpose(0, 3, 1, 2).astype("<f4") / 255
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3, 4, 4],
                        "data": floats.astype(float).tolist()}]}  # fmt: skip
    request = decode_request(json.dumps(body).encode())
    assert request.tensors == tuple(sha256(row.tobytes()) for row in floats)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "request_empty"),
        (b"hello", "request_not_json"),
        (b'{"instances": [{"b64": "!!!"}]}', "request_base64_invalid"),
        (b'{"instances": [{"b64": "aGVsbG8="}]}', "request_not_an_image"),
        (b'{"instances": []}', "request_no_instances"),
        (b'{"prompt": "hi"}', "request_no_inputs"),
        (b'{"instances":' + b"[" * 20000, "request_nested_too_deep"),
        (b"\x00\x00\x00\xff\xffabc", "request_not_json"),
    ],
)
def test_a_request_that_cannot_be_read_says_why(body: bytes, reason: str) -> None:
    assert decode_request(body).problem == reason


def test_a_bomb_of_pixels_is_only_hashed() -> None:
    header = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (50000).to_bytes(4, "big") * 2
    assert decode_request(header).samples == (sha256(header),)


BODIES = [
    json.dumps({"predictions": [FLAT], "model_id": "m"}).encode(),
    json.dumps({"predictions": [{"label": "a", "probabilities": {"a": 0.5, "b": 0.5}}]}).encode(),
    b'{"predictions": [{"boxes": [[1, 2, 3, 4]], "scores": [0.5], "labels": [1]}]}',
    json.dumps({"outputs": [{"name": "p", "datatype": "FP32", "shape": [1, 3],
                             "parameters": {"binary_data_size": 12}}]}).encode()
    + np.array(FLAT, "<f4").tobytes(),
    json.dumps({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 3, 2, 2],
                            "data": list(range(12))}]}).encode(),
    b'{"instances": [[[[1, 2, 3]]], {"b64": "' + base64.b64encode(picture()) + b'"}]}',
    gzip.compress(b'{"predictions":[[0.5,0.5]]}'),
    b"\0\0\0\0\x58\n\x01m\x12\x07model-1\x1a\x017*\x19\n\rprobabilities\x12\x04FP32\x1a\x02\x01\x04"
    b"*\x11\n\x05label\x12\x05BYTES\x1a\x01\x012\x10" + b"\0\0\x80>" * 4 + b"2\x07\x03\0\0\0dog",
    picture(),
]  # fmt: skip


@settings(max_examples=400, deadline=timedelta(seconds=5))
@given(
    seed=st.integers(0, 2**32),
    noise=st.binary(max_size=64),
    kind=st.sampled_from(["", "application/json", "application/grpc", "image/png"]),
)
def test_no_bytes_make_the_decoder_raise(seed: int, noise: bytes, kind: str) -> None:
    rng = random.Random(seed)
    body = bytearray(rng.choice(BODIES))
    for _ in range(rng.randint(0, 8)):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(4):
            case 0:
                body[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del body[place : place + rng.randint(1, 9)]
            case 2:
                body[place:place] = rng.choice(
                    [b"[", b"{", b"null", b"1e999", b'"', b"-1", b"[]", b"{}", b'"\\ud800"', noise]
                )
            case _:
                body[place:place] = body[: rng.randint(0, 30)]
    for data in (bytes(body), noise):
        decode_request(data, kind)
        answer = decode_response(data, kind)
        if answer.probabilities is not None:
            assert np.isfinite(answer.probabilities).all()
            assert (abs(answer.probabilities.sum(axis=1, dtype=float) - 1) <= 1e-3).all()
