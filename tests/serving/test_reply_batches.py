"""Many replies decoded at once answer what each alone answers."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.serving import reply_batches
from visionloop.serving.reply_batches import decode_responses
from visionloop.serving.responses import Response, decode_response


def told(answer: Response) -> dict[str, Any]:
    """Return a reply in a form that compares bit for bit, in the order of its attributes."""
    said = dict(answer.__dict__)
    values = said.pop("probabilities")
    if values is not None:
        said["values"] = values.shape, values.dtype.str, values.tobytes()
    return {name: repr(value) for name, value in said.items()}


def assert_same(bodies: Sequence[bytes], kinds: Sequence[str] | None = None) -> list[Response]:
    kinds = kinds or ["application/json"] * len(bodies)
    found = decode_responses(bodies, kinds)
    for body, kind, answer in zip(bodies, kinds, found, strict=True):
        assert told(answer) == told(decode_response(body, kind)), body[:300]
        assert list(answer.__dict__) == list(Response().__dict__)
    return found


def reply(
    values: Sequence[Any], v2_id: str = "1", *, spaces: bool = True, rows: int = 1, **more: Any
) -> bytes:
    output = {
        "name": "probabilities",
        "shape": [rows, len(values) // max(rows, 1)],
        "datatype": "FP32",
        "data": list(values),
    }
    held = {"model_name": "m", "id": v2_id, "model_version": "7", "outputs": [output | more]}
    return json.dumps(held, separators=None if spaces else (",", ":")).encode()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the bodies that are decoded alone; those of templates are not."""
    monkeypatch.setattr(reply_batches, "_templates", reply_batches._Templates())
    seen: list[bytes] = []
    real = decode_response

    def noted(body: bytes, content_type: str = "") -> Response:
        seen.append(body)
        return real(body, content_type)

    monkeypatch.setattr(reply_batches, "decode_response", noted)
    return seen


@pytest.mark.parametrize("width", [2, 10, 1000])
def test_all_but_the_first_two_of_a_kind_are_decoded_together(
    width: int, alone: list[bytes]
) -> None:
    values = np.random.default_rng(0).dirichlet(np.full(width, 0.3), 300).astype(np.float32)
    bodies = [reply(row.tolist(), f"{n:032x}") for n, row in enumerate(values)]
    found = assert_same(bodies)
    # The first one is met, the second one learnt: with numbers of our own in it.
    assert len(alone) == 2
    assert bodies[1] not in alone
    assert alone.count(bodies[0]) == 1
    assert np.array_equal(np.concatenate([one.probabilities for one in found]), values)
    assert [one.v2_id for one in found] == [f"{n:032x}" for n in range(300)]


