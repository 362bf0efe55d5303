"""Falling confidence: is the deployed model less sure than it was, by how much, and really?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.deployed import Deployed, look_of, references_of
from visionloop.monitoring.looks import level_of_look


@dataclass(frozen=True)
class Fall:
    """The mean confidence of a window beside that of one of its references.

    Attributes:
        endpoint: Name of the endpoint.
        model_id: The model that answered in both.
        reference: ``holdout``, or ``round 3``.
        before: Mean confidence of the reference; of a calibrated model its expected accuracy.
        now: Mean confidence of the window.
        n_before: Different images in the reference.
        n_now: Different images in the window.
        state: ``real`` (significant), ``chance`` (not told apart from none), ``too few to say``.
    """

    endpoint: str
    model_id: str
    reference: str
    before: float
    now: float
    n_before: int
    n_now: int
    state: str

    @property
    def drop(self) -> float:
        """How far the mean fell; negative where it rose."""
        return self.before - self.now


def confidence_falls(
    window: Deployed,
    windows: Sequence[Deployed],
    references: Mapping[str, tuple[NDArray[np.float64], list[str]]],
    thresholds: MonitoringConfig,
) -> list[Fall]:
    """Compare the mean confidence of a window with each of its references, each image once.

    A fall is real when Welch's statistic for two means lies beyond the one-sided normal quantile of
    this look's share of ``drift_significance`` (`visionloop.monitoring.looks`); with
    ``drift_min_events`` in both windows the normal is near enough (Welch, The generalization of
    Student's problem, Biometrika 34, 1947).

    Args:
        window: The window to judge.
        windows: All windows, from `deployed_windows`.
        references: From `holdout_references`.
        thresholds: ``drift_significance``, ``drift_min_events``.

    Returns:
        One entry for each of its references; one that is too small to tell says so.
    """
    now = window.once()[0]
    level = level_of_look(look_of(window, windows), thresholds.drift_significance)
    return [
        Fall(
            window.endpoint,
            window.model_id,
            name,
            _mean(values),
            _mean(now),
            len(values),
            len(now),
            _state(values, now, thresholds, level),
        )
        for name, values, _ in references_of(window, windows, references)
    ]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _state(
    before: NDArray[np.float64],
    now: NDArray[np.float64],
    thresholds: MonitoringConfig,
    level: float,
) -> str:
    if min(len(before), len(now)) < thresholds.drift_min_events:
        return "too few to say"
    error = math.sqrt(before.var(ddof=1) / len(before) + now.var(ddof=1) / len(now))
    limit = NormalDist().inv_cdf(1 - level)
    return "real" if _mean(before) - _mean(now) > limit * error else "chance"
