"""Which of a round's requests an export hands to a labelling tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.lake import Lake


def requests_to_export(lake: Lake, version: str, task: str, round_id: str) -> set[str]:
    """Return the samples that a round asked about, and that nobody has answered or taken back.

    What it asked again and conflicts are left out: an import overwrites no person's label.

    Args:
        lake: The lake.
        version: Lake version.
        task: Of the labels that count as answers; empty for all.
        round_id: The round.

    Raises:
        InputError: There is none.
    """
    from visionloop.labeling.answers import is_models, standing_answers
    from visionloop.media.records import among

    mine = among("round_id", [round_id])
    asked = lake.read("label_requests", where=mine, version=version).to_pylist()
    labels = lake.read("labels", version=version).to_pylist()
    answered = standing_answers((row for row in labels if not is_models(row)), task)
    found = {
        row["sample_id"] for row in asked if not row["recalled"] and row["purpose"] != "relabel"
    } - answered.keys()
    if not found:
        told = "what it asked is answered or taken back" if asked else "it asked nothing"
        raise InputError(
            f"{round_name(round_id)} waits for no answer: {told}",
            where="--round",
            remedy="Look at the rounds and their requests with `visionloop labels status`",
        )
    return found