def test_replies_of_several_models_with_labels_ahead_or_behind_and_of_batches(
    alone: list[bytes],
) -> None:
    label = {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    flat = {"name": "softmax", "shape": [2], "datatype": "FP64", "data": [0.25, 0.75]}
    kinds = [
        lambda n: reply([0.5, 0.5], n),
        lambda n: reply([0.5, 0.5], n, spaces=False),
        lambda n: reply([0.5, 0.5, 1, 0], n, rows=2),
        lambda n: json.dumps({"id": n, "outputs": [label, flat]}).encode(),
        lambda n: json.dumps({"outputs": [flat, label]}, indent=1).encode(),
        lambda n: json.dumps({"outputs": [flat], "id": "fixed"}).encode(),
    ]
    found = assert_same([kind(str(n)) for n in range(8) for kind in kinds])
    assert not any(one.problem for one in found)
    assert len(alone) == 2 * len(kinds)
    assert {one.v2_id for one in found[5::6]} == {"fixed"}
    assert {one.labels for one in found[3::6]} == {("a",)}


def test_one_bad_reply_does_not_make_its_neighbours_slow(alone: list[bytes]) -> None:
    bodies = [reply([0.25, 0.75], str(n)) for n in range(500)]
    for place, values in ((100, [0.5, 0.6]), (200, [1e30, 0.1]), (300, [-1, 2]), (400, [0.5])):
        bodies[place] = reply(values, "x", shape=[1, 2])
    assert_same(bodies)
    assert len(alone) < 4 * reply_batches._PARTS + 4


def test_as_many_long_replies_as_there_are_are_checked_part_by_part(alone: list[bytes]) -> None:
    # Short numbers with a long rest: more of them than their bytes tell.
    label = {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["x" * 1500]}
    numbers = ",".join(["1", *["0"] * 3999])
    output = f'{{"name":"probs","shape":[1,4000],"datatype":"FP32","data":[{numbers}]}}'
    bodies = [
        f'{{"id":"{n}","outputs":[{output},{json.dumps(label)}]}}'.encode() for n in range(150)
    ]
    bodies[70] = bodies[70].replace(b"[1,0", b"[2,0")
    assert_same(bodies)
    assert len(alone) < 2 + 2 * reply_batches._PARTS


def test_a_long_reply_of_ragged_rows_is_none(alone: list[bytes]) -> None:
    good = [reply([0.5, 0.5, *[0] * 5000], str(n)) for n in range(4)]
    ragged = good[0].replace(b"[0.5, 0.5, 0", b"[[0.5], [0.5, 0").replace(b"0]}", b"0]]}")
    *_, last = assert_same([*good, ragged])
    assert ragged in alone
    assert last.problem == "ragged"


def test_templates_are_bounded(alone: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_batches, "_MOST_TEMPLATES", 3)
    monkeypatch.setattr(reply_batches, "_MOST_MET", 5)
    bodies = [reply([0.25, 0.75], "1", name=f"prob{n // 3}") for n in range(60)]
    assert_same(bodies)
    templates = reply_batches._templates
    assert len(templates._heads) <= 3
    assert len(templates._met) <= 5


PLAIN = reply([0.25, 0.5, 0.25])
GOOD = b'{"id":"1","outputs":[{"name":"p","shape":[1,2],"datatype":"FP32","data":[0.5,0.5]}]}'


def turned(old: bytes, new: bytes, body: bytes = GOOD) -> bytes:
    assert old in body
    return body.replace(old, new)


HOSTILE = [
    turned(b"0.5,0.5", b"0.5,0.5,-1,0.5"),
    turned(b"0.5,0.5", b"0.5"),
    turned(b"0.5,0.5", b"0.5,0.5],[0.5,0.5"),
    turned(b"0.5,0.5", b"[0.5,0.5]"),
    turned(b"0.5,0.5", b"[0.5],[0.25,0.25]"),
    turned(b"0.5,0.5", b"[0.5,0.5"),
    turned(b"0.5,0.5", b'0.5,"'),
    turned(b"0.5,0.5", b'",0.5'),
    turned(b"0.5,0.5", b'{"a":0.5'),
    turned(b"0.5,0.5", b"0.5}"),
    turned(b"0.5,0.5", b""),
    turned(b"0.5,0.5", b",0.5"),
    turned(b"0.5,0.5", b"NaN,0.5"),
    turned(b"0.5,0.5", b"1e400,0.5"),
    turned(b"0.5,0.5", b"true,false"),
    turned(b"0.5,0.5", b"null,1"),
    turned(b"0.5,0.5", b"1,0"),
    turned(b"0.5,0.5", b"1,-0"),
    turned(b"0.5,0.5", b"1.0,-0.0"),
    turned(b"0.5,0.5", b"1,1e-46"),
    turned(b"0.5,0.5", b"01,0"),
    turned(b"0.5,0.5", b"1.,0"),
    turned(b"0.5,0.5", b"+1,0"),
    turned(b"0.5,0.5", b"0.5,0.5,"),
    turned(b"0.5,0.5", b"0.5,\x000.5"),
    turned(b"0.5,0.5", b" \n0.5\t,\r0.5 "),
    turned(b"0.5,0.5", b"18446744073709551616,0"),
    turned(b"0.5,0.5", b"0.5,0.50099"),
    turned(b"0.5,0.5", b"0.5,0.5010001"),
    turned(b"0.5,0.5", b"1.0005,0"),
    turned(b"0.5,0.5", b"0.5,0.5],\"data\":[0.1,0.9"),
    turned(b"0.5,0.5", b"0.5,0.5],\"shape\":[2,1"),
    turned(b"0.5,0.5", b"0.5,0.5],\"data\":[null"),
    turned(b"}]}", b'},{"name":"q","shape":[1,2],"datatype":"FP32","data":[0.1,0.9]}]}'),
    turned(b"}]}", b'}],"outputs":[]}'),
    turned(b"}]}", b'}],"id":"2"}'),
    turned(b"}]}", b'}],"id":3}'),
    turned(b"}]}", b'}],"error":"x","predictions":[[0.1,0.9]]}'),
    turned(b"}]}", b"}]} "),
    turned(b"}]}", b"}]}x"),
    turned(b"}]}", b"}"),
    turned(b'"id":"1"', b'"id":1'),
    turned(b'"id":"1"', b'"id":null'),
    turned(b'"id":"1"', b'"id":""'),
    turned(b'"id":"1"', b'"id":"\\u0041"'),
    turned(b'"id":"1"', b'"id":"a\\"b"'),
    turned(b'"id":"1"', "\"id\":\"ö\"".encode()),
    turned(b'"id":"1"', b'"id":"\xff"'),
    turned(b'"id":"1"', b'"id":"a\nb"'),
    turned(b'"id":"1"', b'"id":"<svg>"'),
    turned(b'"id":"1"', b'"id":"1","id":"2"'),
    turned(b'"id":"1"', b'"x":"\\"id\\":\\"1\\""'),
    turned(b'"id":"1"', b'"model_name":"id"'),
    turned(b'"id":"1"', b'"x":{"id":"1"}'),
    turned(b'"id":"1"', b'"id":"1","x":"\\"data\\":[1"'),
    turned(b'"id":"1"', b'"id":"1","data":[0.5,0.5]'),
    turned(b'"id":"1"', b'"id":"1","instances":[]'),
    turned(b'"id":"1"', b'"specversion":"1.0","data":{"outputs":[]},"id":"1"'),
    turned(b'"FP32"', b'"FP16"'),
    turned(b'"FP32"', b'"fp32"'),
    turned(b'"FP32"', b'"INT64"'),
    turned(b'"FP32"', b'"BYTES"'),
    turned(b"[1,2]", b"[1,3]"),
    turned(b"[1,2]", b"[2,1]"),
    turned(b"[1,2]", b"[1,2,1,1]"),
    turned(b"[1,2]", b"[1,1,2]"),
    turned(b"[1,2]", b"[0,2]"),
    turned(b"[1,2]", b"[-1,2]"),
    turned(b"[1,2]", b"[1000000000000,1000000000000]"),
    turned(b"[1,2]", b"[true,2]"),
    turned(b"[1,2]", b'[1,2],"parameters":{"binary_data_size":8}'),
    turned(b'"p"', b'"boxes"'),
    turned(b'"p"', b'"logits"'),
    turned(b'"p"', b'"\xc3\xb6"'),
    turned(b'"p"', b'"\\ud800"'),
    turned(b'"p"', b'"<svg"'),
    turned(b'{"id"', b'{ "id"'),
    turned(b'{"id"', b'\xef\xbb\xbf{"id"'),
    turned(b'{"id"', b'[{"id"'),
    GOOD,
    PLAIN,
    GOOD[:-4],
    b"",
    b"{",
    b'{"data"',
    b'{"id":"',
    b'{"data":["x"],"data":',
    b'{"error":"no"}',
    b'{"ready":true}',
    b'{"predictions":[[0.5,0.5]]}',
    gzip.compress(GOOD),
    b"\x00\x00\x00\x00\x02\x08\x01",
    json.dumps({"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 2],
                             "parameters": {"binary_data_size": 8}}]}).encode()
    + np.array([0.5, 0.5], "<f4").tobytes(),
]  # fmt: skip


