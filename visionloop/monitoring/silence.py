"""Cameras that should have been heard from by now, by their own pace.

How likely a gap is that lasts for so long already is told from the gaps that the camera had before,
as a prediction of one more of them: their logarithms against Student's t, with the deviation of
those above the median, floored at a tenth. A camera that speaks several times a day is
judged by the longest gap of each day, so that its nights are in its history and alarm nobody.

False alarms are counted over the whole life of all cameras: each gap (or day) is one more chance of
one, so the n-th of a camera gets the share n0/(n·(n + 1)) of the level, which sums to 1 from the
first judged one n0 on, and the cameras share it (alpha spending as a series; Foster and Stine,
"Alpha-investing", Journal of the Royal Statistical Society B, 2008, section 3). Looking more often
at one gap adds no chance: it is flagged from one length on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.sample_config import SampleThresholds

Values = NDArray[np.float64]
Moments = NDArray[np.datetime64]

# A camera's pace may change over the years; so many of its newest gaps or days tell it.
_NEWEST = 365
# From so many arrivals a day on, its days are what is alike.
_OFTEN = 5
# Clocked arrivals have hardly any deviation, and half a gap of delay is no silence.
_LEAST_DEVIATION = 0.1
# Of hours: more than a floating point number holds lies behind it.
_LONGEST_LOG = 700.0


@dataclass(frozen=True)
class Silence:
    """One camera's present gap.

    Attributes:
        camera: Its name.
        state: ``silent``, ``heard``, or ``too few`` gaps to say.
        last: When it was heard last, UTC.
        hours: Length of the gap so far.
        usual_hours: Median of what was seen before: its gaps, or the longest gap of each day; NaN
            where there are too few.
        longest_hours: The longest of them.
        threshold_hours: The gap from which on it counts as silent.
        probability: Of a gap that long, by its history; NaN where there are too few.
        level: What the probability was held against.
        n: Number of its gaps, or days, before.
        of: ``gaps`` or ``days``.
    """

    camera: str
    state: str
    last: datetime
    hours: float
    usual_hours: float
    longest_hours: float
    threshold_hours: float
    probability: float
    level: float
    n: int
    of: str


def silences(
    heard: Mapping[str, Moments], now: datetime, thresholds: SampleThresholds
) -> list[Silence]:
    """Judge the present gap of each camera.

    Args:
        heard: When something came from each camera, UTC, in any order; equal moments, such as
            those of one ingest, count once.
        now: Until when there was somebody to hear it, with its time zone.
        thresholds: ``silence_significance`` and ``silence_min_gaps``.

    Returns:
        One for each camera that was heard at all, by name.
    """
    until = np.datetime64(_naive(now), "us")
    seen: list[tuple[str, np.datetime64, Values, str]] = []
    for camera in sorted(heard):
        moments = np.unique(heard[camera].astype("datetime64[us]"))
        moments = moments[moments <= until]
        if len(moments):
            seen.append((camera, moments[-1], *_history(moments)))
    enough = sum(len(before) >= thresholds.silence_min_gaps for _, _, before, _ in seen)
    return [_judged(*one, until, enough, thresholds) for one in seen]


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def _history(moments: Moments) -> tuple[Values, str]:
    """Return the gaps in hours, or the longest that ended on each day, and which of both."""
    gaps = np.diff(moments) / np.timedelta64(1, "h")
    days = float((moments[-1] - moments[0]) / np.timedelta64(24, "h"))
    if len(gaps) < _OFTEN * max(days, 1.0):
        return gaps, "gaps"
    # Days run backwards from its last word: midnight in UTC means nothing to a camera.
    ended = ((moments[-1] - moments[1:]) // np.timedelta64(24, "h")).astype(np.intp)
    longest = np.zeros(int(ended.max()) + 1)
    np.maximum.at(longest, ended, gaps)
    # The oldest day is a part of one, and a day without a word lies within a longer gap.
    return longest[:-1][longest[:-1] > 0][::-1], "days"


def _judged(
    camera: str,
    last: np.datetime64,
    before: Values,
    of: str,
    until: np.datetime64,
    n_cameras: int,
    thresholds: SampleThresholds,
) -> Silence:
    hours, n = float((until - last) / np.timedelta64(1, "h")), len(before)
    when = last.astype(datetime)
    if n < thresholds.silence_min_gaps:
        nan = math.nan
        return Silence(camera, "too few", when, hours, nan, nan, nan, nan, 0.0, n, of)
    spent = thresholds.silence_min_gaps / (n * (n + 1))
    level = thresholds.silence_significance * spent / n_cameras
    newest = before[-_NEWEST:]
    logs = np.log(newest)
    middle = float(np.median(logs))
    above = logs[logs >= middle] - middle
    deviation = max(math.sqrt(float((above**2).mean())), _LEAST_DEVIATION)
    deviation *= math.sqrt(1 + 1 / len(newest))
    # The deviation is told by half of the values.
    from scipy import stats

    student = stats.t(max(2, len(above) - 1))
    probability = float(student.sf((math.log(max(hours, 1e-9)) - middle) / deviation))
    # Of many cameras without any rhythm no gap is long enough, however large a number can be.
    threshold = math.exp(min(middle + deviation * float(student.isf(level)), _LONGEST_LOG))
    return Silence(
        camera, "silent" if hours > threshold else "heard", when, hours, math.exp(middle),
        float(newest.max()), threshold, probability, level, n, of,
    )  # fmt: skip
