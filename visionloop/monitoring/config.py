"""What counts as odd, and what starts a round: ``monitoring`` and ``watch`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MonitoringConfig(BaseModel):
    """Thresholds of the checks on samples and on deployed confidences.

    A quality measure (sharpness, brightness, contrast) flags a sample in two ways: below or above
    an absolute limit, always; and as an outlier of the samples seen so far, once there are
    ``min_population`` of them. An outlier has a modified z-score beyond ``outlier_deviations``
    (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993). What a picture is (long, grey,
    tiny, empty) is odd below a limit that is also half the median of its source: where all are so,
    none is odd.
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
        default=0.94,
        ge=0,
        le=1,
        description="Likeness of the pixels (1 less the share of the variance that one picture, "
        "laid over the other, leaves unexplained in the worst of 64 tiles) from which on two "
        "pictures count as the same.",
    )
    semantic_duplicate_share: float = Field(
        default=0.25,
        ge=0,
        le=0.9,
        description="Distance of a sample's embedding to an earlier one's, as a share of the "
        "median distance of a sample to its nearest (both 1 less the cosine), up to which it is a "
        "semantic duplicate; 0: none is looked for.",
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
        default=2e-3,
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
        default=0.025,
        ge=0,
        le=1,
        description="Standard deviation of brightness below which a sample has low contrast "
        "whatever the others look like.",
    )
    low_information_below: float = Field(
        default=2.0,
        ge=0,
        le=8,
        description="Entropy of the grey values in bits (photographs have 5 to 8) below which a "
        "sample holds little information, where its source's median is above twice this; else "
        "half the median.",
    )
    odd_aspect_below: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Shorter over longer side below which a sample is a strip, where its source's "
        "median is above twice this; else half the median.",
    )
    grey_below: float = Field(
        default=0.008,
        ge=0,
        le=1,
        description="Saturation (mean distance of the strongest and weakest channel, 0 to 1) below "
        "which a sample is grey among coloured ones, where its source's median is above twice "
        "this; else half the median.",
    )
    tiny_below: int = Field(
        default=16,
        ge=0,
        description="Pixels of the shorter side below which a sample is tiny, where its source's "
        "median is above twice this; else half the median.",
    )
    drift_min_events: int = Field(
        default=100,
        ge=20,
        description="Different images needed in each of two windows of deployed confidences before "
        "drift is judged, and in one before its accuracy is estimated.",
    )
    drift_significance: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="Probability of a false alarm in one comparison of two windows, of all that "
        "is compared together (confidence, class mix, embeddings).",
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
    embedding_drift_above: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="Energy coefficient (0 alike, 1 apart) between the embeddings of two windows "
        "that counts as drift, when it is also significant.",
    )
    estimation_min_holdout: int = Field(
        default=100,
        ge=20,
        description="Labelled samples of the holdout needed before the accuracy in production is "
        "estimated from confidences.",
    )
    estimation_outside_above: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the inferences outside of what the model was calibrated on (farther "
        "from the holdout than 99% of it) above which no accuracy is estimated.",
    )
    estimation_apart_above: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Where no embeddings are known: energy coefficient between the probabilities "
        "of window and holdout, given the class, above which no accuracy is estimated.",
    )
    estimation_min_labels: int = Field(
        default=20,
        ge=5,
        description="Labels of random picks needed before they tell the accuracy in production.",
    )
    small_slice_below: int = Field(
        default=30,
        ge=1,
        description="Samples below which the accuracy of a slice is marked as too few to say.",
    )


class WatchConfig(BaseModel):
    """When the pipeline ``watch`` starts a round, resumes one, or waits.

    One reason is enough to start, one limit is enough to hold a start back. Limits never hold back
    a round that is open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_new_samples: int = Field(
        default=50,
        ge=0,
        description="New files at the sources, and samples taken in since the last round, that "
        "start a round; 0: they start none.",
    )
    on_labels_finished: bool = Field(
        default=True,
        description="Resume a waiting round as soon as every label that it asked for is there.",
    )
    on_drift: bool = Field(
        default=True,
        description="Start a round when what the model in service says has drifted since the last "
        "round; the thresholds are those of `monitoring`.",
    )
    min_confidence_drop: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Start a round when the mean deployed confidence since the last round (of a "
        "calibrated model: its expected accuracy) lies so far below that of the same model's "
        "previous window or of its holdout, and the fall is significant; 0: it starts none.",
    )
    max_days: float = Field(
        default=30.0,
        ge=0,
        description="Start a round so many days after the last one ended; 0: time starts none.",
    )
    min_hours: float = Field(
        default=0.0,
        ge=0,
        description="Start no round earlier than so many hours after the last one ended.",
    )
    max_labels: int = Field(
        default=0,
        ge=0,
        description="Start no round whose labels, with those asked for in the last "
        "`max_labels_days` days, would be more than this; 0: no limit.",
    )
    max_labels_days: float = Field(
        default=30.0, gt=0, description="Days over which `max_labels` counts."
    )
