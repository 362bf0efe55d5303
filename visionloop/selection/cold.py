"""What is selected by where nothing is known: a person is told, a round goes on by other means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from visionloop.errors import InputError
from visionloop.selection.config import SelectionConfig
from visionloop.selection.inputs import amounts_of
from visionloop.selection.lines import COMMITTEE_SCORES
from visionloop.selection.lines import Objective as Line
from visionloop.selection.notes import INTAKE, unpredicted
from visionloop.selection.objectives import Objective
from visionloop.selection.pool import Pool

# What becomes of a selection whose every objective knows nothing: it is an error, typical samples
# are taken, or (of a shard, which is not all) nothing.
Cold = Literal["refuse", "typicality", "keep"]


def of_predictions(line: Line) -> bool:
    """Whether a line asks what the model in service predicted."""
    if line.input.type == "PREDICTIONS" or line.strategy.type == "BADGE":
        return True
    return line.input.type == "SCORES" and "deployed_" not in line.input.score_name()


def says_nothing(objectives: Sequence[Objective]) -> bool:
    """Whether no objective of any strength knows anything of any candidate."""
    told = [one for one in objectives if one.strength]
    return bool(told) and not any(getattr(one, "informed", True) for one in told)


def of_committee(line: Line) -> bool:
    """Whether a line asks what several models predicted."""
    return line.input.type == "SCORES" and line.input.score_name() in COMMITTEE_SCORES


def flag_of(lines: Sequence[Line], pool: Pool) -> str:
    """Return the flag of a round that takes typical samples, as its lines know nothing."""
    of_model = any(of_predictions(line) for line in lines)
    return "cold_start" if of_model and not pool.predicted else "nothing_known"


def nothing_known(what: str, pool: Pool, lines: Sequence[Line]) -> InputError:
    """Return the error of a selection by something of which nothing is known.

    Args:
        what: What it is to be made by.
        pool: What it is to be made from.
        lines: The lines that ask for it.
    """
    why, remedy = "", "Select by something that is known of some of them"
    if any(of_predictions(line) for line in lines) and not pool.predicted:
        why, remedy = unpredicted(pool)
    elif any(of_committee(line) for line in lines):
        why = "it compares models, and fewer than two have predicted these samples"
        remedy = (
            f"It can be used from the second model on, once `{INTAKE}` has predicted with it; "
            "margin, least_confidence and entropy need one model"
        )
    return InputError(
        f"nothing is known of {what} of any of the {len(pool):,} samples of the pool"
        + (f": {why}" if why else ""),
        where="selection",
        remedy=remedy,
    )


def without_unknown_thresholds(
    pool: Pool, config: SelectionConfig, *, unattended: bool
) -> tuple[SelectionConfig, list[str]]:
    """Return a configuration without thresholds on what no model has predicted, and flags.

    They would leave nobody, and a loop would never come to its first model.

    Args:
        pool: What is selected from.
        config: How.
        unattended: Whether a round goes on without them; a person is told.

    Raises:
        InputError: A person asks for a threshold on what is known of nobody.
    """
    unknown = []
    for line in config.strategies:
        if line.strategy.type != "THRESHOLD" or not len(pool):
            continue
        name, values = amounts_of(pool, line.input, reducer=config.reducer, space=config.space)
        if not np.isnan(values).all():
            continue
        if not unattended:
            raise nothing_known(f"{name}, which a THRESHOLD is on,", pool, [line])
        if of_committee(line) or (of_predictions(line) and not pool.predicted):
            unknown.append(line)
    if not unknown:
        return config, []
    rest = tuple(line for line in config.strategies if line not in unknown)
    return config.model_copy(update={"strategies": rest}), ["threshold_unknown"]
