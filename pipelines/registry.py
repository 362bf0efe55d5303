"""The pipelines by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

NAMES = ("intake", "harvest", "select_and_label", "train_and_publish", "round", "watch")


def load(name: str) -> GraphComponent:
    """Return one pipeline.

    Args:
        name: One of `NAMES`.

    Returns:
        The KFP pipeline.
    """
    module = importlib.import_module(f"visionloop.pipelines.{name}")
    return getattr(module, name)
