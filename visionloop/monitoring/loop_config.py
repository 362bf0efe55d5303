"""When labels, models and the loop itself need a look: part of ``monitoring`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LoopThresholds(BaseModel):
    """Thresholds of the checks on labels, models, stages and the pool."""

    model_config = ConfigDict(extra="forbid", frozen=True)
