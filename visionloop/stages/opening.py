"""How every stage finds its configuration and its lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.config import LoopConfig, load_config

if TYPE_CHECKING:
    from visionloop.lake import Lake


def open_stage(config: str, lake: str = "") -> tuple[LoopConfig, Lake]:
    """Return a stage's configuration and its lake.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.

    Raises:
        InputError: The configuration or the lake's root cannot be used.
    """
    from visionloop.lake import Lake

    loop = load_config(config)
    return loop, Lake.open(lake or loop.lake, catalog=loop.catalog, loop=loop.name)
