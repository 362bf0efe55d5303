"""What the watch does, and when: the section ``watch`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from visionloop.monitoring.acting_config import ActingConfig


class StartConfig(BaseModel):
    """When the watch starts a round, resumes one, or waits.

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


class WatchConfig(ActingConfig, StartConfig):
    """When the pipeline ``watch`` starts a round, resumes one, or waits; and what else it does.

    One reason is enough to start, one limit is enough to hold a start back. Limits never hold back
    a round that is open.
    """
