"""How good each annotator is, how fast, and how sure that is: a row for each of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import permutations
from statistics import median
from typing import Any

from visionloop.labeling.provider import DONE, DRAFT, SKIPPED
from visionloop.labeling.requests import RELABEL
from visionloop.labeling.trust.agreement import ENOUGH
from visionloop.monitoring.intervals import wilson

# Of these origins a label of the holdout was known before anybody was asked.
KNOWN_BEFORE = frozenset({"import", "oracle"})
# A consensus of so many people says something about each of them.
_MANY = 3


@dataclass(frozen=True)
class Share:
    """A share of an annotator's answers, with its 95% Wilson interval.

    Attributes:
        value: The share; null where there is nothing to have a share of.
        low: Lower end of the interval.
        high: Its upper end.
        n: Answers that it is a share of.
        enough: Whether they are enough to say something.
    """

    value: float | None
    low: float
    high: float
    n: int
    enough: bool


@dataclass(frozen=True)
class AnnotatorRow:
    """One annotator.

    Attributes:
        annotator: As the tool calls them.
        n: Samples that they answered.
        skipped: Samples that they skipped.
        drafts: Answers that they began.
        rejected: Answers that could not be used.
        skipped_share: Of what they answered or skipped.
        with_others: Share of their answers that are those of whoever else was asked about the
            sample at first. Their own vote has no part in it.
        with_consensus: Share of their answers to samples with several answers that became the
            label. Their own vote has a part in it.
        with_gold: Share of their answers to the holdout that are its label, where that was known
            before or comes of three people or more.
        quality: CROWDLAB's, in [0, 1]; null where it is not known.
        median_seconds: That an answer took; null where the tool does not say.
    """

    annotator: str
    n: int
    skipped: int
    drafts: int
    rejected: int
    skipped_share: Share
    with_others: Share
    with_consensus: Share
    with_gold: Share
    quality: float | None
    median_seconds: float | None

    def plain(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)


def annotator_table(
    annotations: Iterable[Mapping[str, Any]],
    *,
    compared: Iterable[Mapping[str, Any]],
    labels: Mapping[str, str],
    gold: Mapping[str, str],
    quality: Mapping[str, float] | None = None,
) -> list[AnnotatorRow]:
    """Return a row for each annotator, who answered most first.

    Args:
        annotations: Rows of the table `annotations`.
        compared: Those that agreement is measured on, see `first_answers`.
        labels: What each sample was decided to be; a conflict is not among them.
        gold: See `gold_labels`.
        quality: CROWDLAB's of each annotator, see
            `visionloop.labeling.trust.consensus.Consensus.annotator_quality`.
    """
    states: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[str, dict[str, str]] = defaultdict(dict)  # by sample
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in sorted(annotations, key=lambda row: str(row["updated_at"])):
        name, state = str(row["annotator"] or ""), row["state"]
        states[name][state] += 1
        if state == DONE and row["label"] is not None:
            said[row["sample_id"]][name] = row["label"]
        if state in {DONE, SKIPPED} and row["seconds"] is not None:
            seconds[name].append(float(row["seconds"]))
    of = {kind: (Counter[str](), Counter[str]()) for kind in ("others", "consensus", "gold")}

    def count(kind: str, name: str, right: bool) -> None:
        of[kind][0][name] += right
        of[kind][1][name] += 1

    for sample, own in said.items():
        for name, label in own.items():
            if sample in gold:
                count("gold", name, gold[sample] == label)
            if len(own) > 1 and sample in labels:
                count("consensus", name, labels[sample] == label)
    pairs: dict[str, dict[str, str]] = defaultdict(dict)
    for row in compared:
        if row["label"] is not None:
            pairs[row["sample_id"]][str(row["annotator"] or "")] = row["label"]
    for own in pairs.values():
        for name, other in permutations(own, 2):
            count("others", name, own[name] == own[other])
    rows = []
    for name in sorted(states, key=lambda name: (-states[name][DONE], name)):
        n, skipped = states[name][DONE], states[name][SKIPPED]
        with_others, with_consensus, with_gold = (
            _share(right[name], total[name]) for right, total in of.values()
        )
        rows.append(
            AnnotatorRow(
                annotator=name,
                n=n,
                skipped=skipped,
                drafts=states[name][DRAFT],
                rejected=states[name]["rejected"],
                skipped_share=_share(skipped, n + skipped),
                with_others=with_others,
                with_consensus=with_consensus,
                with_gold=with_gold,
                quality=(quality or {}).get(name),
                median_seconds=median(seconds[name]) if seconds[name] else None,
            )
        )
    return rows


def first_answers(
    requests: Iterable[Mapping[str, Any]], annotations: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the answers that agreement can be measured on: of the first two people of each sample.

    Whoever comes later was asked because they disagree, and so is a sample that is asked about
    again: with those answers people who are equally good would seem to differ, and samples that
    are easy would count less. Who skips is one of the two.

    Args:
        requests: Rows of `label_requests` of a round.
        annotations: Rows of `annotations` of it.

    Returns:
        Finished ones, the latest of each person, two of a sample at most.
    """
    asked = {row["sample_id"] for row in requests if row["purpose"] != RELABEL}
    latest: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    began: dict[tuple[str, str], Any] = {}
    for row in sorted(annotations, key=lambda row: row["updated_at"]):
        if row["state"] in (DONE, SKIPPED) and row["sample_id"] in asked:
            key = row["sample_id"], str(row["annotator"] or row["external_id"])
            latest[key[0]][key[1]] = row
            # A correction is no later answer.
            at = row["created_at"] or row["updated_at"]
            began[key] = min(at, began.get(key, at))
    found = []
    for sample, own in latest.items():
        first = sorted(own, key=lambda name: (began[sample, name], name))[:2]
        found += [own[name] for name in first if own[name]["state"] == DONE]
    return found


def gold_labels(
    answers: Mapping[str, Mapping[str, Any]], holdout: Collection[str]
) -> dict[str, str]:
    """Return the holdout's labels that an annotator can be measured by.

    A label that is one person's answer would tell that this person agrees with themselves.

    Args:
        answers: The row of `labels` that counts, by sample; see
            `visionloop.labeling.answers.latest_answers`.
        holdout: Its samples.
    """
    return {
        sample: row["label"]
        for sample, row in answers.items()
        if sample in holdout
        and row["label"] is not None
        and (row["origin"] in KNOWN_BEFORE or (row.get("n_annotations") or 0) >= _MANY)
    }


def _share(right: int, n: int) -> Share:
    rate = wilson(right, n)
    return Share(rate.value if n else None, rate.low, rate.high, n, n >= ENOUGH)
