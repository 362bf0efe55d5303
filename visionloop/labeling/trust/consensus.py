"""What several people's answers to a sample come to, or that they conflict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from visionloop.errors import InputError
from visionloop.labeling.config import TrustConfig
from visionloop.labeling.provider import Box
from visionloop.labeling.trust.box_consensus import boxes_of_all
from visionloop.labeling.trust.crowdlab import weighed
from visionloop.validation import nearest

SINGLE, MAJORITY, AGREEMENT, CROWDLAB = "single", "majority", "agreement", "crowdlab"


@dataclass(frozen=True)
class Answered:
    """One person's answer to one sample; a later one of the same person takes its place.

    Attributes:
        sample_id: The sample.
        annotator: Who answered.
        label: Class of the image; null where there is none.
        boxes: Objects; null where nobody looked for any, empty where there is none.
    """

    sample_id: str
    annotator: str
    label: str | None
    boxes: tuple[Box, ...] | None = None


@dataclass(frozen=True)
class Consensus:
    """What the answers to a sample come to.

    Attributes:
        label: Class of the image; null in a conflict, and where nobody was asked for one.
        boxes: Objects; null in a conflict, and where nobody was asked for them.
        conflict: Whether the sample has to be asked about again: label and boxes are null then.
        quality: How likely it is right, in [0, 1]; null for a single answer. CROWDLAB: the
            probability that annotators and model together give the label; majority and agreement:
            the share of annotators who gave it. Of label and boxes the smaller.
        agreement: Share of the annotators who gave the label (of boxes: mean over the objects of
            those who agree on each); 1 for a single answer.
        method: What was used: ``single``, ``crowdlab``, ``majority`` or ``agreement``.
        note: Why it is not the method that is configured, or what conflicts; empty otherwise.
        n_annotators: How many people answered.
        votes: What each person said: the class, the number of boxes, or both.
        annotator_quality: Of each of them, in [0, 1]: CROWDLAB's, or the share of their answers
            to samples with several answers that is the consensus. Null where nothing tells.
    """

    label: str | None
    boxes: tuple[Box, ...] | None
    conflict: bool
    quality: float | None
    agreement: float
    method: str
    note: str
    n_annotators: int
    votes: Mapping[str, str]
    annotator_quality: Mapping[str, float | None] = field(default_factory=dict)

    def evidence(self) -> dict[str, Any]:
        """Return who said what, for a flag, as what JSON can hold."""
        return {
            "votes": dict(self.votes),
            "method": self.method,
            "note": self.note,
            "quality": self.quality,
            "agreement": self.agreement,
            "annotator_quality": dict(self.annotator_quality),
        }


@dataclass(frozen=True)
class _Voted:
    label: str | None
    quality: float
    agreement: float
    method: str
    note: str


def decide(
    answers: Sequence[Answered],
    classes: Sequence[str],
    *,
    config: TrustConfig,
    probabilities: Mapping[str, np.ndarray] | None = None,
    history: Sequence[Answered] = (),
) -> dict[str, Consensus]:
    """Decide what each sample is, by the answers to it.

    - **One answer** is taken as it is.
    - **agreement**: the label that all give.
    - **majority**: the label that most give. A tie is a conflict.
    - **crowdlab** (Goh, Tkachenko and Mueller, CROWDLAB, 2022; cleanlab): the label to which
      annotators, each weighed by how often they agree with others, and the model, weighed by how
      often it agrees with the consensus, together give the largest probability. It needs
      probabilities of a model that did not train on the sample, and
      `visionloop.labeling.trust.crowdlab.ENOUGH` samples with several answers to learn the weights
      from; a sample without these is decided by majority, which `method` and `note` say. A label
      that none of the people gave is a conflict, however sure the model is.

    A quality under `config.min_quality` is a conflict. Boxes: those of one object are found by
    their overlap (`config.min_iou`); it is there where more than half of the annotators drew it, at
    the median of their coordinates, with the class that most gave. Half is a conflict, and so is a
    tie of classes; with the method agreement all have to see the same objects.

    Args:
        answers: The answers to what is decided, in the order in which they were given.
        classes: The loop's classes, in the order of the probabilities; empty as long as nobody
            named any: every class counts then, and there is no model to weigh.
        config: The section `labeling.trust`.
        probabilities: Of each class, by sample: predicted by a model that did not train on it.
        history: Answers that were decided before. They tell how good annotators are, and those to
            samples among `answers` count as earlier answers to them.

    Returns:
        What each sample of `answers` with at least one label or boxes comes to.

    Raises:
        InputError: An answer is of a class that is none of the loop's.
    """
    if classes:
        _check(answers, classes)
    wanted = {answer.sample_id for answer in answers}
    said: dict[str, dict[str, Answered]] = defaultdict(dict)
    for answer in (*history, *answers):
        if answer.label is not None or answer.boxes is not None:
            said[answer.sample_id].pop(answer.annotator, None)
            said[answer.sample_id][answer.annotator] = answer
    known = set(classes)
    votes: dict[str, dict[str, str]] = defaultdict(dict)
    for sample, own in said.items():
        for name, answer in own.items():
            # A class that was taken out of the loop since is no vote for what counts now.
            if answer.label is not None and (answer.label in known or not known):
                votes[sample][name] = answer.label
    voted, quality = _labels(votes, list(classes), config, (known and probabilities) or {})
    decided = {}
    for sample, own in said.items():
        if sample in wanted:
            decided[sample] = _one(own, voted.get(sample), quality, config)
    return decided


def _check(answers: Sequence[Answered], classes: Sequence[str]) -> None:
    named = {a.label for a in answers if a.label is not None}
    named |= {box.label for a in answers for box in a.boxes or ()}
    strange = sorted(named - set(classes))
    if strange:
        shown = ", ".join(f"`{label}`{nearest(label, list(classes))}" for label in strange[:5])
        raise InputError(
            f"answers of classes that are not among the loop's classes: {shown}",
            where="labeling.trust",
            remedy="Correct the answers, or name every class in `classes:`",
        )


def _one(
    own: Mapping[str, Answered],
    voted: _Voted | None,
    quality: Mapping[str, float],
    config: TrustConfig,
) -> Consensus:
    """Return what a sample comes to, by its answers and what its labels came to."""
    drawn = {name: a.boxes for name, a in own.items() if a.boxes is not None}
    marked = boxes_of_all(drawn, config) if drawn else None
    several = max(sum(a.label is not None for a in own.values()), len(drawn)) > 1
    parts = [part for part in (voted, marked) if part is not None]
    notes = [part.note for part in parts if part.note]
    least = min((part.quality for part in parts), default=1.0)
    conflict = (voted is not None and voted.label is None) or (
        marked is not None and marked.boxes is None
    )
    if several and not conflict and least < config.min_quality:
        conflict = True
        notes.append(f"quality {least:.2f} is under min_quality {config.min_quality:g}")
    return Consensus(
        label=None if conflict or voted is None else voted.label,
        boxes=None if conflict or marked is None else marked.boxes,
        conflict=conflict,
        quality=least if several else None,
        agreement=min((part.agreement for part in parts), default=1.0),
        method=parts[0].method if several else SINGLE,
        note="; ".join(notes),
        n_annotators=len(own),
        votes={name: _said(a) for name, a in own.items()},
        annotator_quality={name: quality.get(name) for name in own},
    )


def _said(answer: Answered) -> str:
    boxes = "" if answer.boxes is None else f"{len(answer.boxes)} boxes"
    return ", ".join(part for part in (answer.label, boxes) if part)


def _labels(
    votes: Mapping[str, Mapping[str, str]],
    classes: list[str],
    config: TrustConfig,
    probabilities: Mapping[str, np.ndarray],
) -> tuple[dict[str, _Voted], dict[str, float]]:
    """Return what the labels of each sample come to, and how good each annotator is."""
    voted = {sample: _by_votes(own, config) for sample, own in votes.items()}
    quality = _shares(votes, voted)
    if config.consensus != CROWDLAB:
        return voted, quality
    crowd = weighed(votes, classes, probabilities)
    for sample, own in votes.items():
        if len(own) == 1:
            continue
        if sample not in crowd.labels:
            why = crowd.why or "crowdlab knows no probabilities of the sample"
            note = "; ".join(part for part in (voted[sample].note, why) if part)
            voted[sample] = replace(voted[sample], note=note)
            continue
        label, sure = crowd.labels[sample]
        share = sum(v == label for v in own.values()) / len(own)
        note = ""
        if label not in own.values():
            note = f"annotators and model together take it for {label}, which nobody said"
        elif sure <= 0.5 and voted[sample].label is None:
            note = "a tie"  # neither the annotators nor the model prefer one
        voted[sample] = _Voted(None if note else label, sure, share, CROWDLAB, note)
    return voted, {**quality, **crowd.annotators}


def _by_votes(own: Mapping[str, str], config: TrustConfig) -> _Voted:
    counts = Counter(own.values()).most_common()
    label, most = counts[0]
    share = most / len(own)
    if config.consensus == AGREEMENT:
        note = "" if len(counts) == 1 else "not all agree"
        return _Voted(None if note else label, share, share, AGREEMENT, note)
    note = "a tie" if len(counts) > 1 and counts[1][1] == most else ""
    return _Voted(None if note else label, share, share, MAJORITY, note)


def _shares(
    votes: Mapping[str, Mapping[str, str]], voted: Mapping[str, _Voted]
) -> dict[str, float]:
    """Return the share of each annotator's answers that the consensus shares."""
    right: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for sample, own in votes.items():
        label = voted[sample].label
        if len(own) < 2 or label is None:
            continue
        for name, said in own.items():
            given[name] += 1
            right[name] += said == label
    return {name: right[name] / n for name, n in given.items()}
