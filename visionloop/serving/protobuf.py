"""The two gRPC messages of the Open Inference Protocol (V2), and the frames that carry them.

The messages are described here, so that a stage needs neither kserve nor generated code. Only what
the harvest reads is described; everything else in a message is skipped. Field numbers: kserve's
`grpc_predict_v2.proto`. Names are ``bytes``: a name that is no UTF-8 must not hide a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from visionloop.serving.bodies import MAX_BODY_BYTES, MAX_VALUES, Undecodable, unpack

# Of one body: an inference is one message.
_MOST_FRAMES = 16
# Of one message: a field of two bytes becomes an object; and bytes that are no contents.
_MOST_FIELDS = 1 << 16
_MOST_BESIDE = 1 << 20
# Field numbers. A message holds tensors, and a tensor its contents, both under the same number.
_NESTED = 5
_BYTES_CONTENTS = 8
_RAW_CONTENTS = {True: 7, False: 6}
_WIDTHS = {6: 4, 7: 8}  # of the contents' floats; integers take one byte or more


@cache
def _messages() -> tuple[Any, Any]:
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="visionloop/inference.proto", package="visionloop.inference", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, Any, bool, str]) -> None:
        described = file.message_type.add(name=name)
        for label, number, kind, repeated, of in fields:
            described.field.add(
                name=label,
                number=number,
                type=kind,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                **({"type_name": f".visionloop.inference.{of}"} if of else {}),
            )

    message(
        "Contents",
        ("bool_contents", 1, field.TYPE_BOOL, True, ""),
        ("int_contents", 2, field.TYPE_INT32, True, ""),
        ("int64_contents", 3, field.TYPE_INT64, True, ""),
        ("uint_contents", 4, field.TYPE_UINT32, True, ""),
        ("uint64_contents", 5, field.TYPE_UINT64, True, ""),
        ("fp32_contents", 6, field.TYPE_FLOAT, True, ""),
        ("fp64_contents", 7, field.TYPE_DOUBLE, True, ""),
        ("bytes_contents", 8, field.TYPE_BYTES, True, ""),
    )
    message(
        "Tensor",
        ("name", 1, field.TYPE_BYTES, False, ""),
        ("datatype", 2, field.TYPE_BYTES, False, ""),
        ("shape", 3, field.TYPE_INT64, True, ""),
        ("contents", 5, field.TYPE_MESSAGE, False, "Contents"),
    )
    for name, raw in (("Request", _RAW_CONTENTS[True]), ("Response", _RAW_CONTENTS[False])):
        message(
            name,
            ("model_name", 1, field.TYPE_BYTES, False, ""),
            ("model_version", 2, field.TYPE_BYTES, False, ""),
            ("id", 3, field.TYPE_BYTES, False, ""),
            ("tensors", 5, field.TYPE_MESSAGE, True, "Tensor"),
            ("raw_contents", raw, field.TYPE_BYTES, True, ""),
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return (
        message_factory.GetMessageClass(pool.FindMessageTypeByName("visionloop.inference.Request")),
        message_factory.GetMessageClass(
            pool.FindMessageTypeByName("visionloop.inference.Response")
        ),
    )


def looks_framed(body: bytes) -> bool:
    """Return whether a body is gRPC frames, one after the other to its very end."""
    position = 0
    for _ in range(_MOST_FRAMES):
        if len(body) - position < 5 or body[position] not in (0, 1):
            return False
        position += 5 + int.from_bytes(body[position + 1 : position + 5], "big")
        if position == len(body):
            return True
    return False


def frames(body: bytes) -> list[bytes]:
    """Split a body into the messages of its gRPC frames.

    Raises:
        Undecodable: ``grpc_truncated``, ``compression_invalid``, ``body_too_large`` or
            ``too_many_values``.
    """
    found: list[bytes] = []
    position = 0
    budget = MAX_BODY_BYTES
    while position < len(body):
        if len(found) == _MOST_FRAMES:
            raise Undecodable("too_many_values")
        if len(body) - position < 5 or body[position] not in (0, 1):
            raise Undecodable("grpc_truncated")
        length = int.from_bytes(body[position + 1 : position + 5], "big")
        payload = body[position + 5 : position + 5 + length]
        if len(payload) < length:
            raise Undecodable("grpc_truncated")
        if body[position]:
            unpacked = unpack(payload, limit=budget)
            if unpacked is payload and payload:
                raise Undecodable("compression_invalid")
            payload = unpacked
        budget -= len(payload)
        found.append(payload)
        position += 5 + length
    return found


def parse_message(payload: bytes, *, request: bool) -> Any:
    """Parse a ModelInferRequest or ModelInferResponse.

    Returns:
        A message with ``model_name``, ``model_version``, ``id``, ``tensors`` and ``raw_contents``.

    Raises:
        Undecodable: ``grpc_invalid`` or ``too_many_values``.
    """
    from google.protobuf.message import DecodeError

    check_message(payload, request=request)
    message = _messages()[0 if request else 1]()
    try:
        message.ParseFromString(payload)
    except (DecodeError, RecursionError):
        raise Undecodable("grpc_invalid") from None
    return message


def check_message(payload: bytes, *, request: bool) -> int:
    """Check that a message does not take many times its size in memory, before it is parsed.

    Args:
        payload: The message.
        request: A ModelInferRequest, not a ModelInferResponse.

    Returns:
        Its bytes outside of raw contents.

    Raises:
        Undecodable: ``grpc_invalid`` or ``too_many_values``.
    """
    fields = values = beside = raw = 0
    parts = [(0, 0, len(payload))]
    while parts:
        depth, begin, end = parts.pop()
        for number, kind, start, stop in _fields(payload, begin, end):
            fields += 1
            if depth < 2 and number == _NESTED and kind == 2:
                parts.append((depth + 1, start, stop))
            elif depth == 2 and number != _BYTES_CONTENTS:
                values += (stop - start) // _WIDTHS.get(number, 1)
            elif depth == 0 and number == _RAW_CONTENTS[request]:
                raw += stop - start
            elif depth < 2:
                beside += stop - start
            if fields > _MOST_FIELDS or values > MAX_VALUES or beside > _MOST_BESIDE:
                raise Undecodable("too_many_values")
    return len(payload) - raw


def _fields(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number and the wire type of each field, and where its value begins and ends."""
    while place < end:
        tag, start = _varint(data, place)
        match tag & 7:
            case 0:
                _, place = _varint(data, start)
            case 1:
                place = start + 8
            case 2:
                length, start = _varint(data, start)
                place = start + length
            case 5:
                place = start + 4
            case _:
                raise Undecodable("grpc_invalid")
        if place > end:
            raise Undecodable("grpc_invalid")
        yield tag >> 3, tag & 7, start, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for shift, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, place + shift + 1
    raise Undecodable("grpc_invalid")
