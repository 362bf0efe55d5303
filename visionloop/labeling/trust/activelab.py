"""ActiveLab: what a further answer is worth, of labelled and unlabelled samples on one scale.

Source: Goh and Mueller, ActiveLab: Active Learning with Re-Labeling by Multiple Annotators, 2023.
A score lies in [0, 1]; the lowest are asked about next. Labelled samples are scored by cleanlab's
`get_active_learning_scores`. It would hold several copies of all probabilities of the unlabelled;
their scores are a closed form of three numbers (the temperature of the model, and the weights of
model and annotators), which cleanlab itself tells when it is asked about three probes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.trust.crowdlab import answer_matrix, normalised

Floats = NDArray[np.float64]
_PROBE = 0.7


@dataclass(frozen=True)
class Scale:
    """How unlabelled samples are scored.

    Attributes:
        temperature: Of the model's probabilities.
        weight: Of the model against one annotator, in [0, 1].
        classes: C.
    """

    temperature: float
    weight: float
    classes: int

    def unlabelled(self, probabilities: Floats) -> Floats:
        """Return the scores of unlabelled samples, float64 [m].

        Args:
            probabilities: float [m, C].
        """
        log_p = np.log(normalised(probabilities)) / self.temperature
        log_p -= log_p.max(axis=1, keepdims=True)
        sure = 1 / np.exp(log_p).sum(axis=1)
        return np.asarray(self.weight * sure + (1 - self.weight) / self.classes)


def active_scores(
    votes: Sequence[Mapping[str, str]], classes: Sequence[str], probabilities: Floats
) -> tuple[Floats, Scale]:
    """Return the scores of labelled samples, and the scale of the unlabelled.

    Args:
        votes: Label by annotator, of each of n samples; where no sample has two, cleanlab takes
            all annotators to be equally good.
        classes: C classes.
        probabilities: float64 [n, C], of models that did not train on the sample.

    Cost: O(n·a·C) for a annotators.
    """
    from cleanlab.multiannotator import get_active_learning_scores

    count = len(classes)
    given, _ = answer_matrix(votes, classes)
    rest = np.full(count - 1, (1 - _PROBE) / (count - 1))
    probes = np.array(
        [
            [1.0, *np.zeros(count - 1)],  # sure, whatever the temperature
            [_PROBE, *rest],
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of annotators who share no sample with others
        scores, (sure, probed) = get_active_learning_scores(
            given, normalised(probabilities), probes
        )
    weight = (float(sure) - 1 / count) / (1 - 1 / count)
    seen = (float(probed) - (1 - weight) / count) / weight
    odds = math.log(_PROBE / rest[0])
    temperature = odds / math.log(seen / ((1 - seen) / (count - 1)))
    return np.asarray(scores, dtype=np.float64), Scale(temperature, weight, count)
