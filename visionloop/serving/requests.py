"""A logged request: which images or tensors it carried, told by their hashes.

=================== ===========================================================================
body                 identity of a row
=================== ===========================================================================
an image             SHA-256 of the bytes: the sample id
base64 of an image   SHA-256 of the decoded bytes: the sample id
V1 nested lists      `tensor_sha256`: uint8 bytes of the instance as it is nested (HWC), float32
                     little-endian where a number is not a whole one in 0..255
V2 tensor            `tensor_sha256` of the row's little-endian bytes, in the shape that was sent
=================== ===========================================================================

Pixels are never decoded: a truncated picture has a hash as well, and a decompression bomb is a few
bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionloop.media import sniff
from visionloop.serving.bodies import Undecodable, base64_bytes, clean, parse_json, unpack
from visionloop.serving.protobuf import frames, looks_framed, parse_message
from visionloop.serving.tensors import Tensor, grpc_tensors, json_tensors, numbers

_IMAGES = sniff.DECODABLE | sniff.UNSUPPORTED_IMAGES
_INSTANCE_DEPTH = 4
# A row is a hash of its own, also one of a single byte.
_MAX_ROWS = 1 << 16


@dataclass(frozen=True)
class Request:
    """What a request asked about.

    Attributes:
        protocol: ``v1``, ``v1-image``, ``v2``, ``v2-binary`` or ``grpc``; ``""`` when unknown.
        samples: For each row the SHA-256 of the image that was sent, None for a tensor.
        tensors: For each row the SHA-256 of the tensor that was sent, None for an image.
        v2_id: The id that the client gave inside a V2 request.
        model_name: The model asked for, where the body names it (gRPC).
        problem: Why the rows are not known; then there are none.
    """

    protocol: str = ""
    samples: tuple[str | None, ...] = ()
    tensors: tuple[str | None, ...] = ()
    v2_id: str = ""
    model_name: str = ""
    problem: str = ""

    @property
    def rows(self) -> int | None:
        """Number of rows, None when it is not known."""
        return len(self.samples) if self.samples else None


Row = tuple[bytes | None, bytes | None]  # the image, or the tensor's bytes


@dataclass(frozen=True)
class _Asked:
    """What a body asks, with the bytes of its rows; the fields are those of `Request`."""

    protocol: str
    rows: Sequence[Row] = ()
    v2_id: str = ""
    model_name: str = ""
    problem: str = ""


def decode_request(body: bytes, content_type: str = "") -> Request:
    """Read the body of a request event; never raises.

    Args:
        body: The body as it was logged.
        content_type: Its content type: a hint only, since clients leave it out or lie.
    """
    asked = _asked(body, content_type)
    return Request(
        asked.protocol,
        tuple(None if image is None else _sha256(image) for image, _ in asked.rows),
        tuple(None if tensor is None else _sha256(tensor) for _, tensor in asked.rows),
        v2_id=asked.v2_id,
        model_name=asked.model_name,
        problem=asked.problem,
    )


def request_images(body: bytes, content_type: str = "") -> tuple[list[bytes | None], str]:
    """Return the image of each row of a request, None for a tensor; never raises.

    Args:
        body: As of `decode_request`.
        content_type: As there.

    Returns:
        The images, each with the SHA-256 that `decode_request` gives, and why the rows are not
        known; then there are none.
    """
    asked = _asked(body, content_type)
    return [image for image, _ in asked.rows], asked.problem


def _asked(body: bytes, content_type: str) -> _Asked:
    if not body:
        return _Asked("", problem="request_empty")
    try:
        return _decode(unpack(body), content_type)
    except Undecodable as error:
        return _Asked("", problem="request_" + error.reason)


def _decode(body: bytes, content_type: str) -> _Asked:
    if looks_framed(body):
        return _grpc(body)
    if sniff.kind(body[:512]) in _IMAGES:
        return _Asked("v1-image", [(body, None)])
    if body.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:1] not in (b"{", b"["):
        if content_type.startswith("application/grpc"):
            return _grpc(body)
        raise Undecodable("not_an_image" if content_type.startswith("image/") else "not_json")
    value, binary = parse_json(body)
    if isinstance(value, dict) and isinstance(value.get("data"), dict) and "specversion" in value:
        value = value["data"]  # a structured CloudEvent sent as the request itself
    if not isinstance(value, dict):
        raise Undecodable("not_an_object")
    if "inputs" in value and isinstance(value["inputs"], list):
        return _v2(value, binary)
    if "instances" in value:
        return _v1(value["instances"])
    raise Undecodable("no_inputs")


def _v1(instances: object) -> _Asked:
    if not isinstance(instances, list) or not instances:
        raise Undecodable("no_instances")
    _check_count(len(instances))
    return _Asked("v1", [_instance(instance) for instance in instances])


def _instance(instance: object) -> Row:
    held = instance
    for _ in range(_INSTANCE_DEPTH):
        if not isinstance(held, dict):
            break
        if isinstance(held.get("b64"), str):
            data = base64_bytes(held["b64"])
            return _image(data, "base64_invalid"), None
        held = next(iter(held.values())) if len(held) == 1 else _one_of_several(held)
    if isinstance(held, str):
        return _image(base64_bytes(held), "base64_invalid"), None
    if not isinstance(held, list):
        raise Undecodable("not_an_image")
    array = numbers(held)
    whole = array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255
    return None, np.ascontiguousarray(array, "u1" if whole else "<f4").tobytes()


def _one_of_several(values: dict[str, Any]) -> object:
    """Return the one value of an instance with several keys that can be an image."""
    images = [
        value
        for value in values.values()
        if (isinstance(value, dict) and "b64" in value)
        or (isinstance(value, list) and value and isinstance(value[0], list))
    ]
    if len(images) != 1:
        raise Undecodable("several_inputs")
    return images[0]


def _v2(value: dict[str, Any], binary: bytes) -> _Asked:
    tensors = json_tensors(value["inputs"], binary)
    v2_id = value.get("id")
    protocol = "v2-binary" if binary else "v2"
    try:
        return _Asked(protocol, _rows(tensors), v2_id="" if v2_id is None else clean(v2_id))
    except Undecodable as error:
        # The id still tells which response is this request's.
        return _Asked(
            protocol, v2_id="" if v2_id is None else clean(v2_id), problem="request_" + error.reason
        )


def _grpc(body: bytes) -> _Asked:
    rows: list[Row] = []
    v2_id = model_name = ""
    for payload in frames(body):
        message = parse_message(payload, request=True)
        v2_id = v2_id or message.id.decode("utf-8", "replace")
        model_name = model_name or message.model_name.decode("utf-8", "replace")
        try:
            rows += _rows(grpc_tensors(message))
        except Undecodable as error:
            return _Asked(
                "grpc", v2_id=v2_id, model_name=model_name, problem="request_" + error.reason
            )
    if not rows:
        raise Undecodable("no_inputs")
    return _Asked("grpc", rows, v2_id=v2_id, model_name=model_name)


def _rows(tensors: Sequence[Tensor]) -> list[Row]:
    """Return the rows of the tensor that holds the images: BYTES before numbers, in their order."""
    if not tensors:
        raise Undecodable("no_inputs")
    problem = "not_an_image"
    for wanted in (_bytes_rows, _array_rows):
        for tensor in tensors:
            try:
                rows = wanted(tensor)
            except Undecodable as error:
                problem = error.reason
                continue
            if rows:
                return rows
    raise Undecodable(next((tensor.problem for tensor in tensors if tensor.problem), problem))


def _check_count(rows: int) -> None:
    if rows > _MAX_ROWS:
        raise Undecodable("too_many_rows")


def _bytes_rows(tensor: Tensor) -> list[Row]:
    if tensor.elements is None:
        return []
    _check_count(len(tensor.elements))
    return [(_element(element), None) for element in tensor.elements]


def _element(element: bytes | str) -> bytes:
    """Return the image in one element of a BYTES tensor, plain or as base64 text."""
    if isinstance(element, bytes) and sniff.kind(element[:512]) in _IMAGES:
        return element
    return _image(base64_bytes(element), "base64_invalid")


def _array_rows(tensor: Tensor) -> list[Row]:
    array = tensor.array
    if array is None or not array.size:
        return []
    if not array.ndim:
        raise Undecodable("not_an_image")
    if array.ndim <= 2 and array.dtype == np.uint8:
        # Encoded bytes as a UINT8 tensor, as DALI's decoders take them.
        rows = array if array.ndim == 2 else array[None]
        _check_count(len(rows))
        encoded = [row.tobytes() for row in rows]
        if all(sniff.kind(data[:512]) in _IMAGES for data in encoded):
            return [(data, None) for data in encoded]
    batch = array[None] if array.ndim == 3 else array
    _check_count(len(batch))
    return [(None, np.ascontiguousarray(row).tobytes()) for row in batch]


def _image(data: bytes | None, otherwise: str) -> bytes:
    if data is None:
        raise Undecodable(otherwise)
    if sniff.kind(data[:512]) not in _IMAGES:
        raise Undecodable("not_an_image")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
