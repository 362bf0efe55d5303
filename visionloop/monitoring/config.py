"""What counts as odd: the ``monitoring`` section of ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MonitoringConfig(BaseModel):
    """Thresholds of the checks on samples and on deployed confidences.

    A quality measure (sharpness, brightness, contrast) flags a sample in two ways: below or above
    an absolute limit, always; and as an outlier of the samples seen so far, once there are
    ``min_population`` of them. An outlier has a modified z-score beyond ``outlier_deviations``
    (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    near_duplicate_distance: int = Field(
        default=24,
        ge=0,
        le=256,
        description="Bits of 256 by which two fingerprints may differ for their pictures to be "
        "compared pixel by pixel.",
    )
    near_duplicate_likeness: float = Field(
        default=0.99,
        ge=0,
        le=1,
        description="Correlation of the pixels, over small crops, from which on two pictures count "
        "as the same.",
    )
    min_population: int = Field(
        default=50,
        ge=8,
        description="Samples needed before one can be an outlier among them; absolute limits hold "
        "from the first sample on.",
    )
    outlier_deviations: float = Field(
        default=4.5,
        gt=0,
        description="Modified z-score (0.6745 times the distance from the median, in median "
        "absolute deviations) beyond which a sample is an outlier; 3.5 finds more and flags about "
        "5 in 1,000 sound ones.",
    )
    blurred_below: float = Field(
        default=1e-3,
        ge=0,
        description="Sharpness (variance of the Laplacian over that of the grey values, without "
        "rounding noise; photographs have 0.003 to 0.3) below which a sample is blurred "
        "whatever the others look like.",
    )
    dark_below: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Mean brightness (0 black, 1 white) below which a sample is dark whatever the "
        "others look like.",
    )
    bright_above: float = Field(
        default=0.98,
        ge=0,
        le=1,
        description="Mean brightness above which a sample is bright whatever the others look like.",
    )
    low_contrast_below: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Standard deviation of brightness below which a sample has low contrast "
        "whatever the others look like.",
    )
    drift_min_events: int = Field(
        default=100,
        ge=20,
        description="Deployed confidences needed in each of two windows before drift is judged.",
    )
    drift_significance: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="Probability of a false alarm in one comparison of two windows.",
    )
    confidence_drift_above: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="Kolmogorov-Smirnov distance between the confidences of two windows that "
        "counts as drift, when it is also significant.",
    )
    class_mix_drift_above: float = Field(
        default=0.2,
        gt=0,
        description="Population stability index between the predicted classes of two windows that "
        "counts as drift, when it is also significant (0.1 moderate, 0.2 large).",
    )
    small_slice_below: int = Field(
        default=30,
        ge=1,
        description="Samples below which the accuracy of a slice is marked as too few to say.",
    )
