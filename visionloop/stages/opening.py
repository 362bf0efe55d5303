"""How every stage finds its configuration and its lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.config import LoopConfig, load_config

if TYPE_CHECKING:
    from visionloop.lake import Lake


def open_stage(
    config: str, lake: str = "", *, lake_version: str = "", round_id: str = ""
) -> tuple[LoopConfig, Lake]:
    """Return a stage's configuration and its lake.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: A version that an earlier stage handed on, if any.
        round_id: A round that an earlier stage opened, if any.

    Raises:
        InputError: The configuration or the lake's root cannot be used.
        VisionloopError: An earlier stage handed on something of a lake that is not there any more.
    """
    from visionloop.lake import Lake
    from visionloop.lake.lake import absent

    loop = load_config(config)
    opened = Lake.open(lake or loop.lake, catalog=loop.catalog, loop=loop.name)
    if (lake_version or round_id) and not opened.exists():
        # A folder that is not mounted any more must not become the root of a second lake.
        raise absent(opened.place)
    return loop, opened
