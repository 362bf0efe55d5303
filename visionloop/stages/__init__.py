"""One module a stage: reads the lake, calls the rooms, writes the lake."""

from visionloop.stages.opening import open_stage

__all__ = ["open_stage"]
