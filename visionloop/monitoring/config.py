"""What counts as odd: the section ``monitoring`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import ConfigDict

from visionloop.monitoring.drift_config import DriftThresholds
from visionloop.monitoring.loop_config import LoopThresholds
from visionloop.monitoring.sample_config import SampleThresholds


class MonitoringConfig(LoopThresholds, DriftThresholds, SampleThresholds):
    """Thresholds of the checks on samples and on deployed confidences.

    A quality measure (sharpness, brightness, contrast) flags a sample in two ways: below or above
    an absolute limit, always; and as an outlier of the samples seen so far, once there are
    ``min_population`` of them. An outlier has a modified z-score beyond ``outlier_deviations``
    (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993). What a picture is (long, grey,
    tiny, empty) is odd below a limit that is also half the median of its source: where all are so,
    none is odd.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
