"""What the answers to a round's requests come to: labelled, skipped, a conflict, or still open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from visionloop.labeling.opening import answers_alone
from visionloop.labeling.provider import DONE, SKIPPED, Box
from visionloop.labeling.requests import RELABEL, box_of

if TYPE_CHECKING:
    import numpy as np

    from visionloop.config import LoopConfig
    from visionloop.labeling.trust.consensus import Answered, Consensus

Row = Mapping[str, Any]

LABELLED, PASSED, CONFLICT, OPEN = "labelled", "skipped", "conflict", "open"


@dataclass(frozen=True)
class Decision:
    """What a request has come to.

    Attributes:
        outcome: ``labelled``, ``skipped``, ``conflict`` (people disagree) or ``open``.
        label: Class of the image; null where there is none.
        boxes: Objects; null where nobody was asked for any.
        annotators: Who answered.
        seconds: Time that it took them together; null where the tool does not say.
        quality: Of the consensus, in [0, 1]; null for a single answer.
        evidence: Who said what, where several answered.
    """

    outcome: str
    label: str | None = None
    boxes: tuple[Box, ...] | None = None
    annotators: tuple[str, ...] = ()
    seconds: float | None = None
    quality: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def decide_requests(
    requests: Sequence[Row],
    annotations: Iterable[Row],
    loop: LoopConfig,
    *,
    classes: Sequence[str] = (),
    earlier: Iterable[Row] = (),
    labels: Mapping[str, Row] | None = None,
    probabilities: Callable[[Collection[str]], Mapping[str, np.ndarray]] | None = None,
    final: bool = False,
) -> dict[str, Decision]:
    """Decide each request by its answers.

    One answer is the label where one was asked for. Where several were, `decide` of
    `visionloop.labeling.trust.consensus` says what they come to; whoever says that a sample cannot
    be labelled outvotes, or is outvoted by, those who label it, and as many on both sides are a
    conflict. Who is outvoted so lowers the quality, and nothing is outvoted where all have to
    agree. A sample that is asked about again is judged together with what was said before; if the
    only person who answers is the one who had labelled it and says something else now, that is a
    conflict too: it is no second opinion.

    Args:
        requests: Rows of `label_requests`, none of them recalled.
        annotations: Rows of `annotations` of their round.
        loop: The loop's configuration.
        classes: The loop's classes, in the order of the probabilities.
        earlier: Rows of `annotations` of other rounds.
        labels: Of samples that are asked about again, the row of `labels` that is doubted.
        probabilities: Returns those of each class, of the samples that it is called with: of models
            that did not train on them. Only called where the consensus weighs a model.
        final: Nobody waits for more answers: those that are there decide.

    Returns:
        The decision on each request, by sample.
    """
    said: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in sorted(annotations, key=lambda row: row["updated_at"]):
        if row["state"] in (DONE, SKIPPED):
            # The same person's later answer takes the place of the earlier one.
            said[row["sample_id"]][row["annotator"] or row["external_id"]] = row
    told = sorted(earlier, key=lambda row: row["updated_at"])
    before = [row for row in told if row["state"] == DONE]
    decided: dict[str, Decision] = {}
    several: list[Row] = []
    for request in requests:
        sample = request["sample_id"]
        own = list(said[sample].values())
        if not own or (len(own) < (request["answers"] or 1) and not final):
            decided[sample] = Decision(OPEN)
            continue
        done = [row for row in own if row["state"] == DONE]
        again = request["purpose"] == RELABEL
        # Somebody has labelled it before, who counts as one.
        for_label, against = len(done) + again, len(own) - len(done)
        split = bool(for_label and against and loop.labeling.trust.consensus == "agreement")
        if split or against >= max(for_label, 1):
            outcome = CONFLICT if split or for_label == against else PASSED
            decided[sample] = _not_labelled(own, outcome)
        elif len(done) == 1 and not again:
            decided[sample] = _labelled(own, done[0]["label"], _boxes(done[0]))
        else:
            several.append(request)
    if several:
        decided |= _by_consensus(
            several, requests, said, before, loop, classes, labels or {}, probabilities
        )
    return decided


def _by_consensus(
    several: Sequence[Row],
    requests: Sequence[Row],
    said: Mapping[str, Mapping[str, Row]],
    before: Sequence[Row],
    loop: LoopConfig,
    classes: Sequence[str],
    labels: Mapping[str, Row],
    probabilities: Callable[[Collection[str]], Mapping[str, np.ndarray]] | None,
) -> dict[str, Decision]:
    from visionloop.labeling.trust.consensus import CROWDLAB, decide

    trust = loop.labeling.trust
    again = {row["sample_id"] for row in several if row["purpose"] == RELABEL}
    told = {row["sample_id"] for row in before}
    history = [_answered(row) for row in before]
    history += [
        _answered({**row, "boxes": row["boxes"] or None})
        for sample, row in labels.items()
        if sample in again - told
    ]
    answers = [
        _answered(row)
        for request in requests
        for row in said[request["sample_id"]].values()
        if row["state"] == DONE
    ]
    # A list of known answers names nobody: its newer answer is a correction.
    alone = set() if answers_alone(loop) else _of_one_person(again, answers, history)
    history = [
        replace(one, annotator=f"{one.annotator}, earlier") if one.sample_id in alone else one
        for one in history
    ]
    wanted = _answered_twice([*history, *answers]) if trust.consensus == CROWDLAB else set()
    # How good people are is told by all that they answered, not only by what is undecided.
    found = decide(
        answers,
        classes,
        config=trust,
        probabilities=probabilities(wanted) if wanted and probabilities else {},
        history=history,
    )
    decided = {}
    for request in several:
        sample = request["sample_id"]
        own = list(said[sample].values())
        if sample in alone and not found[sample].conflict:
            decided[sample] = _labelled(own, found[sample].label, found[sample].boxes)
        else:
            decided[sample] = _of_consensus(own, found[sample], trust.min_quality)
    return decided


def _of_one_person(
    again: Collection[str], answers: Iterable[Answered], history: Iterable[Answered]
) -> set[str]:
    """Return the samples that are asked about again and that one person alone has answered."""
    people: dict[str, set[str]] = defaultdict(set)
    for one in (*answers, *history):
        people[one.sample_id].add(one.annotator)
    return {sample for sample in again if len(people[sample]) == 1}


def _answered_twice(answers: Iterable[Answered]) -> set[str]:
    people: dict[str, set[str]] = defaultdict(set)
    for one in answers:
        people[one.sample_id].add(one.annotator)
    return {sample for sample, own in people.items() if len(own) > 1}


def _of_consensus(own: Sequence[Row], found: Consensus, min_quality: float) -> Decision:
    skipped = _people([row for row in own if row["state"] == SKIPPED])
    if skipped and found.quality is not None:
        n = found.n_annotators
        quality = found.quality * n / (n + len(skipped))
        found = replace(found, quality=quality)
        if not found.conflict and quality < min_quality:
            why = f"quality {quality:.2f} is under min_quality {min_quality:g}"
            found = replace(found, conflict=True, note=why)
    evidence = found.evidence() | ({"skipped": list(skipped)} if skipped else {})
    if found.conflict:
        return Decision(
            CONFLICT,
            annotators=_people(own),
            seconds=_seconds(own),
            quality=found.quality,
            evidence=evidence,
        )
    return replace(_labelled(own, found.label, found.boxes, found), evidence=evidence)


def _labelled(
    own: Sequence[Row],
    label: str | None,
    boxes: tuple[Box, ...] | None,
    found: Consensus | None = None,
) -> Decision:
    return Decision(
        LABELLED,
        label,
        boxes,
        annotators=tuple(sorted(found.votes)) if found else _people(own),
        seconds=_seconds(own),
        quality=found.quality if found else None,
        evidence=found.evidence() if found else {},
    )


def _not_labelled(own: Sequence[Row], outcome: str) -> Decision:
    votes = {row["annotator"]: row["label"] or row["state"] for row in own}
    note = "some label it, some say that it cannot be labelled" if outcome == CONFLICT else ""
    return Decision(
        outcome,
        annotators=_people(own),
        seconds=_seconds(own),
        evidence={"votes": votes, "note": note} if len(own) > 1 else {},
    )


def _people(own: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({row["annotator"] or "" for row in own}))


def _seconds(own: Sequence[Row]) -> float | None:
    known = [row["seconds"] for row in own if row["seconds"] is not None]
    return sum(known) if known else None


def _boxes(row: Row) -> tuple[Box, ...] | None:
    return None if row["boxes"] is None else tuple(box_of(one) for one in row["boxes"])


def _answered(row: Row) -> Answered:
    from visionloop.labeling.trust.consensus import Answered

    name = row["annotator"] or row.get("external_id") or row.get("origin") or "somebody"
    return Answered(row["sample_id"], name, row["label"], _boxes(row))
