"""Which of a reply's outputs are class probabilities, and whether they are probabilities at all.

Kept are only whole distributions: at least two classes, every value finite and in [0, 1], each row
summing to 1 within 1e-3. Rejected, with these reasons:

====================== ===================================================================
``single_score``        one number a row: a sigmoid, or the score of the top class alone
``top_k_only``          labels with scores that do not add up to a whole distribution
``label_only``          labels without probabilities
``not_finite``          NaN or infinity
``not_probabilities``   values outside [0, 1]: logits
``sum_not_1``           values in [0, 1] that do not sum to 1
``ragged``              rows of different lengths
``ambiguous_outputs``   several outputs are distributions, and none is named so
``no_probabilities``    nothing in the reply looks like class probabilities
====================== ===================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.serving.bodies import Undecodable
from visionloop.serving.tensors import FLOATS, Tensor, first_problem

TOLERANCE = 1e-3

_NAMED = re.compile(r"prob|softmax", re.IGNORECASE)
_NOT_NAMED = re.compile(r"log[_-]?prob|calib", re.IGNORECASE)
_EXACT = frozenset({"probabilities", "probs", "probability", "class_probabilities"})
_OTHER = re.compile(r"embed|feature|logit|latent|hidden|attention", re.IGNORECASE)


def probabilities(outputs: Sequence[Tensor]) -> NDArray[np.float32]:
    """Choose the output that holds class probabilities.

    An output whose name says so wins and must then be right; without one, the only float output
    that is a distribution is taken.

    Args:
        outputs: All outputs, in any order.

    Returns:
        float32 [rows, classes], bit for bit as they were answered.

    Raises:
        Undecodable: With a reason of the table above, or the problem of the output's values.
    """
    named = [t for t in outputs if _NAMED.search(t.name) and not _NOT_NAMED.search(t.name)]
    exact = [t for t in named if t.name.lower() in _EXACT]
    if len(exact) == 1:
        return _checked(exact[0])
    if len(named) == 1:
        return _checked(named[0])
    pool = named or [t for t in outputs if t.datatype in FLOATS and not _OTHER.search(t.name)]
    if not pool:
        broken = first_problem([t for t in outputs if not _OTHER.search(t.name)], "")
        if broken:
            raise Undecodable(broken)
        labels = any(t.datatype == "BYTES" for t in outputs)
        raise Undecodable("label_only" if labels else "no_probabilities")
    found: list[NDArray[np.float32]] = []
    reasons: list[str] = []
    for tensor in pool:
        try:
            found.append(_checked(tensor))
        except Undecodable as error:
            reasons.append(error.reason)
    if len(found) > 1:
        raise Undecodable("ambiguous_outputs")
    if not found:
        raise Undecodable(reasons[0] if len(set(reasons)) == 1 else "no_probabilities")
    return found[0]


def _checked(tensor: Tensor) -> NDArray[np.float32]:
    if tensor.problem:
        raise Undecodable(tensor.problem)
    if tensor.array is None:
        raise Undecodable("not_numbers")
    return distribution(tensor.array)


def distribution(values: NDArray[Any]) -> NDArray[np.float32]:
    """Check that an array is class probabilities.

    Args:
        values: Numbers [rows, classes], or [classes] for one row; axes of length 1 after the first
            are dropped.

    Returns:
        float32 [rows, classes].

    Raises:
        Undecodable: With a reason of the table above.
    """
    if values.dtype.kind not in "iuf":
        raise Undecodable("not_numbers")
    if values.ndim > 2:
        values = values.reshape([values.shape[0], *(n for n in values.shape[1:] if n != 1)])
    if values.ndim == 0 or (values.ndim == 1 and values.size < 2):
        raise Undecodable("single_score")
    if values.ndim == 1:
        # A vector is one row's distribution, or one score for each of several rows.
        try:
            return distribution(values[None])
        except Undecodable as error:
            reason = "single_score" if error.reason == "sum_not_1" else error.reason
            raise Undecodable(reason) from None
    if values.ndim > 2:
        raise Undecodable("no_probabilities")
    if values.shape[0] == 0:
        raise Undecodable("no_rows")
    if values.shape[1] < 2:
        raise Undecodable("single_score" if np.isfinite(values).all() else "not_finite")
    with np.errstate(over="ignore"):
        kept = np.ascontiguousarray(values, dtype="<f4")
    if not np.isfinite(kept).all():
        raise Undecodable("not_finite")
    if (kept < 0).any() or (kept > 1).any():
        raise Undecodable("not_probabilities")
    if (np.abs(kept.sum(axis=1, dtype=np.float64) - 1.0) > TOLERANCE).any():
        raise Undecodable("sum_not_1")
    return kept
