"""When a window differs from another: part of the section ``monitoring`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DriftThresholds(BaseModel):
    """Thresholds of drift, of estimated accuracy and of slices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drift_min_events: int = Field(
        default=100,
        ge=20,
        description="Different images needed in each of two windows, of deployed confidences or of "
        "what a source brought, before drift is judged, and in one before its accuracy in "
        "production is estimated.",
    )
    drift_significance: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="Probability of any false alarm of drift against one reference, of all that is "
        "compared with it (a model's confidences, class mix and embeddings; a source's pixels, "
        "embeddings and predictions) in all looks for as long as a model serves.",
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
    pixel_drift_above: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Kolmogorov-Smirnov distance between a measure of the pixels (brightness, "
        "contrast, sharpness, saturation, entropy) of a source's newest images and of those before "
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
        description="Samples below which the accuracy of a slice is marked as too few to say, and "
        "is not tested against the rest.",
    )