def test_hostile_replies_answer_as_alone_whatever_stands_beside_them() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        bodies = [body for body in HOSTILE for _ in range(4)]
        rng.shuffle(bodies)
        assert_same([one for body in bodies for one in (body, GOOD)])


def test_two_replies_cannot_conspire() -> None:
    one, other = turned(b"0.5,0.5", b"0.5,0.5,-1,0.5,0.5"), turned(b"0.5,0.5", b"0.5")
    for pair in ([one, other], [other, one], [one, one, other], HOSTILE[6:8], HOSTILE[8:10]):
        assert_same([GOOD] * 3 + pair * 3 + [GOOD])


TEXTS = st.text(max_size=6) | st.sampled_from(['"data":[', "data", "id", '\\"id\\"', "]", "[0.5]"])
NUMBERS = (
    st.floats(0, 1, width=32)
    | st.floats()
    | st.integers(-2, 2**70)
    | st.sampled_from([0.5, 1, 0, -0.0, None, True, "0.5", [0.5, 0.5], {}])
)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Draw replies near to what endpoints answer, and then changes of their bytes."""
    outputs = []
    for _ in range(draw(st.integers(1, 2))):
        rows, width = draw(st.integers(1, 2)), draw(st.integers(2, 4))
        if draw(st.booleans()):
            row = [0.5, 0.5, *[0] * (width - 2)]
            values: list[Any] = row * rows
        else:
            values = draw(st.lists(NUMBERS, max_size=6))
        name = draw(st.sampled_from(["probabilities", "p", "embedding", "boxes"]) | TEXTS)
        datatype = draw(st.sampled_from(["FP32"] * 4 + ["FP64", "FP16", "INT32", "BYTES"]))
        held = {"name": name, "shape": [rows, width], "datatype": datatype, "data": values}
        order = draw(st.permutations(list(held)))
        outputs.append({key: held[key] for key in order})
    value = {"id": draw(TEXTS), "model_name": draw(TEXTS), "outputs": outputs}
    order = draw(st.permutations(list(value)))
    body = bytearray(
        json.dumps(
            {key: value[key] for key in order},
            ensure_ascii=draw(st.booleans()),
            separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\n")])),
        ).encode("utf-8", "surrogatepass")
    )
    pieces = [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b'"data":[', b'"id":"', b"-1", b"\xff"]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(body)))
        body[place : place + draw(st.integers(0, 3))] = draw(st.sampled_from(pieces))
    return bytes(body)


@settings(max_examples=300, deadline=timedelta(seconds=5))
@given(st.lists(replies(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_replies_answer_as_alone(bodies: list[bytes], order: random.Random) -> None:
    mixed = [*bodies, *bodies, *bodies, GOOD, GOOD, GOOD]
    order.shuffle(mixed)
    assert_same(mixed, [order.choice(["", "application/json", "application/grpc"]) for _ in mixed])


def test_a_reply_that_a_library_trips_over_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trips(body: bytes, content_type: str) -> Response:
        if body == b"trip":
            raise ZeroDivisionError
        return decode_response(body, content_type)

    monkeypatch.setattr(reply_batches, "decode_response", trips)
    first, second = decode_responses([b"trip", GOOD], ["", ""])
    assert first.problem == "decoder_failed"
    assert second.probabilities is not None
