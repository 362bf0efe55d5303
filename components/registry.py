"""The components by name, in the order of the loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

NAMES = (
    "list_files",
    "ingest_shard",
    "ingest",
    "infer_shard",
    "infer",
    "monitor",
    "harvest",
    "plan_selection",
    "select_shard",
    "select",
    "request_labels",
    "collect_labels",
    "train",
    "evaluate",
    "export",
    "publish",
    "report",
    "watch",
)


def load(name: str) -> BaseComponent:
    """Return one component.

    Args:
        name: One of `NAMES`.

    Returns:
        The KFP component.
    """
    module = importlib.import_module(f"visionloop.components.{name}.component")
    return getattr(module, name)
