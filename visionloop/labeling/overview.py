"""How far the label requests of each round are, and who answered, as the lake knows it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import (
    CONFLICT,
    MODEL,
    SKIPPED,
    is_collected,
    latest_answers,
    standing,
)
from visionloop.labeling.merging import REJECTED
from visionloop.labeling.provider import DONE, DRAFT, Box
from visionloop.labeling.requests import RELABEL, box_of
from visionloop.labeling.trust.agreement import agreement_of
from visionloop.labeling.trust.annotators import annotator_table, first_answers, gold_labels
from visionloop.labeling.unusable import unusable_answers

if TYPE_CHECKING:
    from visionloop.lake import Lake

Row = Mapping[str, Any]
_STATES = (DONE, SKIPPED, DRAFT, REJECTED)


def overview(
    lake: Lake, task: str, *, version: str = "", min_iou: float = 0.5
) -> list[dict[str, Any]]:
    """Return what every round asked and got, the oldest first.

    Requests are labelled, skipped, in conflict, open or recalled; a conflict that one more person
    is asked about is open. Answers are done, skipped, drafts or rejected.

    Args:
        lake: The lake.
        task: Task of the loop.
        version: Lake version; empty for the newest.
        min_iou: Overlap from which two people's boxes are of one object.
    """
    at = version or None
    requests = lake.read("label_requests", version=at).to_pylist()
    annotations = lake.read("annotations", version=at).to_pylist()
    labels = _people(lake, version)
    answers = latest_answers(labels, task)
    known = {s: row["label"] for s, row in answers.items() if row["label"] is not None}
    samples = lake.read("samples", columns=["sample_id"], where="split == 'holdout'", version=at)
    gold = gold_labels(answers, set(samples["sample_id"].to_pylist()))
    states = {one.round_id: one.state for one in lake.rounds.all()}
    told = []
    for round_id in sorted({row["round_id"] for row in requests}):
        mine = [row for row in requests if row["round_id"] == round_id]
        came = [row for row in annotations if row["round_id"] == round_id]
        compared = first_answers(mine, came)
        outcomes, again = _standing(mine, labels, came, round_id)
        counts = Counter(outcomes.values())
        still_open = {sample for sample, outcome in outcomes.items() if outcome == "open"}
        by_purpose: dict[str, Counter[str]] = defaultdict(Counter)
        for row in mine:
            by_purpose[row["purpose"]][outcomes[row["sample_id"]]] += 1
        told.append(
            {
                "round_id": round_id,
                "state": states.get(round_id, ""),
                "provider": ", ".join(sorted({row["provider"] or "" for row in mine})),
                "requested": len(mine),
                "labelled": counts["labelled"],
                "skipped": counts["skipped"],
                "conflicts": counts["conflicts"],
                "open": counts["open"],
                "asked_again": len(again),
                "recalled": counts["recalled"],
                "purposes": {
                    name: {"requested": n.total(), **n} for name, n in sorted(by_purpose.items())
                },
                "answers": {name: n for name, n in _by_state(came).items() if n},
                "rejected": dict(Counter(r["reason"] for r in came if r["state"] == REJECTED)),
                "unusable": [asdict(one) for one in unusable_answers(came, mine, still_open)],
                "annotators": [
                    one.plain()
                    for one in annotator_table(came, compared=compared, labels=known, gold=gold)
                ],
                "agreement": _agreement(compared, min_iou),
            }
        )
    return told


def _agreement(rows: Iterable[Row], min_iou: float) -> dict[str, Any]:
    """Return how far people agree who answered the same samples."""
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    boxes: dict[str, dict[str, list[Box]]] = defaultdict(dict)
    for row in rows:
        name = str(row["annotator"] or row["external_id"])
        if row["label"] is not None:
            labels[row["sample_id"]][name] = row["label"]
        if row["boxes"] is not None:
            boxes[row["sample_id"]][name] = [box_of(one) for one in row["boxes"]]
    return agreement_of(labels, boxes, min_iou)


@dataclass(frozen=True)
class OpenRequests:
    """The requests of a round that are open.

    Attributes:
        untouched: Rows of those that nobody has answered or begun to answer.
        begun: Samples of those that somebody has.
        unusable: Samples of those that have an answer which cannot be used.
    """

    untouched: list[dict[str, Any]]
    begun: list[str]
    unusable: list[str]


def open_requests(lake: Lake, round_id: str, version: str = "") -> OpenRequests:
    """Return the requests of a round that are open, by what people have done about them.

    Args:
        lake: The lake.
        round_id: The round.
        version: Lake version; empty for the newest.
    """
    requests, came, outcomes, _ = _of_round(lake, round_id, version)
    begun, unusable = _samples(came), _samples(came, REJECTED)
    left = [row for row in requests if outcomes[row["sample_id"]] == "open"]
    ids = sorted(row["sample_id"] for row in left)
    return OpenRequests(
        untouched=[row for row in left if row["sample_id"] not in begun],
        begun=[sample for sample in ids if sample in begun - unusable],
        unusable=[sample for sample in ids if sample in unusable],
    )


def counts_of_round(lake: Lake, round_id: str, version: str = "") -> dict[str, int]:
    """Return what the requests of a round have come to, as `overview` counts them.

    Args:
        lake: The lake.
        round_id: The round.
        version: Lake version; empty for the newest.

    Returns:
        ``requested``, which is the sum of ``labelled``, ``skipped``, ``conflicts``, ``open`` and
        ``recalled``; and ``asked_again``, conflicts among the open ones.
    """
    requests, _, outcomes, again = _of_round(lake, round_id, version)
    counts = Counter(outcomes.values())
    names = ("labelled", "skipped", "conflicts", "open", "recalled")
    told = {name: counts[name] for name in names}
    return {"requested": len(requests), **told, "asked_again": len(again)}


def n_held_by_unusable(lake: Lake, round_id: str, version: str = "") -> int:
    """Return how many open requests a tool takes for answered, by answers that cannot be used.

    Args:
        lake: The lake.
        round_id: The round.
        version: Lake version; empty for the newest.
    """
    requests, came, outcomes, _ = _of_round(lake, round_id, version)
    unusable = _samples(came, REJECTED)
    people = _people_of(row for row in came if row["state"] != DRAFT)
    return sum(
        outcomes[row["sample_id"]] == "open"
        and row["sample_id"] in unusable
        and people[row["sample_id"]] >= (row["answers"] or 1)
        for row in requests
    )


def open_samples(lake: Lake, requests: Sequence[Row], round_id: str, version: str = "") -> set[str]:
    """Return the samples of a round that people have to be asked about.

    Args:
        lake: The lake.
        requests: Rows of `label_requests` of the round, new ones among them.
        round_id: The round.
        version: Lake version; empty for the newest.
    """
    outcomes = _outcomes(requests, _people(lake, version), round_id)
    return {sample for sample, outcome in outcomes.items() if outcome == "open"}


def outcomes(
    requests: Sequence[Row], labels: Sequence[Row], annotations: Iterable[Row], round_id: str
) -> dict[str, str]:
    """Return what each request of a round has come to, by sample.

    For whoever has read the rows already.

    Args:
        requests: Rows of ``label_requests`` of the round.
        labels: Rows of ``labels`` of their samples; a model's are not looked at.
        annotations: Rows of ``annotations`` of the round.
        round_id: The round.

    Returns:
        ``labelled``, ``skipped``, ``conflicts``, ``open`` or ``recalled`` of each sample.
    """
    people = [row for row in labels if row["origin"] != MODEL and row["annotator"] != MODEL]
    return _standing(requests, people, annotations, round_id)[0]


def _of_round(
    lake: Lake, round_id: str, version: str
) -> tuple[list[dict[str, Any]], list[Row], dict[str, str], set[str]]:
    """Return a round's requests, the answers to them, and what `_standing` says of them."""
    mine, at = f"round_id == '{round_id}'", version or None
    requests = lake.read("label_requests", where=mine, version=at).to_pylist()
    came = lake.read("annotations", where=mine, version=at).to_pylist()
    return requests, came, *_standing(requests, _people(lake, version), came, round_id)


