"""The embedding in a reply: an output, or a key of each row, of the name ``embedding``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.serving.bodies import Undecodable
from visionloop.serving.tensors import Tensor, numbers

NAME = "embedding"


def of_outputs(outputs: Sequence[Tensor], rows: int) -> NDArray[np.float32] | None:
    """Return the embedding of each row of a V2 reply, float32 [rows, d]; None where it has none."""
    for tensor in outputs:
        if tensor.name.lower() == NAME and tensor.array is not None:
            return _checked(tensor.array, rows)
    return None


def of_predictions(predictions: Sequence[Any]) -> NDArray[np.float32] | None:
    """Return the embedding of each row of a V1 reply, float32 [rows, d]; None where it has none."""
    held = [row.get(NAME) if isinstance(row, dict) else None for row in predictions]
    if not held or not all(isinstance(one, list) for one in held):
        return None
    try:
        return _checked(numbers(held), len(held))
    except Undecodable:
        return None


def _checked(array: NDArray[Any], rows: int) -> NDArray[np.float32] | None:
    """Return an array as embeddings; None for what is none: the reply's rest is good without."""
    if array.ndim != 2 or len(array) != rows or array.shape[1] < 2 or array.dtype.kind not in "fiu":
        return None
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(array, np.float32)
    return found if np.isfinite(found).all() else None
