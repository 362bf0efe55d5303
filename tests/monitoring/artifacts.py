"""What a monitor is given besides a lake: a configuration, and KFP's artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from visionloop.lake import Lake


class Metrics:
    """What a KFP Metrics artifact takes."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        """Keep a number."""
        assert type(value) is float
        self.values[metric] = value


def artifact(path: Path) -> Any:
    """Return a KFP artifact at a path."""
    return SimpleNamespace(path=str(path), uri=str(path), metadata={})


def sourceless(lake: Lake, classes: Sequence[str]) -> str:
    """Return the text of a loop.yaml for a lake whose rows are written by the test.

    Args:
        lake: The lake.
        classes: Names of the classes.
    """
    settings = {
        "name": lake.loop,
        "lake": lake.uri,
        "classes": list(classes),
        "sources": [{"uri": "/nowhere"}],
        "labeling": {"provider": "csv"},
    }
    return json.dumps(settings)
