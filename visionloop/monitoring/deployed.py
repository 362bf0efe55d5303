"""Windows of deployed confidences, and their drift against the model's own reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.drift import Drift, class_mix_drift, confidence_drift


@dataclass(frozen=True)
class Deployed:
    """The confidences of one model at one endpoint that one round's harvest brought.

    Attributes:
        round_id: The round of the harvest.
        endpoint: Name of the endpoint.
        model_id: The model that answered.
        confidences: Largest probability of each inference, float64 [n].
        labels: Predicted class of each inference, length n.
    """

    round_id: str
    endpoint: str
    model_id: str
    confidences: NDArray[np.float64]
    labels: list[str]


@dataclass(frozen=True)
class Comparison:
    """One comparison of a window: with what, and what it found."""

    window: Deployed
    reference: str
    drift: Drift


def deployed_windows(confidences: pa.Table) -> list[Deployed]:
    """Return the windows of the table ``confidences``, in order of round, endpoint and model.

    Args:
        confidences: Columns round_id, endpoint, model_id, label and confidence; rows without a
            confidence (boxes) are left out.
    """
    wanted = ["round_id", "endpoint", "model_id"]
    known = confidences.filter(pc.is_valid(confidences["confidence"]))
    groups = known.select(wanted).group_by(wanted).aggregate([]).to_pylist()
    windows = []
    for group in sorted(groups, key=lambda g: tuple(g[name] or "" for name in wanted)):
        mask = None
        for name in wanted:
            column = known[name]
            same = pc.is_null(column) if group[name] is None else pc.equal(column, group[name])
            mask = same if mask is None else pc.and_(mask, same)
        rows = known.filter(mask)
        windows.append(
            Deployed(
                group["round_id"] or "",
                group["endpoint"] or "",
                group["model_id"] or "",
                np.asarray(rows["confidence"].to_numpy(), dtype=np.float64),
                [label or "" for label in rows["label"].to_pylist()],
            )
        )
    return windows


def holdout_references(
    predictions: pa.Table, holdout: set[str]
) -> dict[str, tuple[NDArray[np.float64], list[str]]]:
    """Return each model's confidences and classes on the frozen holdout.

    Args:
        predictions: Columns sample_id, model_id, label and confidence.
        holdout: Samples of the holdout.
    """
    if not holdout or not predictions.num_rows:
        return {}
    inside = pc.is_in(predictions["sample_id"], value_set=pa.array(sorted(holdout), pa.string()))
    known = predictions.filter(pc.and_(inside, pc.is_valid(predictions["confidence"])))
    found: dict[str, tuple[list[float], list[str]]] = {}
    for model, label, confidence in zip(
        known["model_id"].to_pylist(),
        known["label"].to_pylist(),
        known["confidence"].to_pylist(),
        strict=True,
    ):
        values, labels = found.setdefault(model, ([], []))
        values.append(confidence)
        labels.append(label or "")
    return {model: (np.array(values), labels) for model, (values, labels) in found.items()}


def newest_windows(windows: list[Deployed]) -> list[Deployed]:
    """Return the windows of each endpoint's newest harvest."""
    newest: dict[str, str] = {}
    for window in windows:
        newest[window.endpoint] = max(newest.get(window.endpoint, ""), window.round_id)
    return [window for window in windows if window.round_id == newest[window.endpoint]]


def compare_window(
    window: Deployed,
    windows: list[Deployed],
    references: Mapping[str, tuple[NDArray[np.float64], list[str]]],
    thresholds: MonitoringConfig,
) -> list[Comparison]:
    """Compare a window with its references.

    The same model's answers on its own holdout tell how traffic differs from what the model was
    measured on; the same model's previous window tells what changed since. Two models are never
    compared: training alone moves confidences.

    Args:
        window: The window to judge.
        windows: All windows, from `deployed_windows`.
        references: From `holdout_references`.
        thresholds: When a difference counts.

    Returns:
        One comparison for each of its references.
    """
    return [
        comparison
        for name, values, labels in references_of(window, windows, references)
        for comparison in _compare(window, name, values, labels, thresholds)
    ]


def references_of(
    window: Deployed,
    windows: Sequence[Deployed],
    references: Mapping[str, tuple[NDArray[np.float64], list[str]]],
) -> list[tuple[str, NDArray[np.float64], list[str]]]:
    """Return what a window can be compared with: name, confidences and classes of each.

    Args:
        window: The window to judge.
        windows: All windows, from `deployed_windows`.
        references: From `holdout_references`.
    """
    found = []
    if window.model_id in references:
        found.append(("holdout", *references[window.model_id]))
    last = previous_window(window, windows)
    if last is not None:
        found.append((f"round {last.round_id}", last.confidences, last.labels))
    return found


def previous_window(window: Deployed, windows: Sequence[Deployed]) -> Deployed | None:
    """Return what the same model said at the same endpoint by the harvest before.

    Args:
        window: A window.
        windows: All windows, from `deployed_windows`.
    """
    before = [
        other
        for other in windows
        if (other.endpoint, other.model_id) == (window.endpoint, window.model_id)
        and other.round_id < window.round_id
    ]
    return before[-1] if before else None


def _compare(
    window: Deployed,
    reference: str,
    values: NDArray[np.float64],
    labels: list[str],
    thresholds: MonitoringConfig,
) -> list[Comparison]:
    return [
        Comparison(window, reference, confidence_drift(values, window.confidences, thresholds)),
        Comparison(window, reference, class_mix_drift(labels, window.labels, thresholds)),
    ]
