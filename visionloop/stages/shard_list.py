"""Lists the shards of what `infer` has to do, where it is too much for one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.stages.models_in_use import models_in_use

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


def list_shards(loop: LoopConfig, lake: Lake, version: str, shard_size: int = 0) -> list[str]:
    """Write what each shard has to do into the lake, and return the shards' names.

    Args:
        loop: The configuration.
        lake: The lake.
        version: Its version.
        shard_size: Samples in a shard; 0 takes the configuration's.

    Returns:
        Their names; none where no more than ``cluster.inline_samples`` lack anything.

    Raises:
        InputError: The weights or the model cannot be used.
    """
    few = loop.cluster.inline_samples
    if lake.read("samples", columns=["sample_id"], version=version).num_rows <= few:
        return []
    from visionloop.inference.pending import find_pending
    from visionloop.inference.results import held_results, write_orders

    media = lake.media(version=version)
    models = models_in_use(loop, lake, media, version)
    pending = find_pending(lake, media, models, version)
    finished = (name for file in held_results(lake, models) for name in file.done)
    rest = pending.without(finished)
    if len(rest.ids()) <= few:
        return []
    return write_orders(lake, media, rest, models, shard_size or loop.cluster.shard_size)
