"""When a sample is odd: part of the section ``monitoring`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SampleThresholds(BaseModel):
    """Thresholds of the checks on samples."""

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
    outlier_share: float = Field(
        default=0.001,
        ge=0,
        le=0.05,
        description="Share of sound samples that may be taken for outliers (where only a few "
        "hundred tell what is usual it can be several times that): how far from all others a "
        "sample's embedding has to lie is learned from the samples themselves; 0: none is looked "
        "for.",
    )
    outlier_min_reference: int = Field(
        default=200,
        ge=100,
        description="Samples with an embedding needed before one can be far from all others.",
    )
    camera_columns: tuple[str, ...] = Field(
        default=("camera", "camera_id", "camera_name", "device", "device_id", "exif_camera_serial"),
        description="Columns of the metadata that may name a sample's camera: the first that there "
        "is counts; a source whose samples name none counts as a camera itself.",
    )
    silence_significance: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Probability that any camera is ever called silent although it only kept its "
        "own pace; 0: none is looked for.",
    )
    silence_min_gaps: int = Field(
        default=10,
        ge=5,
        description="Gaps between a camera's arrivals needed to tell its pace; of one that arrives "
        "five times a day or more, days.",
    )
    gps_speed_above: float = Field(
        default=1200.0,
        gt=0,
        description="Speed in km/h that two pictures of one camera may ask for, over the great "
        "circle between their places; a faster one means that a place or a time is wrong.",
    )
    gps_jump_above: float = Field(
        default=1.0,
        gt=0,
        description="Distance in km below which two places count as one: receivers scatter, and "
        "clocks that count whole seconds make any scatter fast.",
    )
    clock_tolerance_hours: float = Field(
        default=24.0,
        ge=0,
        description="Hours by which a capture may lie ahead of its ingest: clocks of cameras in "
        "other time zones do.",
    )
    captured_after: str = Field(
        default="1990-01-01",
        pattern=r"^\d{4}-\d\d-\d\d$",
        description="Date before which no picture of this loop was captured; a camera that lost "
        "its clock often says 1970-01-01 or 1980-01-01.",
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
