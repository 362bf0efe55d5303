"""Who is told of new flags: the section ``notify`` in ``loop.yaml``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class NotifyConfig(BaseModel):
    """Where new flags and decisions are sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)
