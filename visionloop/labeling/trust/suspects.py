"""Likely label errors: labels that models which did not train on them take for something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.trust.crowdlab import normalised
from visionloop.labeling.trust.noise import Noise, noise_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Suspects:
    """What each label is worth.

    Attributes:
        quality: float64 [n], probability that the label is right.
        suggested: int64 [n], the class that is likeliest with everything that is known.
        flagged: bool [n], whether that is another than the label.
        confident_learning: bool [n], whether Cleanlab's own rule (`find_label_issues`) says of the
            same probabilities that the label is wrong.
        noise: What they follow from.
    """

    quality: Floats
    suggested: Ints
    flagged: NDArray[np.bool_]
    confident_learning: NDArray[np.bool_]
    noise: Noise

    @property
    def rival(self) -> Floats:
        """Probability of the suggested class, float64 [n]: a label with less is flagged."""
        rows = np.arange(len(self.suggested))
        return np.asarray(self.noise.posterior[rows, self.suggested])


def find_suspects(
    labels: Ints, probabilities: Floats, votes: NDArray[np.integer] | None = None
) -> Suspects:
    """Find likely label errors.

    A label is suspect where another class is likelier, given what the models say, how often people
    take the one class for the other, and how many gave the label; see
    `visionloop.labeling.trust.noise`. `python -m benchmarks.labels` compares that with Cleanlab's
    defaults; what Cleanlab's rule says of the same probabilities is told beside it.

    Args:
        labels: int64 [n], the labels that count.
        probabilities: float64 [n, C], of models that did not train on the sample.
        votes: int [n, C], how many people gave each label; None for one each.
    """
    classes = probabilities.shape[1]
    if votes is None:
        votes = np.eye(classes, dtype=np.int64)[labels]
    noise = noise_of(probabilities, votes)
    rows = np.arange(len(labels))
    suggested = noise.posterior.argmax(axis=1).astype(np.int64)
    quality = noise.posterior[rows, labels]
    # Where two classes are equally likely nothing speaks against the label.
    suggested = np.where(quality >= noise.posterior.max(axis=1), labels, suggested)
    return Suspects(
        quality, suggested, suggested != labels, _confident_learning(labels, probabilities), noise
    )


def _confident_learning(labels: Ints, probabilities: Floats) -> NDArray[np.bool_]:
    from cleanlab.filter import find_label_issues

    # It takes classes that occur alone.
    present = np.unique(labels)
    if len(present) < 2:
        return np.zeros(len(labels), dtype=np.bool_)
    given = np.searchsorted(present, labels)
    found = find_label_issues(given, normalised(probabilities[:, present]), n_jobs=1)
    return np.asarray(found, dtype=np.bool_)