def _samples(annotations: Iterable[Row], *states: str) -> set[str]:
    """Return the samples of the answers in some states; of all answers where none is named."""
    return {row["sample_id"] for row in annotations if not states or row["state"] in states}


def _people(lake: Lake, version: str) -> list[Row]:
    """Return the rows of `labels` that are not a model's; objects are answers like classes."""
    rows = lake.read("labels", version=version or None).to_pylist()
    return [row for row in rows if row["origin"] != MODEL and row["annotator"] != MODEL]


def _standing(
    requests: Sequence[Row], labels: Sequence[Row], annotations: Iterable[Row], round_id: str
) -> tuple[dict[str, str], set[str]]:
    """Return what each request has come to, and the conflicts that one more person is asked about.

    These are open: somebody has to answer.
    """
    outcomes = _outcomes(requests, labels, round_id)
    came = _people_of(row for row in annotations if row["state"] in (DONE, SKIPPED))
    again = {
        row["sample_id"]
        for row in requests
        if outcomes[row["sample_id"]] == "conflicts"
        and came[row["sample_id"]] < (row["answers"] or 1)
    }
    return outcomes | dict.fromkeys(again, "open"), again


def _people_of(annotations: Iterable[Row]) -> Counter[str]:
    """Return how many people gave these answers, by sample."""
    found = {(row["sample_id"], row["annotator"] or row["external_id"]) for row in annotations}
    return Counter(sample for sample, _ in found)


def _outcomes(requests: Sequence[Row], labels: Sequence[Row], round_id: str) -> dict[str, str]:
    every = standing(labels)
    own = standing(row for row in labels if is_collected(row) and row["round_id"] == round_id)
    found = {}
    for request in requests:
        sample = request["sample_id"]
        row = own.get(sample)
        if row is None:
            row = every.get(sample)
            again = request["purpose"] == RELABEL
            if row is not None and again and row["created_at"] <= request["requested_at"]:
                row = None  # the answer that is in doubt
        if request["recalled"]:
            found[sample] = "recalled"
        elif row is None:
            found[sample] = "open"
        else:
            named = {SKIPPED: "skipped", CONFLICT: "conflicts"}
            found[sample] = named.get(row["origin"], "labelled")
    return found


def _by_state(rows: Iterable[Row]) -> dict[str, int]:
    counts = Counter(row["state"] for row in rows)
    return {name: counts[name] for name in _STATES}
