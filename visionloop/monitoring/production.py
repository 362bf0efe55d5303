"""The accuracy of production, from labels of samples that were drawn at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.estimation import Estimate, refusal
from visionloop.monitoring.intervals import wilson

# Of a census nothing is left to chance; an interval of so many labels has no width to speak of.
_CENSUS = 10**12


@dataclass(frozen=True)
class Traffic:
    """What a deployed model was asked about one sample of the lake.

    Attributes:
        sample_id: The sample.
        ingested: Round in which it came into the lake.
        inferences: How often the model was asked about it.
        answers: What it answered, each with how often.
    """

    sample_id: str
    ingested: str
    inferences: int
    answers: Mapping[str, int]


@dataclass(frozen=True)
class Known:
    """The label of a sample.

    Attributes:
        label: The class.
        round_id: Round in which it was written.
    """

    label: str
    round_id: str


@dataclass(frozen=True)
class Drawn:
    """A pick of a round.

    Attributes:
        round_id: The round.
        sample_id: The sample.
        propensity: The chance that it had to be drawn; None where a rule chose it.
    """

    round_id: str
    sample_id: str
    propensity: float | None


def production_accuracy(
    traffic: Iterable[Traffic],
    n_inferences: int,
    labels: Mapping[str, Known],
    picks: Iterable[Drawn],
    thresholds: MonitoringConfig,
) -> Estimate:
    """Estimate which share of the inferences was right, whatever the confidences say.

    In every round the random share is drawn, before anything is chosen, from all that can be asked
    about. So each round gives an unbiased estimate: what was labelled before it counts as it is,
    and the rest by the labelled draws, each weighted by its inferences over its propensity (Hajek,
    1971, after Horvitz and Thompson, 1952). The rounds' estimates are uncorrelated, as those of
    active testing are (Kossen et al., ICML 2021); they are averaged by their numbers of draws. The
    interval is Wilson's at the effective number of labels (Kish, 1965), less what a draw without
    replacement saves.

    The estimate is of inferences whose image lies in the lake, and was there when the share was
    drawn; ``covered`` of the evidence is their share of all. Labels that are missing are taken to
    be as those that came.

    Args:
        traffic: What the model was asked about samples of the lake, one entry a sample.
        n_inferences: All that it was asked, also about images that the lake does not have.
        labels: The latest label of each sample.
        picks: All picks of all rounds.
        thresholds: ``estimation_min_labels``.
    """
    asked = {one.sample_id: one for one in traffic}
    linked = sum(one.inferences for one in asked.values())
    every = list(picks)
    first: dict[str, str] = {}
    for pick in every:
        first[pick.sample_id] = min(first.get(pick.sample_id, pick.round_id), pick.round_id)
    draws: dict[str, list[Drawn]] = {}
    n_missing = 0
    for pick in every:
        if pick.propensity and pick.sample_id in asked:
            if pick.sample_id in labels:
                draws.setdefault(pick.round_id, []).append(pick)
            else:
                n_missing += 1
    n = sum(map(len, draws.values()))
    evidence: dict[str, float] = {
        "n_inferences": n_inferences,
        "n_linked": linked,
        "n_labels": n,
        "n_labels_missing": n_missing,
    }
    if n < thresholds.estimation_min_labels:
        why = (
            f"{n} labels of random picks that the model was asked about, "
            f"{thresholds.estimation_min_labels} are needed; {linked} of {n_inferences} inferences "
            "are of samples of the lake"
        )
        return refusal(why, n, **evidence)

    known_right = left = covered = right = squares = 0.0
    for round_id, drawn in draws.items():
        there = [one for one in asked.values() if one.ingested <= round_id]
        reached = sum(one.inferences for one in there)
        before = [one for one in there if _known_before(one, round_id, labels, first)]
        share = len(drawn) / n
        covered += share * reached / n_inferences
        known_right += share * sum(_right(one, labels) for one in before) / reached
        # What the draws stand for, shared among them.
        rest = share * (1 - sum(one.inferences for one in before) / reached)
        weights = [asked[p.sample_id].inferences / (p.propensity or 1.0) for p in drawn]
        left += rest
        for pick, weight in zip(drawn, weights, strict=True):
            one = asked[pick.sample_id]
            weight = rest * weight / sum(weights)
            right += weight * _right(one, labels) / one.inferences
            squares += weight**2 * (1 - (pick.propensity or 1.0))
    effective = int(min(_CENSUS, max(1.0, left**2 / squares))) if squares else _CENSUS
    rate = wilson(min(1.0, right / left) * effective, effective) if left else None
    low, high = (rate.low, rate.high) if rate else (0.0, 0.0)
    evidence |= {"known_before": 1 - left, "covered": covered, "effective_labels": effective}
    return Estimate(
        known_right + right,
        known_right + left * low,
        known_right + left * high,
        n,
        evidence=evidence,
    )


def _known_before(
    one: Traffic, round_id: str, labels: Mapping[str, Known], first: Mapping[str, str]
) -> bool:
    """Return whether a sample had its label, so that this round could not draw it."""
    label = labels.get(one.sample_id)
    if label is None:
        return False
    picked = first.get(one.sample_id)
    return picked < round_id if picked is not None else label.round_id <= round_id


def _right(one: Traffic, labels: Mapping[str, Known]) -> int:
    return one.answers.get(labels[one.sample_id].label, 0)
