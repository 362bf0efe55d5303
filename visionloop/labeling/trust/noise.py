"""Which labels are wrong, by what models say and by which classes people take for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.trust.crowdlab import normalised

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Exponents on the probabilities: models of noisy labels are less sure than they should be.
_SHARPNESS = (0.6, 0.75, 1.0, 1.25, 1.7, 2.0, 2.5, 3.3, 5.0, 7.0)
_STEPS = 30
# Labels' worth of belief that a class is mistaken for every other one alike.
_PRIOR = 5.0


@dataclass(frozen=True)
class Noise:
    """What is known of the true class of each labelled sample.

    Attributes:
        clean: float64 [n, C], probability of each class before any label is looked at.
        posterior: float64 [n, C], the same with the labels.
        channel: float64 [C, C], probability that a sample of the class of the row is labelled as
            the class of the column.
        sharpness: Exponent on the given probabilities.
    """

    clean: Floats
    posterior: Floats
    channel: Floats
    sharpness: float

    @property
    def rate(self) -> float:
        """Share of the labels that are wrong, as the channel tells."""
        shares = self.posterior.mean(axis=0)
        return float(1 - shares @ np.diag(self.channel))


def noise_of(probabilities: Floats, votes: NDArray[np.integer]) -> Noise:
    """Estimate at once which labels are wrong and which classes are mistaken for which.

    Confident learning (Northcutt, Jiang and Chuang, 2021) counts, by thresholds, how often a class
    is labelled as another. Here the same joint is the likeliest one: labels come of the true class
    by a channel, the true class of the model by its probabilities raised to a power, and channel
    and power are those under which the labels that were given are likeliest (expectation
    maximisation; Dawid and Skene, 1979, with a model in the place of the prior). Several answers to
    a sample count as several labels of it.

    Args:
        probabilities: float64 [n, C], of models that did not train on the sample.
        votes: int [n, C], how many people gave each label; at least one in a row.

    Cost: O(n·C²) a step, 300 steps.
    """
    log_p = np.log(normalised(probabilities))
    given: Floats = votes.astype(np.float64)
    best: tuple[float, Noise] | None = None
    for sharpness in _SHARPNESS:
        clean = _softmax(sharpness * log_p)
        likelihood, posterior, channel = _likeliest(clean, given)
        if best is None or likelihood > best[0]:
            best = (likelihood, Noise(clean, posterior, channel, sharpness))
    assert best is not None
    return best[1]


def _likeliest(clean: Floats, votes: Floats) -> tuple[float, Floats, Floats]:
    classes = clean.shape[1]
    channel = _channel(0.1, classes)
    likelihood, posterior = -np.inf, clean
    for _ in range(_STEPS):
        joint = np.log(clean + 1e-300) + votes @ np.log(channel).T
        most = joint.max(axis=1, keepdims=True)
        posterior = np.exp(joint - most)
        total = posterior.sum(axis=1, keepdims=True)
        posterior /= total
        likelihood = float((np.log(total) + most).mean())
        counts = posterior.T @ votes
        rate = 1 - np.trace(counts) / counts.sum()
        counts += _PRIOR * _channel(min(max(rate, 1e-4), 0.5), classes)
        channel = counts / counts.sum(axis=1, keepdims=True)
    return likelihood, posterior, channel


def _channel(rate: float, classes: int) -> Floats:
    """Return a channel by which every class is mistaken for every other one alike."""
    result = np.full((classes, classes), rate / max(classes - 1, 1))
    np.fill_diagonal(result, 1 - rate)
    return result


def _softmax(logits: Floats) -> Floats:
    wide = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
