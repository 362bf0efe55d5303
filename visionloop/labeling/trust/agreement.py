"""How far people agree, beyond what chance would make them agree, and how sure that is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.provider import Box
from visionloop.labeling.trust.matching import matched

Floats = NDArray[np.float64]
# With fewer items the interval of any agreement is too wide to act on.
ENOUGH = 20
_DRAWS = 2000
# Numbers that a bootstrap holds at once.
_HELD = 4_000_000


@dataclass(frozen=True)
class Agreement:
    """A measure of agreement with its interval.

    Attributes:
        measure: ``cohen_kappa``, ``fleiss_kappa``, ``mean_iou`` or ``box_f1``.
        value: 1 is perfect; of a kappa 0 is chance. Null where it is not defined: nothing was
            answered twice, or all answers are of one class.
        low: Lower end of the 95% interval.
        high: Its upper end.
        n: Samples behind it.
        enough: Whether they are enough to say something; see `ENOUGH`.
    """

    measure: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    enough: bool

    def plain(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)


def cohen_kappa(pairs: Sequence[tuple[str, str]], *, level: float = 0.95) -> Agreement:
    """Return Cohen's kappa of two people's answers to the same samples.

    Sources: Cohen, A Coefficient of Agreement for Nominal Scales, 1960; the standard error for the
    interval is that of Fleiss, Cohen and Everitt, Large Sample Standard Errors of Kappa and
    Weighted Kappa, 1969. Where all are equal that error is none, and the lower end is that of the
    exact interval of Clopper and Pearson for the share of equal answers.

    Args:
        pairs: Both answers to each sample.
        level: Of the interval.
    """
    n = len(pairs)
    names = {name: i for i, name in enumerate(sorted({x for pair in pairs for x in pair}))}
    table = np.zeros((len(names), len(names)))
    for one, other in pairs:
        table[names[one], names[other]] += 1
    if n == 0 or len(names) < 2:
        return _undefined("cohen_kappa", n)
    p = table / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, chance = float(np.trace(p)), float(rows @ columns)
    if chance >= 1:
        return _undefined("cohen_kappa", n)
    kappa = (observed - chance) / (1 - chance)
    both = rows[None, :] + columns[:, None]  # [i, j]: how often j by the first plus i by the second
    diagonal = np.diag(p) * (1 - (rows + columns) * (1 - kappa)) ** 2
    apart = (1 - kappa) ** 2 * (p * both**2)
    spread = diagonal.sum() + apart.sum() - np.trace(apart)
    spread -= (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(max(spread, 0.0) / n) / (1 - chance)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    low = _lowest(n, level, chance) if np.trace(table) == n else kappa - z * error
    return _within("cohen_kappa", kappa, low, kappa + z * error, n)


def fleiss_kappa(answers: Sequence[Sequence[str]], *, level: float = 0.95) -> Agreement:
    """Return Fleiss' kappa of any number of people, who need not all answer every sample.

    The agreement on a sample is the share of equal pairs among its own answers, and chance follows
    from the mean over samples of each class' share of the answers (as in Gwet, Handbook of
    Inter-Rater Reliability, 2014, for ratings that are missing); where everybody answered
    everything it is Fleiss, Measuring Nominal Scale Agreement Among Many Raters, 1971. Samples with
    one answer do not count. The interval is that of the bootstrap over samples, seeded; where all
    are equal its lower end is as for `cohen_kappa`.

    Args:
        answers: The answers to each sample.
        level: Of the interval.
    """
    rows = [own for own in answers if len(own) > 1]
    names = {name: i for i, name in enumerate(sorted({x for own in rows for x in own}))}
    if not rows or len(names) < 2:
        return _undefined("fleiss_kappa", len(rows))
    counts = np.zeros((len(rows), len(names)))
    for i, own in enumerate(rows):
        for name in own:
            counts[i, names[name]] += 1
    people = counts.sum(axis=1)
    alike = (counts * (counts - 1)).sum(axis=1) / (people * (people - 1))
    of_each = counts / people[:, None]

    def kappa(weights: Floats) -> Floats:
        observed = weights @ alike / len(rows)
        shares = weights @ of_each / len(rows)
        chance = (shares**2).sum(axis=1)
        # A draw of one class alone: all agree, and chance would have done the same.
        beyond, possible = observed - chance, 1 - chance
        return np.asarray(np.divide(beyond, possible, out=np.ones_like(chance), where=chance < 1))

    value, low, high = _bootstrapped(kappa, len(rows), level)
    if (alike == 1).all():
        low = _lowest(len(rows), level, float((of_each.mean(axis=0) ** 2).sum()))
    return _within("fleiss_kappa", value, low, high, len(rows))


def box_agreement(
    pairs: Sequence[tuple[Sequence[Box], Sequence[Box]]], min_iou: float, *, level: float = 0.95
) -> tuple[Agreement, Agreement]:
    """Return how far two people's boxes agree: mean overlap of matched ones, and their F1.

    Boxes match one to one by the best assignment, see `visionloop.labeling.trust.matching`. For F1
    a match is also of one class; two people who both see nothing agree. The intervals are those of
    the bootstrap over images, seeded; where all agree the lower end is that of the exact interval
    for the share of images on which they do.

    Args:
        pairs: The boxes of both people in each image.
        min_iou: Overlap from which two boxes can match.
        level: Of the intervals.

    Returns:
        ``mean_iou`` and ``box_f1``.
    """
    overlap, found, right, drawn = (np.zeros(len(pairs)) for _ in range(4))
    for i, (one, other) in enumerate(pairs):
        same = matched(one, other, min_iou)
        overlap[i] = sum(iou for _, _, iou in same)
        found[i] = len(same)
        right[i] = sum(one[a].label == other[b].label for a, b, _ in same)
        drawn[i] = len(one) + len(other)

    def mean_iou(weights: Floats) -> Floats:
        return np.divide(
            weights @ overlap,
            weights @ found,
            out=np.zeros(len(weights)),
            where=weights @ found > 0,
        )

    def f1(weights: Floats) -> Floats:
        n = weights @ drawn
        return np.divide(2 * (weights @ right), n, out=np.ones(len(weights)), where=n > 0)

    def measured(name: str, measure: Callable[[Floats], Floats], n: int) -> Agreement:
        if not n:
            return _undefined(name, 0)
        value, low, high = _bootstrapped(measure, len(pairs), level)
        return _within(name, value, _lowest(n, level) if low == 1 else low, high, n)

    return (
        measured("mean_iou", mean_iou, int((found > 0).sum())),
        measured("box_f1", f1, len(pairs)),
    )


def agreement_of(
    labels: Mapping[str, Mapping[str, str]],
    boxes: Mapping[str, Mapping[str, Sequence[Box]]],
    min_iou: float,
) -> dict[str, Any]:
    """Return how far people agree, as what JSON can hold.

    Args:
        labels: Class by person, by sample.
        boxes: Boxes by person, by sample.
        min_iou: Overlap from which two boxes can match.

    Returns:
        ``fleiss_kappa`` of all people, ``cohen_kappa`` of each two who answered the same samples,
        ``mean_iou`` and ``box_f1`` over all pairs of people.
    """
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for own in labels.values():
        for one, other in combinations(sorted(own), 2):
            pairs[one, other].append((own[one], own[other]))
    drawn = [
        (own[one], own[other])
        for own in boxes.values()
        for one, other in combinations(sorted(own), 2)
    ]
    iou, f1 = box_agreement(drawn, min_iou)
    return {
        "fleiss_kappa": fleiss_kappa([list(own.values()) for own in labels.values()]).plain(),
        "cohen_kappa": [
            {"annotators": [*names], **cohen_kappa(said).plain()}
            for names, said in sorted(pairs.items())
        ],
        "mean_iou": iou.plain(),
        "box_f1": f1.plain(),
    }


def _bootstrapped(
    measure: Callable[[Floats], Floats], n: int, level: float
) -> tuple[float, float, float]:
    """Return a measure of n items and the ends of its percentile bootstrap interval.

    Args:
        measure: Takes how often each item counts, float64 [draws, n].
        n: Items.
        level: Of the interval.
    """
    value = float(measure(np.ones((1, n)))[0])
    rng = np.random.default_rng(0)
    at_once = max(1, min(_DRAWS, _HELD // max(n, 1)))
    found = []
    for start in range(0, _DRAWS, at_once):
        drawn = range(min(at_once, _DRAWS - start))
        found.append(measure(np.array([_drawn(rng, n) for _ in drawn], dtype=np.float64)))
    draws = np.concatenate(found)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def _drawn(rng: np.random.Generator, n: int) -> NDArray[np.intp]:
    """Return how often each of n items is drawn in n draws: a multinomial, ten times as fast."""
    return np.bincount(rng.integers(0, n, n), minlength=n)


def _lowest(n: int, level: float, chance: float = 0.0) -> float:
    """Return the lower end of Clopper's and Pearson's interval where n of n agree, as a kappa."""
    share: float = ((1 - level) / 2) ** (1 / n)
    return (share - chance) / (1 - chance)


def _within(measure: str, value: float, low: float, high: float, n: int) -> Agreement:
    return Agreement(
        measure, float(value), max(float(low), -1.0), min(float(high), 1.0), n, n >= ENOUGH
    )


def _undefined(measure: str, n: int) -> Agreement:
    return Agreement(measure, None, None, None, n, False)
