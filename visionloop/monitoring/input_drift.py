"""Drift of what sources bring: of their pixels, their embeddings, and what a model says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.arrivals import Arrivals
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.drift import (
    DRIFT,
    NOTHING_TO_COMPARE,
    STABLE,
    TOO_FEW,
    Drift,
    class_mix_drift,
    embedding_drift,
    values_drift,
)
from visionloop.monitoring.energy import ROWS, farthest
from visionloop.vectors.exact import Floats

PIXELS = ("brightness", "contrast", "sharpness", "saturation", "entropy")
# Each measure of the pixels, embeddings, predictions.
INPUT_TESTS = len(PIXELS) + 2
PIXEL_DRIFT, EMBEDDING_DRIFT = "pixel_drift", "input_embedding_drift"
PREDICTION_DRIFT, SOURCE_DRIFT = "prediction_drift", "source_drift"
IMAGES = 6

# Vectors of rows of `samples`: which of them have one, and these.
Vectors = Callable[[NDArray[np.intp]], tuple[NDArray[np.intp], Floats]]


@dataclass(frozen=True)
class Predicted:
    """What one model said of the samples.

    Attributes:
        model_id: The model.
        known: Whether it said something of each row of ``samples``, bool [N].
        labels: The class that it named, object [N].
        confidences: How sure it was, [N].
    """

    model_id: str
    known: NDArray[np.bool_]
    labels: NDArray[np.object_]
    confidences: NDArray[np.floating]


@dataclass(frozen=True)
class InputComparison:
    """One comparison of what a source brought.

    Attributes:
        arrivals: What was compared with what.
        drift: What was found.
        rows: Rows of ``samples`` among the newest that lie farthest out, the farthest first.
        model_id: The model whose answers were compared; empty for none.
    """

    arrivals: Arrivals
    drift: Drift
    rows: tuple[int, ...] = ()
    model_id: str = ""


def compare_arrivals(
    one: Arrivals,
    pixels: Mapping[str, NDArray[np.floating]],
    vectors: Vectors,
    predicted: Predicted | None,
    thresholds: MonitoringConfig,
) -> list[InputComparison]:
    """Compare what a source brought last with its reference.

    Args:
        one: What is compared with what.
        pixels: Each of `PIXELS` for all rows of ``samples``, [N], NaN where it is not known.
        vectors: Returns the embeddings of rows.
        predicted: What a model said of the samples; None where none has.
        thresholds: When a difference counts.

    What differs from all that the model learned, but not from one part of it, is stable, and is
    told as compared with that part.

    Returns:
        Of a source that the model learned from, its pixels, embeddings and predictions; of a new
        one a single comparison, of what differs most.
    """
    if one.reason:
        kinds = (SOURCE_DRIFT,) if one.new else (PIXEL_DRIFT, EMBEDDING_DRIFT, PREDICTION_DRIFT)
        return [_nothing(one, kind, one.reason, thresholds) for kind in kinds]
    found = _compare(one, pixels, vectors, predicted, thresholds)
    for part in one.parts:
        if all(c.drift.state != DRIFT for c in found):
            break
        near = replace(one, before=part.rows, reference=part.reference)
        again = _compare(near, pixels, vectors, predicted, thresholds)
        found = [
            alike if c.drift.state == DRIFT and _is_alike(alike.drift) else c
            for c, alike in zip(found, again, strict=True)
        ]
    return found


def _is_alike(drift: Drift) -> bool:
    """Return whether a difference is small, whatever chance may say of it."""
    return drift.state == STABLE and drift.score <= drift.threshold


def _compare(
    one: Arrivals,
    pixels: Mapping[str, NDArray[np.floating]],
    vectors: Vectors,
    predicted: Predicted | None,
    thresholds: MonitoringConfig,
) -> list[InputComparison]:
    measures = [_pixels(one, name, pixels[name], thresholds) for name in PIXELS]
    apart = _embeddings(one, vectors, thresholds)
    if one.new:
        most = _worst([*measures, apart])
        told = replace(most.drift, kind=SOURCE_DRIFT)
        return [replace(most, drift=told)]
    return [_worst(measures), apart, _predictions(one, predicted, thresholds)]


def _pixels(
    one: Arrivals, name: str, values: NDArray[np.floating], thresholds: MonitoringConfig
) -> InputComparison:
    before, newest = values[one.before], values[one.newest]
    known = np.isfinite(newest)
    drift = values_drift(
        PIXEL_DRIFT,
        name,
        before[np.isfinite(before)],
        newest[known],
        thresholds.pixel_drift_above,
        thresholds,
        look=one.look,
        tests=INPUT_TESTS,
    )
    rows = one.newest[known]
    order = np.argsort(values[rows], kind="stable")
    if drift.before is not None and drift.after is not None and drift.after > drift.before:
        order = order[::-1]
    return InputComparison(one, drift, tuple(int(row) for row in rows[order[:IMAGES]]))


def _embeddings(one: Arrivals, vectors: Vectors, thresholds: MonitoringConfig) -> InputComparison:
    most = max(ROWS, thresholds.drift_min_events)
    _, before = vectors(drawn(one.before, most))
    rows, newest = vectors(drawn(one.newest, most))
    if not len(before) or not len(newest):
        return _nothing(one, EMBEDDING_DRIFT, "there are no embeddings of both", thresholds)
    drift = embedding_drift(
        before, newest, thresholds, kind=EMBEDDING_DRIFT, look=one.look, tests=INPUT_TESTS
    )
    if drift.state != TOO_FEW:
        drift = replace(drift, n_reference=len(one.before), n_current=len(one.newest))
    far = farthest(before, newest, IMAGES)
    return InputComparison(one, drift, tuple(int(rows[place]) for place in far))


def drawn(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most so many of some rows, drawn with a seed of their own: always the same.

    Args:
        rows: Row numbers, [n].
        most: How many are enough.
    """
    if len(rows) <= most:
        return rows
    rng = np.random.Generator(np.random.PCG64(len(rows)))
    return np.sort(rng.choice(rows, most, replace=False))


