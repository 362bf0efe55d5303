"""Replies of detectors: boxes, scores and labels, kept as they were answered.

Known spellings: an object (V1) or a set of outputs (V2, gRPC) with ``boxes`` [n, 4] (x_min, y_min,
x_max, y_max in pixels), ``scores`` [n] or [n, C], and optionally ``labels``; with a leading axis
for the batch in V2, and ``num_detections`` telling how many of a padded row count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.serving.bodies import Undecodable, clean
from visionloop.serving.tensors import Tensor, numbers

Box = dict[str, Any]  # a struct of the lake's BOXES type

_BOXES = ("boxes", "bboxes", "detection_boxes", "pred_boxes")
_SCORES = ("scores", "detection_scores", "confidences", "probabilities", "probs")
_LABELS = ("labels", "classes", "detection_classes", "class_names", "class_ids", "pred_classes")
_COUNTS = ("num_detections", "num_dets")
# A number of a box takes many times the memory of the four bytes that it is sent with.
_MAX_NUMBERS = 1 << 21


def has_boxes(names: Sequence[str]) -> bool:
    """Return whether a reply with these names is a detector's."""
    return any(name.lower() in _BOXES for name in names)


def object_boxes(row: Mapping[str, Any]) -> list[Box]:
    """Read one row of a V1 reply.

    Raises:
        Undecodable: ``boxes_invalid``.
    """
    held = {str(name).lower(): value for name, value in row.items()}
    boxes = _first(held, _BOXES)
    scores, labels = _first(held, _SCORES), _first(held, _LABELS)
    if not isinstance(boxes, list):
        raise Undecodable("boxes_invalid")
    try:
        corners = numbers(boxes) if boxes else np.zeros((0, 4))
        values = numbers(scores) if scores else np.zeros(0)
    except Undecodable:
        raise Undecodable("boxes_invalid") from None
    if labels is not None and not isinstance(labels, list):
        raise Undecodable("boxes_invalid")
    return _boxes(corners, values, labels)


def tensor_boxes(outputs: Sequence[Tensor]) -> list[list[Box]]:
    """Read the outputs of a V2 reply; one list of boxes a row.

    Raises:
        Undecodable: ``boxes_invalid``.
    """
    held = {tensor.name.lower(): tensor for tensor in outputs}
    boxes, scores = _first(held, _BOXES), _first(held, _SCORES)
    labels, counts = _first(held, _LABELS), _first(held, _COUNTS)
    if boxes is None or boxes.array is None or scores is None or scores.array is None:
        raise Undecodable("boxes_invalid")
    corners = boxes.array
    if corners.size + scores.array.size > _MAX_NUMBERS:
        raise Undecodable("too_many_values")
    batched = corners.ndim == 3
    names: list[Any] | None = None
    if labels is not None:
        names = (
            [
                text.decode("utf-8", "replace") if isinstance(text, bytes) else text
                for text in labels.elements
            ]
            if labels.elements is not None
            else (labels.array.reshape(-1).tolist() if labels.array is not None else None)
        )
    if not batched:
        return [_boxes(corners, scores.array, names)]
    rows, most = corners.shape[:2]
    if scores.array.shape[:2] != (rows, most) or (names and len(names) != rows * most):
        raise Undecodable("boxes_invalid")
    kept = [most] * rows
    if counts is not None and counts.array is not None and counts.array.size == rows:
        kept = [min(most, max(0, int(n))) for n in counts.array.reshape(-1)]
    return [
        _boxes(
            corners[row, : kept[row]],
            scores.array[row, : kept[row]],
            names[row * most : row * most + kept[row]] if names else None,
        )
        for row in range(rows)
    ]


def _boxes(corners: NDArray[Any], scores: NDArray[Any], labels: Sequence[Any] | None) -> list[Box]:
    if corners.ndim != 2 or corners.shape[1] != 4 or scores.shape[:1] != (len(corners),):
        raise Undecodable("boxes_invalid")
    if labels is not None and len(labels) != len(corners):
        raise Undecodable("boxes_invalid")
    full = scores.reshape(len(corners), -1) if len(corners) else scores.reshape(0, 1)
    if not (np.isfinite(corners).all() and np.isfinite(full).all()):
        raise Undecodable("not_finite")
    found: list[Box] = []
    for index, (x_min, y_min, x_max, y_max) in enumerate(corners.tolist()):
        label = None if labels is None else labels[index]
        if isinstance(label, float) and label == math.floor(label):
            label = int(label)
        found.append(
            {
                "x_min": x_min,
                "y_min": y_min,
                "x_max": x_max,
                "y_max": y_max,
                "label": None if label is None else clean(label),
                "scores": [float(score) for score in full[index]],
            }
        )
    return found


def _first(held: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((held[name] for name in names if name in held), None)
