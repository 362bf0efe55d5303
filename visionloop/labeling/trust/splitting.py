"""The part of a round's budget that new samples get."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from visionloop.labeling.trust.relabel import Split, split_budget
from visionloop.lake.parts import rows_of_space
from visionloop.selection.material import space_of_inference

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.selection.config import SelectionConfig


def budget_for_new(
    lake: Lake, loop: LoopConfig, config: SelectionConfig, version: str, round_id: str
) -> tuple[SelectionConfig, Split]:
    """Return a selection's configuration with the budget that is left for new samples.

    A proportion is lowered by the share that goes to asking again, of as many samples as there are
    embeddings.

    Args:
        lake: The lake.
        loop: The loop's configuration.
        config: How to select, with the round's whole budget.
        version: Lake version.
        round_id: The round that asks.

    Returns:
        The configuration, and what is asked again; see
        `visionloop.labeling.trust.relabel.split_budget`.
    """
    n, share = config.n_samples, config.proportion_samples
    if share is not None:
        space = space_of_inference(lake, version)
        n = math.ceil(share * rows_of_space(lake, space, version)) if space else 0
    split = split_budget(lake, loop, version, n, round_id=round_id, flags=config.flags_left_out)
    if split.n_new == n:
        return config, split
    if share is not None:
        return config.model_copy(update={"proportion_samples": share * split.n_new / n}), split
    return config.model_copy(update={"n_samples": split.n_new}), split