def _predictions(
    one: Arrivals, predicted: Predicted | None, thresholds: MonitoringConfig
) -> InputComparison:
    if predicted is None:
        return _nothing(one, PREDICTION_DRIFT, "no model has predicted yet", thresholds)
    before = one.before[predicted.known[one.before]]
    newest = one.newest[predicted.known[one.newest]]
    if not len(before) or not len(newest):
        told = "no model has named a class of both"
        return _nothing(one, PREDICTION_DRIFT, told, thresholds, predicted.model_id)
    drift = class_mix_drift(
        list(predicted.labels[before]),
        list(predicted.labels[newest]),
        thresholds,
        kind=PREDICTION_DRIFT,
        look=one.look,
        tests=INPUT_TESTS,
    )
    moved = [f"share of the class {label}" == drift.measure for label in predicted.labels[newest]]
    rows = newest[np.array(moved, bool)]
    rows = rows[np.argsort(-predicted.confidences[rows], kind="stable")[:IMAGES]]
    return InputComparison(one, drift, tuple(int(row) for row in rows), predicted.model_id)


def _worst(found: list[InputComparison]) -> InputComparison:
    """Return what has drifted most, else what came nearest to it; an answer before none."""
    order = (NOTHING_TO_COMPARE, TOO_FEW, STABLE, DRIFT)
    return max(found, key=lambda c: (order.index(c.drift.state), c.drift.score / c.drift.threshold))


def _nothing(
    one: Arrivals, kind: str, reason: str, thresholds: MonitoringConfig, model_id: str = ""
) -> InputComparison:
    threshold = {
        EMBEDDING_DRIFT: thresholds.embedding_drift_above,
        PREDICTION_DRIFT: thresholds.class_mix_drift_above,
    }.get(kind, thresholds.pixel_drift_above)
    drift = Drift(
        kind,
        0.0,
        threshold,
        math.nan,
        len(one.before),
        len(one.newest),
        NOTHING_TO_COMPARE,
        look=one.look,
        reason=reason,
    )
    return InputComparison(one, drift, (), model_id)
