"""What was not as configured in a selection, in sentences for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.selection.lines import DETECTION_SCORES, UNCERTAINTIES

if TYPE_CHECKING:
    from visionloop.selection.engine import Selection
    from visionloop.selection.pool import Pool

NOTES = {
    "budget_exceeds_pool": "The budget was larger than what was left; the rest was taken.",
    "minimum_distance": "The minimum distance between samples ended the selection.",
    "minimum_typicality": "Nobody was left who is typical enough.",
    "max_sum": "The sum of the weights reached its most and ended the selection.",
    "dataset_id_without_effect": "`dataset_id` has no effect: a lake holds one data set.",
    "selected_in_shards": "The embeddings were too many for one task: shards proposed candidates.",
    "sampled_pool": "A uniform sample of the pool was selected from, not all of it.",
    "candidates_used_up": "Too many candidates were near duplicates of others; fewer were taken.",
    "cold_start": "Nothing is predicted yet of the samples to select from, so typical samples were "
    "taken.",
    "nothing_known": "Nothing is known yet of what is selected by, so typical samples were taken.",
    "threshold_unknown": "A threshold on predictions was passed over: nothing is predicted yet.",
}
# What a person runs to have the samples embedded, and predicted with the model in service.
INTAKE = "visionloop run intake --config loop.yaml"
EMBED = f"Run `{INTAKE}` first: it embeds what the lake holds"

# Objectives made of what the model in service predicts.
_OF_PREDICTIONS = {
    *UNCERTAINTIES,
    *DETECTION_SCORES,
    "badge",
    "balance_classes",
    "count",
    "probability",
}


def note(flag: str) -> str:
    """Return a flag of a selection as a sentence."""
    if flag.startswith("absent_"):
        return f"Nobody is left with one of the values that {flag.removeprefix('absent_')} wants."
    for start, side in (("short_of_", "below"), ("beyond_", "above")):
        if flag.startswith(start):
            name = flag.removeprefix(start)
            return f"The sum of {name} over the batch is {side} its `target_range`."
    if flag.startswith("unknown_"):
        name = flag.removeprefix("unknown_")
        return f"Nothing is known of {name} of any sample to select from, so it had no say."
    return NOTES.get(flag, f"Note: {flag.replace('_', ' ')}.")


def notes(selection: Selection, pool: Pool) -> list[str]:
    """Return the flags of a selection as sentences with its numbers, and that nothing was picked.

    Args:
        selection: The selection.
        pool: What it was made from.
    """
    found = []
    for flag in selection.flags:
        text = note(flag)
        if flag == "budget_exceeds_pool":
            text = (
                f"{selection.requested:,} samples were asked for and {len(selection.picks):,} "
                "could be selected; these were taken."
            )
            if selection.passed_over:
                text += (
                    f" {selection.passed_over:,} more are near duplicates of others of the batch "
                    "or of labelled ones."
                )
        elif flag == "cold_start" or (
            flag.removeprefix("unknown_") in _OF_PREDICTIONS and not pool.predicted
        ):
            why, remedy = unpredicted(pool)
            text += f" The reason: {why}. {remedy}."
        found.append(text)
    if not selection.picks:
        found.append("Nothing was selected.")
    return found


def unpredicted(pool: Pool) -> tuple[str, str]:
    """Return why a pool without predictions has none, and the remedy."""
    if not pool.model:
        return (
            "no model is in service that could have predicted anything",
            "Until then `strategy: typicality` needs no model",
        )
    return (
        f"the model {pool.model} has predicted none of the {len(pool):,} samples of the pool",
        f"Run `{INTAKE}`: it predicts them",
    )
