"""Blurred, dark, bright and flat pictures, told apart from pictures that are merely different.

What is blurred among photographs is sharp among digits of 32 x 32 pixels, so a limit is set by the
population: the modified z-score of a logarithm, with the median and the median absolute deviation
(MAD) in place of mean and standard deviation, which planted or real defects would inflate
(Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993). The logarithm makes a lost factor
of light or sharpness count the same at every level. An absolute limit holds beside it, for the
first few samples and for populations that are mostly defective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.config import MonitoringConfig

Values = NDArray[np.float64]

# 0.6745 is the third quartile of the normal distribution: the MAD of normal data in deviations.
_MAD_TO_DEVIATION = 0.6745
# Rounding to 256 grey values adds noise of variance (1/255)^2 / 12 to each pixel. The measure's
# filter (a binomial 3 x 3, then the Laplacian) has squared weights that sum to 13/32. In a strongly
# blurred or a dim picture that noise is most of what looks sharp.
_ROUNDING = 13 / 32 / 12 / 255**2
# With fewer than about ten grey levels in use, sharpness says nothing.
_COARSE = 0.04
# Below this the logarithm would blow up the noise of nearly black pictures.
_TINY = 1e-6


@dataclass(frozen=True)
class Limit:
    """The limit that one measure was held to in one population.

    Attributes:
        kind: ``blurred``, ``dark``, ``bright``, ``low_contrast``, ``low_information``,
            ``odd_aspect``, ``grey`` or ``tiny``.
        measure: What was measured.
        value: The limit, in units of the measure.
        above: Whether values above the limit are flagged, otherwise those below.
        median: Median of the population, in units of the measure.
        population: Number of samples in the population.
        rule: ``absolute``, ``outlier`` or ``half the median``, whichever set the limit.
    """

    kind: str
    measure: str
    value: float
    above: bool
    median: float
    population: int
    rule: str

    def flags(self, values: Values) -> NDArray[np.bool_]:
        """Return which values lie beyond the limit."""
        return values > self.value if self.above else values < self.value


def net_sharpness(sharpness: Values, contrast: Values) -> Values:
    """Return sharpness without the part that rounding to 256 grey values puts there, at least 0.

    Args:
        sharpness: Variance of the Laplacian over the variance of the grey values, shape [n].
        contrast: Standard deviation of the grey values in [0, 1], shape [n].
    """
    return np.maximum(0.0, sharpness - _ROUNDING / np.maximum(contrast, 1e-3) ** 2)


def limits(
    sharpness: Values, brightness: Values, contrast: Values, thresholds: MonitoringConfig
) -> list[Limit]:
    """Return the limit of each kind for a population.

    Args:
        sharpness: Sharpness of each sample of the population, see `net_sharpness`, shape [n].
        brightness: Mean brightness of each sample in [0, 1], shape [n].
        contrast: Standard deviation of brightness of each sample, shape [n].
        thresholds: Absolute limits, ``outlier_deviations`` and ``min_population``.
    """
    return [
        _limit("blurred", "sharpness", sharpness, thresholds.blurred_below, thresholds),
        _limit("dark", "brightness", brightness, thresholds.dark_below, thresholds),
        _limit("bright", "brightness", brightness, thresholds.bright_above, thresholds, above=True),
        _limit("low_contrast", "contrast", contrast, thresholds.low_contrast_below, thresholds),
    ]


def oddities(measures: Mapping[str, Values], thresholds: MonitoringConfig) -> list[Limit]:
    """Return the limits of what a picture is, rather than how well it was taken.

    Args:
        measures: ``entropy`` in bits, ``aspect`` (shorter over longer side), ``saturation`` and
            ``side`` (pixels of the shorter one) of each sample of the population, shape [n] each;
            NaN where one is not known.
        thresholds: Limits, and ``min_population``.
    """
    return [
        _unusual(
            "low_information", "entropy", measures, thresholds.low_information_below, thresholds
        ),
        _unusual("odd_aspect", "aspect", measures, thresholds.odd_aspect_below, thresholds),
        _unusual("grey", "saturation", measures, thresholds.grey_below, thresholds),
        _unusual("tiny", "side", measures, thresholds.tiny_below, thresholds),
    ]


def _unusual(
    kind: str,
    measure: str,
    measures: Mapping[str, Values],
    absolute: float,
    thresholds: MonitoringConfig,
) -> Limit:
    values = measures[measure]
    known = values[np.isfinite(values)]
    median = float(np.median(known)) if len(known) else math.nan
    usual = len(known) >= thresholds.min_population and median / 2 < absolute
    limit, rule = (median / 2, "half the median") if usual else (absolute, "absolute")
    return Limit(kind, measure, limit, False, median, len(known), rule)


def telling(kinds: set[str], contrast: float) -> set[str]:
    """Return the kinds that name the cause, without those that follow from it.

    Too little or too much light takes contrast, colour and detail with it, and blur takes contrast.
    A picture that is nearly empty may be called anything else, too. Its shape is a matter apart.

    Args:
        kinds: Kinds whose limit a sample is beyond.
        contrast: Its contrast.
    """
    apart = kinds & {"odd_aspect", "tiny", "low_information"}
    if kinds & {"dark", "bright"}:
        return apart | kinds & {"dark", "bright"}
    if "low_information" in kinds:
        return apart | kinds & {"low_contrast"}
    if "low_contrast" in kinds:
        kinds = kinds - {"grey"}
    if {"blurred", "low_contrast"} <= kinds:
        return kinds - ({"blurred"} if contrast < _COARSE else {"low_contrast"})
    return kinds


def _limit(
    kind: str,
    measure: str,
    values: Values,
    absolute: float,
    thresholds: MonitoringConfig,
    *,
    above: bool = False,
) -> Limit:
    known = values[np.isfinite(values)]
    # Brightness that is too high is light that lacks nothing but shade: the logarithm of what is
    # missing from white, so that both ends are treated alike.
    to_log: Callable[[Values], Values] = (
        (lambda x: -np.log(np.maximum(1 - x, _TINY)))
        if above
        else (lambda x: np.log(np.maximum(x, _TINY)))
    )
    median = float(np.median(known)) if len(known) else math.nan
    if len(known) < thresholds.min_population:
        return Limit(kind, measure, absolute, above, median, len(known), "absolute")
    logs = to_log(known)
    centre = float(np.median(logs))
    # The material difference: a factor of two at least. Where most samples are alike (studio
    # light, one camera) the MAD is nearly 0, and every ordinary difference would be an outlier.
    reach = max(
        thresholds.outlier_deviations * float(np.median(np.abs(logs - centre))) / _MAD_TO_DEVIATION,
        math.log(2),
    )
    if above:
        outlier = 1 - math.exp(-(centre + reach))
        rule = "outlier" if outlier < absolute else "absolute"
        return Limit(kind, measure, min(outlier, absolute), above, median, len(known), rule)
    outlier = math.exp(centre - reach)
    rule = "outlier" if outlier > absolute else "absolute"
    return Limit(kind, measure, max(outlier, absolute), above, median, len(known), rule)
