"""The lake: the one way to durable state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake
    from visionloop.lake.rounds import Round
    from visionloop.lake.run import Run

__all__ = ["Lake", "Round", "Run"]


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: a base install reads files without pyarrow or numpy."""
    if name == "Lake":
        from visionloop.lake.lake import Lake

        return Lake
    if name == "Round":
        from visionloop.lake.rounds import Round

        return Round
    if name == "Run":
        from visionloop.lake.run import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
