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
from visionloop.words import round_name

# What tells which image an inference was of.
IDENTITY = ("sample_id", "tensor_sha256", "request_sha256", "row")
WINDOW_COLUMNS = ("round_id", "run_id", "endpoint", "model_id", "label", "confidence", *IDENTITY)
HOLDOUT = "holdout"
# Samples that a flag shows.
IMAGES = 6


@dataclass(frozen=True)
class Deployed:
    """The confidences of one model at one endpoint that one round's harvest brought.

    Attributes:
        round_id: The round of the harvest.
        endpoint: Name of the endpoint.
        model_id: The model that answered.
        confidences: Largest probability of each inference, float64 [n].
        labels: Predicted class of each inference, length n.
        images: Number of the image of each inference, the same where it is asked again, int [n].
        samples: The sample of each inference, null where it is not known; None where none is.
        looks: Harvests that brought a part of it: so often it may have been looked at.
    """

    round_id: str
    endpoint: str
    model_id: str
    confidences: NDArray[np.float64]
    labels: list[str]
    images: NDArray[np.intp]
    samples: pa.Array | None = None
    looks: int = 1

    def once(self) -> tuple[NDArray[np.float64], list[str]]:
        """Return the confidence and the class of each different image."""
        rows = np.unique(self.images, return_index=True)[1]
        return self.confidences[rows], [self.labels[row] for row in rows]

    @property
    def n_images(self) -> int:
        """Number of different images."""
        return len(np.unique(self.images))

    def shown(self, rows: NDArray[np.intp]) -> tuple[str, ...]:
        """Return the samples of some inferences, as they come, each once and at most `IMAGES`."""
        if self.samples is None:
            return ()
        found: dict[str, None] = {}
        for row in rows:
            sample = self.samples[int(row)].as_py()
            if sample:
                found[sample] = None
            if len(found) == IMAGES:
                break
        return tuple(found)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a window.

    Attributes:
        window: The window.
        reference: What it was compared with: ``holdout``, or ``round 3``.
        drift: What was found.
        images: Samples of the window that lie farthest out, the farthest first.
    """

    window: Deployed
    reference: str
    drift: Drift
    images: tuple[str, ...] = ()


def deployed_windows(confidences: pa.Table) -> list[Deployed]:
    """Return the windows of the table ``confidences``, in order of round, endpoint and model.

    Args:
        confidences: `WINDOW_COLUMNS`; rows without a confidence (boxes) are left out.
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
                asked_images(rows),
                rows["sample_id"].combine_chunks(),
                max(1, pc.count_distinct(rows["run_id"]).as_py()),
            )
        )
    return windows


def asked_images(rows: pa.Table) -> NDArray[np.intp]:
    """Number the images that inferences were of: one number for an image that is asked again.

    An image is known by its sample, a tensor by its hash, and of a request that nobody could take
    apart each row by the body's hash. An inference of which nothing is known is of another image.

    Args:
        rows: Columns `IDENTITY`.

    Returns:
        int [n].
    """
    place = pc.binary_join_element_wise(rows["request_sha256"], rows["row"].cast(pa.string()), ":")
    known = pc.coalesce(rows["sample_id"], rows["tensor_sha256"], place).combine_chunks()
    numbers = known.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.intp)
    unknown = numbers < 0
    numbers[unknown] = len(numbers) + np.arange(unknown.sum())
    return np.asarray(numbers)


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


def judged_windows(windows: list[Deployed], thresholds: MonitoringConfig) -> list[Deployed]:
    """Return the windows that drift is told of: the newest, and what it is too small to take back.

    Args:
        windows: All windows, from `deployed_windows`.
        thresholds: ``drift_min_events``.

    Returns:
        The windows of each endpoint's newest harvest. Behind one that is too small, the newest of
        the same model that is not: what was found in it stands until a later one denies it.
    """
    found = []
    for window in newest_windows(windows):
        found.append(window)
        least = thresholds.drift_min_events
        if window.n_images < least:
            enough = [w for w in _before(window, windows) if w.n_images >= least]
            found += enough[-1:]
    return found


def look_of(window: Deployed, windows: Sequence[Deployed]) -> int:
    """Return which look a window is at its references: how many harvests of its model there were.

    Args:
        window: A window.
        windows: All windows, from `deployed_windows`.
    """
    return sum(one.looks for one in _before(window, windows)) + window.looks


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

    Each different image counts once, however often it was asked about: the holdout has each once,
    and one image a thousand times is no thousand witnesses.

    Args:
        window: The window to judge.
        windows: All windows, from `deployed_windows`.
        references: From `holdout_references`.
        thresholds: When a difference counts.

    Returns:
        One comparison for each of its references.
    """
    look = look_of(window, windows)
    return [
        comparison
        for name, values, labels in references_of(window, windows, references)
        for comparison in _compare(window, name, values, labels, thresholds, look)
    ]


def references_of(
    window: Deployed,
    windows: Sequence[Deployed],
    references: Mapping[str, tuple[NDArray[np.float64], list[str]]],
) -> list[tuple[str, NDArray[np.float64], list[str]]]:
    """Return what a window can be compared with: its name, and confidence and class of each image.

    Args:
        window: The window to judge.
        windows: All windows, from `deployed_windows`.
        references: From `holdout_references`.
    """
    found = []
    if window.model_id in references:
        found.append((HOLDOUT, *references[window.model_id]))
    last = previous_window(window, windows)
    if last is not None:
        found.append((round_name(last.round_id), *last.once()))
    return found


def previous_window(window: Deployed, windows: Sequence[Deployed]) -> Deployed | None:
    """Return what the same model said at the same endpoint by the harvest before.

    Args:
        window: A window.
        windows: All windows, from `deployed_windows`.
    """
    return next(iter(reversed(_before(window, windows))), None)


def _before(window: Deployed, windows: Sequence[Deployed]) -> list[Deployed]:
    return [
        other
        for other in windows
        if (other.endpoint, other.model_id) == (window.endpoint, window.model_id)
        and other.round_id < window.round_id
    ]


def _compare(
    window: Deployed,
    reference: str,
    values: NDArray[np.float64],
    labels: list[str],
    thresholds: MonitoringConfig,
    look: int,
) -> list[Comparison]:
    confidences, said = window.once()
    sure = confidence_drift(values, confidences, thresholds, look=look)
    mix = class_mix_drift(labels, said, thresholds, look=look)
    return [
        Comparison(window, reference, sure, window.shown(_outermost(window, sure))),
        Comparison(window, reference, mix, window.shown(_of_class(window, mix))),
    ]


def _outermost(window: Deployed, drift: Drift) -> NDArray[np.intp]:
    """Return the inferences that are least sure where confidence fell, else the surest, first."""
    order = np.argsort(window.confidences, kind="stable")
    fell = drift.before is not None and drift.after is not None and drift.after < drift.before
    return np.asarray(order if fell else order[::-1])


def _of_class(window: Deployed, drift: Drift) -> NDArray[np.intp]:
    """Return the inferences of the class whose share moved most, the surest first."""
    moved = np.array([f"share of the class {label}" == drift.measure for label in window.labels])
    rows = np.flatnonzero(moved)
    return np.asarray(rows[np.argsort(-window.confidences[rows], kind="stable")])
