"""The two gRPC messages of the Open Inference Protocol (V2), and the frames that carry them.

The messages are described here, so that a stage needs neither kserve nor generated code. Only what
the harvest reads is described; everything else in a message is skipped. Field numbers: kserve's
`grpc_predict_v2.proto`. Names are ``bytes``: a name that is no UTF-8 must not hide a message.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from visionloop.serving.bodies import MAX_BODY_BYTES, Undecodable, unpack


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
    for name, raw in (("Request", 7), ("Response", 6)):
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
    while len(body) - position >= 5 and body[position] in (0, 1):
        position += 5 + int.from_bytes(body[position + 1 : position + 5], "big")
        if position == len(body):
            return True
    return False


def frames(body: bytes) -> list[bytes]:
    """Split a body into the messages of its gRPC frames.

    Raises:
        Undecodable: ``grpc_truncated``, ``compression_invalid`` or ``body_too_large``.
    """
    found: list[bytes] = []
    position = 0
    budget = MAX_BODY_BYTES
    while position < len(body):
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
        Undecodable: ``grpc_invalid``.
    """
    from google.protobuf.message import DecodeError

    message = _messages()[0 if request else 1]()
    try:
        message.ParseFromString(payload)
    except (DecodeError, RecursionError):
        raise Undecodable("grpc_invalid") from None
    return message
