"""One known image, asked of a new model before it gets traffic: it must answer as its file does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import VisionloopError
from visionloop.serving.inference_service.endpoint import Endpoint
from visionloop.serving.inference_service.pods import name_of, post
from visionloop.serving.inference_service.waiting import RolloutFailed

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster
    from visionloop.inference import OnnxModel

# Largest difference of a probability between a pod and the ONNX file here.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Question:
    """A known image.

    Attributes:
        told_as: What it is, for people.
        pixels: The network's input, float32 [3, S, S] in 0..1.
        encoded: The picture's file; empty for pixels that nobody encoded.
    """

    told_as: str
    pixels: NDArray[np.float32]
    encoded: bytes = b""


@dataclass(frozen=True)
class Smoke:
    """What came of it.

    Attributes:
        told_as: The image.
        label: What both answered.
        confidence: Its probability.
        difference: Largest difference of a probability.
    """

    told_as: str
    label: str
    confidence: float
    difference: float


def ask_known_image(
    cluster: Cluster,
    endpoint: Endpoint,
    pod: dict[str, Any],
    model: OnnxModel,
    question: Question,
) -> Smoke:
    """Ask one pod, and compare with what the model's file answers here.

    Args:
        cluster: Where the pod runs.
        endpoint: The InferenceService.
        pod: A ready pod of the model.
        model: The model, loaded from its bundle.
        question: The image.

    Raises:
        RolloutFailed: The pod answers with an error, another label, or probabilities that differ
            by more than `TOLERANCE`.
    """
    expected, _ = model.predict(question.pixels[None])
    where = f"{endpoint.where}, pod {name_of(pod)}"
    try:
        answered = _probabilities(cluster, endpoint, pod, question)
    except (VisionloopError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _failed(f"it does not answer {question.told_as}: {error}", where) from error
    if answered.shape != expected[0].shape or not np.isfinite(answered).all():
        raise _failed(
            f"it answers {answered.size} probabilities for {len(expected[0])} classes", where
        )
    difference = float(np.abs(answered - expected[0]).max())
    classes = model.card.classes
    here, there = int(expected[0].argmax()), int(answered.argmax())
    if here != there or not difference <= TOLERANCE:
        raise _failed(
            f"it answers {classes[there]!r} ({answered[there]:.4f}) to {question.told_as}, its "
            f"file {classes[here]!r} ({expected[0][here]:.4f}); a probability differs by "
            f"{difference:.2g}",
            where,
        )
    return Smoke(question.told_as, classes[here], float(answered[there]), difference)


def made_up_pixels(size: int) -> NDArray[np.float32]:
    """Return smooth colours, for where no picture is known, float32 [3, size, size] in 0..1."""
    axis = np.linspace(0.2, 0.8, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return np.stack([x, y, (1 - x) * (1 - y)])


def _probabilities(
    cluster: Cluster, endpoint: Endpoint, pod: dict[str, Any], question: Question
) -> NDArray[np.float32]:
    if question.encoded and not endpoint.triton:
        path = f"v1/models/{endpoint.name}:predict"
        kind = "application/octet-stream"
        reply = json.loads(post(cluster, endpoint, pod, path, question.encoded, kind))
        return np.asarray(reply["predictions"][0]["probabilities"], np.float32)
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1, *question.pixels.shape],
        "data": question.pixels.reshape(-1).tolist(),
    }
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    path = f"v2/models/{endpoint.name}/infer"
    reply = json.loads(post(cluster, endpoint, pod, path, body, "application/json"))
    found = next(one for one in reply["outputs"] if one["name"] == "probabilities")
    return np.asarray(found["data"], np.float32)


def _failed(what: str, where: str) -> RolloutFailed:
    return RolloutFailed(
        f"the new model's pod fails on a known image: {what}",
        where=where,
        remedy="See that its image and this one are of the same visionloop, and the pod's log",
    )
