"""ActiveLab: what a further answer is worth, of labelled and unlabelled samples on one scale.

Source: Goh and Mueller, ActiveLab: Active Learning with Re-Labeling by Multiple Annotators, 2023.
A score lies in [0, 1]; the lowest are asked about next. Labelled samples are scored by cleanlab's
`get_active_learning_scores`. It would hold several copies of all probabilities of the unlabelled,
whose scores follow one by one from the temperature of the model and its weight: these are taken
once, and the samples scored a block at a time.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.trust.crowdlab import ENOUGH, answer_matrix, normalised

Floats = NDArray[np.float64]


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
        sure = temp_scale(probabilities, self.temperature).max(axis=1)
        return np.asarray(self.weight * sure + (1 - self.weight) / self.classes)


def active_scores(
    votes: Sequence[Mapping[str, str]], classes: Sequence[str], probabilities: Floats
) -> tuple[Floats, Scale]:
    """Return the scores of labelled samples, and the scale of the unlabelled.

    Args:
        votes: Label by annotator, of each of n samples. While fewer than
            `visionloop.labeling.trust.crowdlab.ENOUGH` have two, nothing tells how good people and
            model are, and all count alike, as in cleanlab where no sample has two.
        classes: C classes.
        probabilities: float64 [n, C], of models that did not train on the sample.

    Cost: O(n·a·C) for a annotators.
    """
    from cleanlab.internal.multiannotator_utils import find_best_temp_scaler
    from cleanlab.multiannotator import (
        get_active_learning_scores,
        get_label_quality_multiannotator,
        get_majority_vote_label,
    )

    given, _ = answer_matrix(votes, classes)
    p = normalised(probabilities)
    # It tells, and prints, of annotators who share no sample with others.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        said = np.isfinite(given).sum(axis=1)
        if (said > 1).sum() < ENOUGH:
            label = np.asarray(get_majority_vote_label(given, p, verbose=False), dtype=np.int64)
            # Each answer beyond the first is worth as much as the model.
            more = (given == label[:, None]).sum(axis=1) - 1
            sure = (p[np.arange(len(p)), label] + more) / said
            scores = ((said + 1) * sure + 1 / len(classes)) / (said + 2)
            return scores, Scale(1.0, 0.5, len(classes))
        scores = np.asarray(get_active_learning_scores(given, p)[0], dtype=np.float64)
        temperature = float(find_best_temp_scaler(given, p))
        weights = get_label_quality_multiannotator(
            given,
            temp_scale(p, temperature),
            return_detailed_quality=False,
            return_annotator_stats=False,
            return_weights=True,
            verbose=False,
        )
    model, people = float(weights["model_weight"]), float(np.mean(weights["annotator_weight"]))
    return scores, Scale(temperature, model / (model + people), len(classes))


def temp_scale(probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities at a temperature, as cleanlab makes them: none is less than .001."""
    from cleanlab.internal.multiannotator_utils import temp_scale_pred_probs

    return np.asarray(temp_scale_pred_probs(np.asarray(probabilities, np.float64), temperature))
