"""When labels, models and the loop itself need a look: part of ``monitoring`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LoopThresholds(BaseModel):
    """Thresholds of the checks on labels, models, stages and the pool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    disagreement_share: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Share of the right labels that the model in service may contradict as "
        "confidently as is flagged; how sure that is, is learned from its answers on the holdout.",
    )
    stale_after_days: int = Field(
        default=365,
        ge=0,
        description="Age in days from which on a label is old: it is flagged as stale when the "
        "model in service answers another class; 0: age alone makes none old.",
    )
    pool_rounds_below: float = Field(
        default=2.0,
        ge=0,
        description="Rounds that what is left to select must last for; 0: it is never flagged.",
    )
    slow_stage_min_runs: int = Field(
        default=8,
        ge=4,
        description="Earlier runs of a stage needed before its newest is compared with them.",
    )
    slow_stage_factor: float = Field(
        default=3.0,
        gt=1,
        description="How many times longer than expected for its amount of work a run must have "
        "taken to be flagged as slow, when that is also far outside of the usual spread.",
    )
    slow_stage_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Seconds that a run must have lost to be flagged as slow.",
    )
