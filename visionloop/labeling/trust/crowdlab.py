"""CROWDLAB: annotators and a model weighed by how good they are, as cleanlab does it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Samples with several answers from which the weights of annotators and model are learned.
ENOUGH = 20


@dataclass(frozen=True)
class Crowd:
    """What CROWDLAB makes of answers.

    Attributes:
        labels: Label of each sample, and how likely it is right.
        annotators: Quality of each annotator, in [0, 1].
        why: Why there is none of it; empty where there is.
    """

    labels: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    annotators: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


def weighed(
    votes: Mapping[str, Mapping[str, str]],
    classes: Sequence[str],
    probabilities: Mapping[str, Floats],
) -> Crowd:
    """Weigh annotators and model, and say what each sample is.

    Source: Goh, Tkachenko and Mueller, CROWDLAB: Supervised learning to infer consensus labels and
    quality scores for data with multiple annotators, 2022.

    Args:
        votes: Label by annotator, by sample.
        classes: In the order of the probabilities.
        probabilities: By sample, predicted by a model that did not train on it; the samples that
            have none are left out.

    Cost: O(n·a·C) for n samples, a annotators and C classes.
    """
    usable = {s: probabilities[s] for s in votes if _is_sound(probabilities.get(s), len(classes))}
    shared = sum(len(votes[s]) > 1 for s in usable)
    if shared < ENOUGH:
        return Crowd(
            why=f"crowdlab needs {ENOUGH} samples with several answers and the probabilities of a "
            f"model, there are {shared}"
        )
    from cleanlab.multiannotator import get_label_quality_multiannotator

    samples = sorted(usable)
    given, people = answer_matrix([votes[s] for s in samples], classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of annotators who share no sample with others
        found = get_label_quality_multiannotator(
            given,
            normalised(np.array([usable[s] for s in samples])),
            return_detailed_quality=False,
            verbose=False,
        )
    quality = found["label_quality"]
    labels = quality["consensus_label"].to_numpy()
    sure = np.clip(quality["consensus_quality_score"].to_numpy(float), 0.0, 1.0)
    stats = found["annotator_stats"]["annotator_quality"]
    return Crowd(
        {s: (classes[int(k)], float(q)) for s, k, q in zip(samples, labels, sure, strict=True)},
        {people[int(i)]: float(np.clip(q, 0, 1)) for i, q in stats.items() if np.isfinite(q)},
    )


def answer_matrix(
    votes: Sequence[Mapping[str, str]], classes: Sequence[str]
) -> tuple[Floats, list[str]]:
    """Return answers as cleanlab takes them: float64 [n, a], NaN where one did not answer.

    Args:
        votes: Label by annotator, of each sample.
        classes: Their places are the numbers.

    Returns:
        The matrix, and the annotators in the order of its columns.
    """
    people = sorted({name for own in votes for name in own})
    column = {name: j for j, name in enumerate(people)}
    place = {name: float(k) for k, name in enumerate(classes)}
    given = np.full((len(votes), len(people)), np.nan)
    for i, own in enumerate(votes):
        for name, label in own.items():
            given[i, column[name]] = place[label]
    return given, people


def normalised(probabilities: Floats) -> Floats:
    """Return probabilities in double precision whose rows add up to 1 exactly enough for anyone."""
    wide = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-9, None)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))


def _is_sound(row: Floats | None, classes: int) -> bool:
    return row is not None and len(row) == classes and bool(np.isfinite(row).all())
