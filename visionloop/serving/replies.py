"""Replies of the predictor: label, probabilities, model id, and the embedding on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from visionloop.inference import ModelCard
from visionloop.serving.payloads import Ask

# To whoever asks to load or unload a model.
FIXED = "the model in service is changed by publishing, not by a request"


@dataclass(frozen=True)
class Answer:
    """What a model says to an `Ask`.

    Attributes:
        card: The model.
        probabilities: float32 [n, C].
        embedding: float32 [n, D].
    """

    card: ModelCard
    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]

    @property
    def labels(self) -> list[str]:
        """The most probable class of each row."""
        return [self.card.classes[index] for index in self.probabilities.argmax(axis=1)]


def write_v1(ask: Ask, answer: Answer, name: str) -> bytes:
    """Write a V1 reply.

    Args:
        ask: What was asked.
        answer: What the model said.
        name: Name of the model in the URL.

    Returns:
        The body, JSON.
    """
    rows = []
    # The shortest digits that are written give back every float32 exactly.
    for n, (label, values) in enumerate(zip(answer.labels, answer.probabilities, strict=True)):
        row: dict[str, Any] = {"label": label, "score": values.max(), "probabilities": values}
        if ask.embedding:
            row["embedding"] = answer.embedding[n]
        rows.append(row)
    return orjson.dumps(
        {"predictions": rows, "model_name": name, "model_id": answer.card.model_id},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def chosen(ask: Ask) -> list[str]:
    """Return the outputs that a V2 reply carries, in the order asked for."""
    names = list(ask.outputs) or ["probabilities", "label"]
    if ask.embedding and "embedding" not in names:
        names.append("embedding")
    return names


def write_v2(ask: Ask, answer: Answer, name: str, request_id: str) -> tuple[bytes, int | None]:
    """Write a V2 reply.

    Args:
        ask: What was asked.
        answer: What the model said.
        name: Name of the model in the URL.
        request_id: The request's ``id``, which the reply repeats.

    Returns:
        The body, and the length of its JSON where raw tensors follow it.
    """
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output in chosen(ask):
        wanted = ask.outputs.get(output)
        binary = ask.binary if wanted is None else wanted
        entry: dict[str, Any] = {"name": output, **_described(output, answer)}
        if binary:
            data = raw_output(output, answer)
            entry["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        elif output == "label":
            entry["data"] = answer.labels
        else:
            entry["data"] = _array(output, answer).reshape(-1)
        outputs.append(entry)
    head = orjson.dumps(
        {
            "model_name": name,
            "model_version": answer.card.model_id,
            "id": request_id,
            "outputs": outputs,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    return b"".join([head, *raw]), len(head) if raw else None


def raw_output(output: str, answer: Answer) -> bytes:
    """Return an output as the protocol's raw bytes."""
    if output == "label":
        texts = [label.encode("utf-8") for label in answer.labels]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.ascontiguousarray(_array(output, answer), "<f4").tobytes()


def _described(output: str, answer: Answer) -> dict[str, Any]:
    if output == "label":
        return {"shape": [len(answer.probabilities)], "datatype": "BYTES"}
    return {"shape": list(_array(output, answer).shape), "datatype": "FP32"}


def _array(output: str, answer: Answer) -> NDArray[np.float32]:
    return answer.embedding if output == "embedding" else answer.probabilities


def metadata(name: str, card: ModelCard) -> dict[str, Any]:
    """Describe a model, as ``GET /v2/models/<name>`` answers."""
    size = card.image_size
    return {
        "name": name,
        "versions": [card.model_id],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, size, size]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(card.classes)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "embedding", "datatype": "FP32", "shape": [-1, card.embedding_dim]},
        ],
    }
