"""The Open Inference Protocol over gRPC.

Inference is handled on the bytes of the messages: the events need them exactly as they were sent,
and a message that is no request must be answered INVALID_ARGUMENT. Everything else of the service
is KServe's.
"""

from __future__ import annotations

import logging
import uuid
from types import SimpleNamespace
from typing import Any

import grpc  # type: ignore[import-untyped]
import kserve
from kserve.errors import ModelNotFound, ModelNotReady
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from kserve.protocol.grpc.servicer import InferenceServicer

from visionloop.errors import VisionloopError
from visionloop.inference import OnnxModel
from visionloop.serving.answering import Answerer, Refused
from visionloop.serving.bodies import Undecodable
from visionloop.serving.cloudevents import REQUEST, RESPONSE, EventSender, new_id
from visionloop.serving.payloads import (
    READING,
    Ask,
    BadRequest,
    pictures_of,
    unreadable,
    wanted_outputs,
)
from visionloop.serving.protobuf import check_message
from visionloop.serving.replies import FIXED, Answer, chosen, metadata, raw_output
from visionloop.serving.request_counts import count, count_error
from visionloop.serving.tensors import grpc_tensors

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}


async def start(
    host: str,
    port: int,
    server: kserve.ModelServer,
    answerer: Answerer,
    sender: EventSender | None,
    *,
    max_body_bytes: int,
) -> tuple[Any, int]:
    """Start the service.

    Args:
        host: Address to listen at.
        port: Port; 0 takes a free one.
        server: Holds the model for KServe's part of the service.
        answerer: Answers inference.
        sender: Who sends the events; None where nothing is reported.
        max_body_bytes: A larger message is answered RESOURCE_EXHAUSTED.

    Returns:
        The grpc.aio server and its port.

    Raises:
        InputError: The port cannot be listened at.
    """
    from visionloop.errors import InputError

    service = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    methods = _Methods()
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(
        _Servicer(server.dataplane, server.model_repository_extension), methods
    )
    infer = _Inference(answerer, sender)
    methods.handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(infer.answer)
    service.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(methods.name, methods.handlers),)
    )
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = service.add_insecure_port(where)
    except RuntimeError:
        bound = 0
    if not bound:
        raise InputError(
            "cannot listen for gRPC", where=where, remedy="Choose another port, or 0 for a free one"
        )
    await service.start()
    return service, bound


class _Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's service, with errors as the protocol names them, and with versions."""

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer whether a model is ready."""
        try:
            if request.version:
                self._data_plane.get_model_from_registry(request.name).check(request.version)
            return await super().ModelReady(request, context)
        except ModelNotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ModelNotReady:
            return pb.ModelReadyResponse(ready=False)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Describe the model in service."""
        try:
            model = self._data_plane.get_model_from_registry(request.name)
            model.check(request.version)
            held = metadata(request.name, model.current.card)
        except ModelNotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ModelNotReady as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return pb.ModelMetadataResponse(**held)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: what is served is published."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, FIXED)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: what is served is published."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, FIXED)


class _Methods:
    """Takes the handlers of a service from the generated code, so that one can be replaced."""

    def __init__(self) -> None:
        self.name = "inference.GRPCInferenceService"
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Nothing: the same handlers come by name."""

    def add_registered_method_handlers(self, name: str, handlers: dict[str, Any]) -> None:
        """Keep them."""
        self.name = name
        self.handlers.update(handlers)


class _Inference:
    """Answers ModelInfer, on bytes."""

    def __init__(self, answerer: Answerer, sender: EventSender | None) -> None:
        self._answerer = answerer
        self._sender = sender

    async def answer(self, message: bytes, context: Any) -> bytes:
        """Answer one request, and report it and its reply."""
        pairs = [(k, v) for k, v in context.invocation_metadata() or () if isinstance(v, str)]
        given = dict(pairs)
        sender = self._sender
        event: dict[str, Any] = {
            "event_id": given.get("ce-id") or new_id(),
            "content_type": given.get("content-type", "application/grpc"),
        }
        if sender:
            event["metadata"] = sender.metadata_of(pairs)
            sender.emit(REQUEST, body=_frame(message), **event)
        try:
            with (
                self._answerer.begun(),
                self._answerer.admitted(),
                self._answerer.holding() as hold,
            ):
                hold(len(message))
                ask, answer = await self._answerer.answer(lambda model: self._read(message, model))
                reply = _write(ask, answer, self._answerer.name)
        except Refused as error:
            code, detail, status, reason = (
                _CODES[error.status],
                str(error),
                error.status,
                error.reason,
            )
        except Exception as error:
            logging.getLogger(__name__).exception("a request could not be answered")
            told = str(error) if isinstance(error, VisionloopError) else type(error).__name__
            code, detail, status, reason = grpc.StatusCode.INTERNAL, told, 500, "internal"
        else:
            count(200)
            if sender:
                sender.emit(RESPONSE, body=_frame(reply), **event)
            return reply
        count(status)
        count_error(reason)
        if sender:
            # An error of gRPC is HTTP 200 with trailers and no body, and so is logged.
            sender.emit(RESPONSE, body=b"", **event)
        message = b""  # the exception that comes now keeps this frame for a while
        await context.abort(code, detail)
        raise AssertionError("abort raises")

    def _read(self, message: bytes, model: OnnxModel) -> Ask:
        from google.protobuf.message import DecodeError

        try:
            with READING.share() as share:
                share.take(check_message(message, request=True))
                request = pb.ModelInferRequest.FromString(message)
                self._answerer.check(model, request.model_name, request.model_version)
                return _ask(request)
        except Undecodable as error:
            raise unreadable(error) from None
        except (DecodeError, RecursionError):
            raise BadRequest("the message is no ModelInferRequest") from None


def _ask(request: Any) -> Ask:
    if request.raw_input_contents and any(held.HasField("contents") for held in request.inputs):
        raise BadRequest("the request has raw contents and others; it may have one of them")
    flag = request.parameters.get("embedding")
    tensors = grpc_tensors(_Contents(request))
    return Ask(
        "v2",
        pictures_of(tensors),
        bool(flag and (flag.bool_param or flag.int64_param or flag.string_param == "true")),
        request.id,
        wanted_outputs([output.name for output in request.outputs]),
        binary=True,
    )


class _Contents:
    """A request as `grpc_tensors` reads it: KServe's message names its fields otherwise."""

    def __init__(self, request: Any) -> None:
        self.raw_contents = request.raw_input_contents
        self.tensors = [
            SimpleNamespace(
                name=tensor.name.encode(),
                datatype=tensor.datatype.encode(),
                shape=tensor.shape,
                contents=tensor.contents,
            )
            for tensor in request.inputs
        ]


def _write(ask: Ask, answer: Answer, name: str) -> bytes:
    described = {entry["name"]: entry for entry in metadata(name, answer.card)["outputs"]}
    reply = pb.ModelInferResponse(
        model_name=name,
        model_version=answer.card.model_id,
        id=ask.request_id or str(uuid.uuid4()),
    )
    for output in chosen(ask):
        shape = [len(answer.probabilities), *described[output]["shape"][1:]]
        reply.outputs.add(name=output, datatype=described[output]["datatype"], shape=shape)
        reply.raw_output_contents.append(raw_output(output, answer))
    return bytes(reply.SerializeToString())


def _frame(message: bytes) -> bytes:
    """Return a message as it goes over the wire: uncompressed, behind its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message
