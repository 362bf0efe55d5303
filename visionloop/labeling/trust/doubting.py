"""Whether models know enough to doubt labels, and between which shares of these are wrong.

A model that contradicts a label is wrong itself, or the label is. Which of the two is told by how
sure it is: a weak model that knows that it is weak contradicts many labels, and none of them
surely. So the share of wrong labels is estimated together with the model's calibration, by their
joint likelihood, and what is left of the contradictions is the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.trust.crowdlab import normalised
from visionloop.labeling.trust.suspects import Suspects
from visionloop.monitoring.intervals import Rate, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# How far from chance (0) to perfect (1) the models must be, by the lower end of the interval, for a
# label to be doubted. Of digits seen through 2 or 3 components, all below it, what would have been
# flagged was right in most cases; see tests/labeling/trust/test_doubting.py.
LEAST_SKILL = 0.65
_SHARES = np.array([0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12,
                    0.15, 0.18, 0.22, 0.26, 0.3, 0.35, 0.4, 0.5])  # fmt: skip
_EXPONENTS = np.exp(np.linspace(np.log(0.4), np.log(8.0), 25))
# 95% quantile of chi-squared with one degree of freedom, halved.
_DROP = 1.920729410347062


@dataclass(frozen=True)
class Doubt:
    """How far the models can be believed against the labels.

    Attributes:
        agreement: Share of the labels that the models answer too, with its 95% interval.
        chance: Share of the commonest label: what who always says it agrees with.
        wrong_low: Lower end of the share of wrong labels.
        wrong_high: Upper end. Two things are unknown: how many contradictions are by chance, and
            whether people err evenly or take one class for another; the ends cover both.
        skill: Lower end of the models' skill: 0 chance, 1 perfect.
    """

    agreement: Rate
    chance: float
    wrong_low: float
    wrong_high: float
    skill: float

    @property
    def enough(self) -> bool:
        """Whether the models know enough to doubt a label."""
        return self.skill >= LEAST_SKILL

    def plain(self) -> dict[str, Any]:
        """Return it for the record."""
        return {
            "n": self.agreement.n,
            "agreement": self.agreement.value,
            "agreement_low": self.agreement.low,
            "agreement_high": self.agreement.high,
            "chance": self.chance,
            "skill": self.skill,
            "least_skill": LEAST_SKILL,
            "wrong_low": self.wrong_low,
            "wrong_high": self.wrong_high,
        }


def doubt(labels: Ints, probabilities: Floats, found: Suspects) -> Doubt:
    """Return whether the models can be believed against the labels.

    The share of wrong labels is estimated twice: with errors that fall on all other classes alike,
    by the profile of the likelihood over the share, the exponent on the probabilities maximised
    (its 95% interval holds where the likelihood is within 1.92 of its maximum; Wilks, 1938), and
    with the channel between classes of `visionloop.labeling.trust.noise`. The models' accuracy is
    at least what they agree with, over the labels that are right.

    Args:
        labels: int64 [n], n at least 1.
        probabilities: float64 [n, C], of models that did not train on the sample.
        found: What `find_suspects` says of the same.

    Cost: O(25·n·C).
    """
    n = len(labels)
    agree = wilson(int((probabilities.argmax(axis=1) == labels).sum()), n)
    chance = float(np.bincount(labels).max() / n)
    low, high = _even(labels, probabilities)
    by_channel = float(1 - found.quality.mean())
    accuracy = min(1.0, agree.low / (1 - low))
    skill = (accuracy - chance) / (1 - chance) if chance < 1 else 0.0
    return Doubt(agree, chance, min(low, by_channel), max(high, by_channel), skill)


def _even(labels: Ints, probabilities: Floats) -> tuple[float, float]:
    """Return the 95% interval of the share of errors that fall on all other classes alike."""
    n, classes = probabilities.shape
    logs, rows = np.log(normalised(probabilities)), np.arange(n)
    likeliest = np.full(len(_SHARES), -np.inf)
    for exponent in _EXPONENTS:
        z = exponent * logs
        z -= z.max(axis=1, keepdims=True)
        given = np.exp(z[rows, labels]) / np.exp(z).sum(axis=1)
        for i, share in enumerate(_SHARES):
            told = (1 - share) * given + share * (1 - given) / max(classes - 1, 1)
            likeliest[i] = max(likeliest[i], float(np.log(told + 1e-300).sum()))
    inside = np.flatnonzero(likeliest >= likeliest.max() - _DROP)
    return float(_SHARES[inside[0]]), float(_SHARES[inside[-1]])
