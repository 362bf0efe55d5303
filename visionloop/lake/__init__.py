"""The lake: the one way to durable state."""

from visionloop.lake.lake import Lake
from visionloop.lake.rounds import Round
from visionloop.lake.run import Run

__all__ = ["Lake", "Round", "Run"]
