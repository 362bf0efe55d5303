"""A logged response: probabilities, label, boxes and the model that answered.

V1 rows may be lists of probabilities, or objects with ``probabilities`` (a list, or an object of
label and probability), ``label`` and the like. Where a reply names its classes itself, the
probabilities are put in the order of those names and `Response.classes` holds them; otherwise they
stay in the order of the model's classes. A reply that is no inference at all (health, metadata,
metrics, which KServe's logger reports too) has `Response.inference` false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.media import sniff
from visionloop.serving.bodies import Undecodable, clean, parse_json, unpack
from visionloop.serving.detections import Box, has_boxes, object_boxes, tensor_boxes
from visionloop.serving.distributions import TOLERANCE, distribution, probabilities
from visionloop.serving.protobuf import frames, looks_framed, parse_message
from visionloop.serving.reply_embeddings import of_outputs, of_predictions
from visionloop.serving.tensors import Tensor, grpc_tensors, json_tensors, numbers

_PROBABILITIES = (
    "probabilities",
    "probs",
    "probability",
    "class_probabilities",
    "softmax",
    "scores",
    "confidences",
)
_LABEL = ("label", "class", "predicted_class", "predicted_label", "prediction", "class_name")
_LABELS = ("classes", "labels", "class_names")
_SCORE = ("score", "probability", "confidence", "prob")
_LABEL_OUTPUTS = (*_LABEL, "labels", "classes", "predictions", "class_names")
_MODEL_ID = ("model_id", "modelId", "model_version", "modelVersion")
# What a KServe server answers beside inferences, by the keys of the object.
_OTHER_REPLIES = (
    {"ready"}, {"live"}, {"models"}, {"status"}, {"name", "ready"}, {"name", "load"},
    {"name", "unload"}, {"name", "version", "extensions"},
)  # fmt: skip


@dataclass(frozen=True)
class Response:
    """What an endpoint answered.

    Attributes:
        protocol: ``v1``, ``v2``, ``v2-binary`` or ``grpc``; ``""`` when unknown.
        probabilities: float32 [rows, classes], or None.
        labels: The label that the reply names for each row; empty when it names none.
        classes: Names of the columns, where the reply names them; empty otherwise.
        boxes: The boxes of each row of a detector's reply, or None.
        v2_id: The id of a V2 reply.
        model_name: The model that answered, where the body names it.
        model_id: Its version, where the body names it.
        problem: Why there are neither probabilities nor boxes; empty when there are.
        inference: False for a reply that is no inference.
        embeddings: float32 [rows, d] of a reply with an output ``embedding``, or None.
    """

    protocol: str = ""
    probabilities: NDArray[np.float32] | None = None
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    boxes: tuple[list[Box], ...] | None = None
    v2_id: str = ""
    model_name: str = ""
    model_id: str = ""
    problem: str = ""
    inference: bool = True
    embeddings: NDArray[np.float32] | None = None

    @property
    def rows(self) -> int | None:
        """Number of rows, None when it is not known."""
        if self.probabilities is not None:
            return len(self.probabilities)
        return None if self.boxes is None else len(self.boxes)


def decode_response(body: bytes, content_type: str = "") -> Response:
    """Read the body of a response event; never raises.

    Args:
        body: The body as it was logged.
        content_type: The content type of the *request*, which is all that the event has.
    """
    if not body:
        # A gRPC error is HTTP 200 with trailers, and an empty body.
        grpc = content_type.startswith("application/grpc")
        return Response("grpc" if grpc else "", problem="grpc_error" if grpc else "response_empty")
    try:
        return _decode(unpack(body), content_type)
    except Undecodable as error:
        return Response(problem=error.reason)


def _decode(body: bytes, content_type: str) -> Response:
    first = body.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:1]
    if first not in (b"{", b"[", b'"') and (
        looks_framed(body) or content_type.startswith("application/grpc")
    ):
        return _grpc(body)
    if first in (b"#", b"<"):
        return Response(problem="not_json", inference=False)
    if sniff.kind(body[:512]):
        raise Undecodable("reply_is_media")
    value, binary = parse_json(body)
    if not isinstance(value, dict):
        raise Undecodable("not_an_object")
    if isinstance(value.get("data"), dict) and "specversion" in value:
        value = value["data"]
    if _is_other(value):
        return Response(problem="not_an_inference", inference=False)
    model: dict[str, Any] = {
        "model_name": _text(value.get("model_name")),
        "model_id": next((_text(value[k]) for k in _MODEL_ID if _text(value.get(k))), ""),
    }
    if "predictions" in value:
        return _guard("v1", model, lambda: _v1(value["predictions"]))
    if isinstance(value.get("outputs"), list) and "instances" not in value:
        model["v2_id"] = _text(value.get("id"))
        protocol = "v2-binary" if binary else "v2"
        return _guard(protocol, model, lambda: _outputs(json_tensors(value["outputs"], binary)))
    if "error" in value:
        return Response(problem="error_reply", **model)
    return Response(problem="no_predictions", **model)


def _guard(protocol: str, names: dict[str, Any], read: Any) -> Response:
    """Keep what names the model and the request when the outputs cannot be used."""
    try:
        return Response(protocol, **read(), **names)
    except Undecodable as error:
        return Response(protocol, problem=error.reason, **names)


def _is_other(value: Mapping[str, Any]) -> bool:
    keys = set(value)
    if keys in _OTHER_REPLIES:
        return True
    # The metadata of a model also has `outputs`; they describe tensors and hold none.
    return "platform" in keys and "inputs" in keys and "model_name" not in keys


def _text(value: object) -> str:
    return clean(value) if isinstance(value, (str, int, float)) and value != "" else ""


def _grpc(body: bytes) -> Response:
    messages = [parse_message(payload, request=False) for payload in frames(body)]
    if not messages:
        raise Undecodable("grpc_truncated")
    names: dict[str, Any] = {
        "v2_id": messages[0].id.decode("utf-8", "replace"),
        "model_name": messages[0].model_name.decode("utf-8", "replace"),
        "model_id": messages[0].model_version.decode("utf-8", "replace"),
    }

    def read() -> dict[str, Any]:
        parts = [_outputs(grpc_tensors(message)) for message in messages]
        if len(parts) == 1:
            return parts[0]
        if any(part.get("probabilities") is None for part in parts):
            raise Undecodable("no_probabilities")
        if len({part["probabilities"].shape[1] for part in parts}) > 1:
            raise Undecodable("ragged")
        return {
            "probabilities": np.concatenate([part["probabilities"] for part in parts]),
            "labels": sum((part["labels"] for part in parts), ()),
        }

    return _guard("grpc", names, read)


def _outputs(outputs: Sequence[Tensor]) -> dict[str, Any]:
    if has_boxes([tensor.name for tensor in outputs]):
        return {"boxes": tuple(tensor_boxes(outputs))}
    values = probabilities(outputs)
    return {
        "probabilities": values,
        "labels": _label_output(outputs, len(values)),
        "embeddings": of_outputs(outputs, len(values)),
    }


def _label_output(outputs: Sequence[Tensor], rows: int) -> tuple[str, ...]:
    texts = [t for t in outputs if t.elements is not None and len(t.elements) == rows]
    named = [t for t in texts if t.name.lower() in _LABEL_OUTPUTS]
    chosen = named[0] if named else texts[0] if len(texts) == 1 else None
    if chosen is None or chosen.elements is None:
        return ()
    return tuple(
        text.decode("utf-8", "replace") if isinstance(text, bytes) else clean(text)
        for text in chosen.elements
    )


def _v1(predictions: object) -> dict[str, Any]:
    if isinstance(predictions, dict):
        predictions = _columns(predictions)
    if not isinstance(predictions, list):
        raise Undecodable("no_predictions")
    if not predictions:
        raise Undecodable("no_rows")
    if all(isinstance(row, dict) for row in predictions) and has_boxes(list(predictions[0])):
        return {"boxes": tuple(object_boxes(row) for row in predictions)}
    if isinstance(predictions[0], (str, bool)):
        raise Undecodable("label_only")
    if isinstance(predictions[0], (int, float)) or predictions[0] is None:
        values = numbers(predictions)
        if values.dtype.kind in "iub":
            raise Undecodable("label_only")
        return {"probabilities": distribution(values), "labels": ()}
    rows = [_row(row) for row in predictions]
    if len({len(row[0]) for row in rows}) > 1:
        raise Undecodable("ragged")
    if len({row[2] for row in rows}) > 1:
        raise Undecodable("classes_differ")
    values = numbers([row[0] for row in rows])
    labels = tuple(row[1] for row in rows)
    return {
        "probabilities": distribution(values),
        "labels": labels if all(labels) else (),
        "classes": rows[0][2],
        "embeddings": of_predictions(predictions),
    }


def _columns(predictions: Mapping[str, Any]) -> object:
    """Turn an object of columns, as TensorFlow Serving answers it, into rows."""
    held = {str(name).lower(): value for name, value in predictions.items()}
    if has_boxes(list(held)):
        return [predictions]
    return next((held[name] for name in _PROBABILITIES if isinstance(held.get(name), list)), None)


V1Row = tuple[Sequence[Any], str, tuple[str, ...]]  # values, label, names of the columns


def _row(row: object) -> V1Row:
    if isinstance(row, list):
        if row and all(isinstance(item, dict) for item in row):
            return _labelled(row)
        while len(row) == 1 and isinstance(row[0], list):
            row = row[0]
        return row, "", ()
    if not isinstance(row, dict):
        raise Undecodable("not_numbers")
    held = {str(name).lower(): value for name, value in row.items()}
    label = next((clean(held[n]) for n in _LABEL if isinstance(held.get(n), (str, int))), "")
    for name in _PROBABILITIES:
        values = held.get(name)
        if isinstance(values, dict):
            values, _, classes = _mapped(values)
            return values, label, classes
        if isinstance(values, list):
            if values and all(isinstance(item, dict) for item in values):
                values, _, classes = _labelled(values)
                return values, label, classes
            return values, label, _class_names(held, len(values))
    if held and not label and all(_is_number(value) for value in held.values()):
        return _mapped(row)
    score = any(name in held for name in _SCORE)
    raise Undecodable("top_k_only" if score else "label_only" if label else "no_probabilities")


def _class_names(held: Mapping[str, Any], count: int) -> tuple[str, ...]:
    for name in _LABELS:
        names = held.get(name)
        if isinstance(names, list) and len(names) == count and count:
            texts = tuple(clean(text) for text in names)
            if len(set(texts)) == count:
                return texts
    return ()


def _labelled(items: Sequence[Mapping[str, Any]]) -> V1Row:
    """Read a list of ``{"label": …, "score": …}``, the whole distribution or its top."""
    pairs: dict[str, Any] = {}
    for item in items:
        held = {str(name).lower(): value for name, value in item.items()}
        label = next((clean(held[n]) for n in _LABEL if isinstance(held.get(n), (str, int))), None)
        score = next((held[n] for n in _SCORE if n in held), None)
        if label is None or score is None or label in pairs:
            raise Undecodable("no_probabilities")
        pairs[label] = score
    return _mapped(pairs)


def _mapped(pairs: Mapping[str, Any]) -> V1Row:
    """Put ``{label: probability}`` in the order of the labels, which every reply shares."""
    if not pairs or not all(_is_number(value) for value in pairs.values()):
        raise Undecodable("not_numbers")
    ordered = sorted(pairs, key=str)
    try:
        values = [float(pairs[name]) for name in ordered]
    except OverflowError:
        raise Undecodable("not_finite") from None
    total = sum(values)
    if len(values) < 2 or (all(0 <= v <= 1 for v in values) and total < 1 - TOLERANCE):
        raise Undecodable("top_k_only")
    best = clean(max(ordered, key=lambda name: pairs[name]))
    return values, best, tuple(clean(name) for name in ordered)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
