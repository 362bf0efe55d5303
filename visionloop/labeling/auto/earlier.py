"""What earlier models have proved, and which of their labels the model in service has learned.

A model cannot vouch for what it was taught: it says the same again, and is surer of it than of what
it has never seen. So a label that the model in service has trained on stays under the proof of the
model that gave it. What is left of the pool is then unlike the holdout, since the earlier model has
taken what is easy out of it; the same is taken out of the holdout, so that the next proof is of
what is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from visionloop.labeling.auto.share import drawn

Row = Mapping[str, Any]
Said = Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class Proved:
    """What a model has proved, as its newest decision with a threshold says.

    Attributes:
        precision: That was stated.
        threshold: Confidence from which on it was shown.
        classes: Classes that it was allowed to label.
    """

    precision: float
    threshold: float
    classes: frozenset[str]


def proved(decisions: Iterable[Row]) -> dict[str, Proved]:
    """Return what each model has proved that may label something.

    Args:
        decisions: Rows of `decisions` about automatic labels.
    """
    found = {}
    for model, told in _told(decisions):
        proof = told["proof"]
        if proof["threshold"] is not None:
            admitted = (label for label, one in proof["classes"].items() if one["admitted"])
            found[model] = Proved(told["precision"], proof["threshold"], frozenset(admitted))
    return found


def nth_model(decisions: Iterable[Row], model_id: str) -> int:
    """Return the how manieth model it is that the holdout is asked about, from 1.

    Args:
        decisions: Rows of `decisions` about automatic labels.
        model_id: The model.
    """
    asked = list(dict.fromkeys(model for model, told in _told(decisions) if told["proof"]["n"]))
    return asked.index(model_id) + 1 if model_id in asked else len(asked) + 1


def _told(decisions: Iterable[Row]) -> list[tuple[str, dict[str, Any]]]:
    rows = sorted(decisions, key=lambda row: row["decided_at"])
    told = [(row["subject"], json.loads(row["inputs"])) for row in rows]
    return [(model, inputs) for model, inputs in told if inputs["proof"]]


def kept(
    held: Mapping[str, Row],
    trained: Collection[str],
    models: Mapping[str, Proved],
    precision: float,
) -> dict[str, Row]:
    """Return the labels that stay under the proof of the model that gave them.

    Args:
        held: The automatic label of each sample that has one.
        trained: Samples that the model in service has trained on.
        models: What models have proved, without those whose labels were withdrawn.
        precision: What is stated now.
    """
    return {
        sample: row
        for sample, row in held.items()
        if sample in trained
        and row["model_id"] in models
        and models[row["model_id"]].precision >= precision
    }


def given_before(
    labels: Iterable[Row], models: Mapping[str, Proved], predicted: Callable[[str], Said]
) -> set[str]:
    """Return the samples of the holdout that would have got the labels that stay, in the pool.

    Args:
        labels: Rows of the labels that stay.
        models: What models have proved.
        predicted: Returns what a model takes the holdout's samples for, and how sure it is.
    """
    last: dict[str, float] = {}
    for row in labels:
        model, place = row["model_id"], drawn("automatic", row["sample_id"])
        last[model] = max(last.get(model, 0.0), place)
    return {
        sample
        for model, place in last.items()
        for sample, (label, confidence) in predicted(model).items()
        if confidence >= models[model].threshold
        and label in models[model].classes
        and drawn("automatic", sample) <= place
    }
