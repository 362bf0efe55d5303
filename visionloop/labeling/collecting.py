"""Brings together what a round asked, what people answered, and what that comes to.

Nothing is written here: `collect_labels` writes it, and `watch` only looks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.labeling.answers import MODEL, SKIPPED, is_collected, latest_answers
from visionloop.labeling.deciding import CONFLICT, LABELLED, OPEN, PASSED, Decision, decide_requests
from visionloop.labeling.opening import answers_alone, provider_name
from visionloop.labeling.predicted import probabilities
from visionloop.labeling.provider import Annotation, Box, Collected, LabelingProvider, Rejected
from visionloop.labeling.ready import Readiness, Standing, readiness
from visionloop.labeling.requests import HOLDOUT, PLACES, TRAINING, most_answers
from visionloop.lake.erasing.tombstones import Tombstones

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

REJECTED = "rejected"
UNKNOWN_CLASS, UNKNOWN_SAMPLE, ERASED = "unknown_class", "unknown_sample", "erased"
# What makes two rows of `annotations` the same answer: a list of answers tells no times.
_SAME = ("sample_id", "external_id", "annotator", "state", "reason", "detail", "label", "boxes",
         "prelabel", "seconds")  # fmt: skip


@dataclass
class Settled:
    """How a round's requests stand.

    Attributes:
        round_id: The round.
        requests: Its rows of `label_requests` that were not taken back.
        recalled: Those that were, now or before.
        gone: Samples whose requests the tool does not have any more, among `recalled`.
        annotations: Its rows of `annotations`, as they are to be.
        stored: The rows that the lake has.
        outcomes: What each request came to, by sample: ``labelled``, ``skipped``, ``conflict``
            (nobody is asked any more) or ``open``.
        decisions: What the answers to it came to, by sample; of those that are known from
            elsewhere there is none.
        ask_again: Samples that people disagree about, and that one more is asked about.
        ready: Whether the round goes on.
        cursor: Of the collection.
        where: Where the answers are.
        not_stored: Answers that are not kept, by reason.
        unknown: What a list of answers names that is no sample of the lake.
    """

    round_id: str
    requests: list[dict[str, Any]]
    recalled: list[dict[str, Any]]
    gone: set[str]
    annotations: list[dict[str, Any]]
    stored: list[dict[str, Any]]
    outcomes: dict[str, str]
    decisions: dict[str, Decision]
    ask_again: set[str]
    ready: Readiness
    cursor: str
    where: str
    not_stored: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)

    def samples(self, outcome: str, purpose: str = "") -> set[str]:
        """Return the samples whose requests came to something, of one purpose or all."""
        return {
            row["sample_id"]
            for row in self.requests
            if self.outcomes[row["sample_id"]] == outcome and purpose in ("", row["purpose"])
        }

    def take_back(self, samples: Iterable[str]) -> None:
        """Note requests that the tool has taken back."""
        gone = set(samples)
        for row in self.requests:
            if row["sample_id"] in gone:
                row["recalled"] = True
                self.recalled.append(row)
        self.requests = [row for row in self.requests if row["sample_id"] not in gone]

    @property
    def states(self) -> Counter[str]:
        """Answers by state, of those that are kept."""
        return Counter(row["state"] for row in self.annotations)

    @property
    def rejected(self) -> Counter[str]:
        """Answers that cannot be used, by reason."""
        found = Counter(row["reason"] for row in self.annotations if row["state"] == REJECTED)
        return found + self.not_stored


def settle(
    loop: LoopConfig,
    lake: Lake,
    provider: LabelingProvider,
    round_id: str,
    now: datetime,
    *,
    version: str = "",
    final: bool = False,
) -> Settled:
    """Collect a round's answers, and decide what they come to.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        provider: The provider.
        round_id: The round.
        now: UTC.
        version: Lake version to read at; empty for the newest.
        final: The round went on: nobody waits for more answers.

    Raises:
        InputError: A list of answers holds one of a class that the configuration lacks.
        VisionloopError: The provider does not answer.
    """
    at, mine = version or None, f"round_id == '{round_id}'"
    rows = lake.read("label_requests", where=mine, version=at).to_pylist()
    stored_all = lake.read("annotations", version=at).to_pylist()
    name = provider_name(loop)
    stored = [r for r in stored_all if r["round_id"] == round_id and r["provider"] == name]
    every = lake.read("labels", version=at).to_pylist()
    held = [row for row in rows if not row["recalled"]]
    known = _known_otherwise(held, every, round_id, loop.task)
    asked = {row["sample_id"] for row in stored}
    if answers_alone(loop):
        # A list may be much longer: only what is wanted of it is an answer.
        held = [row for row in held if row["sample_id"] not in known or row["sample_id"] in asked]
    ids = {row["sample_id"]: row["external_id"] or "" for row in held}
    found = provider.collect(round_id, ids, cursor_of(lake, round_id, name)) if ids else None
    classes = list(loop.classes) or frozen_classes(lake, version)
    merged = _Merged(loop, lake, round_id, stored, now)
    if found is not None:
        merged.take(found, ids, classes)
    gone = set(found.gone) & ids.keys() if found else set()
    answered = {row["sample_id"] for row in merged.rows if row["state"] != REJECTED}
    back = [row for row in rows if row["recalled"] or row["sample_id"] in gone - answered]
    back_ids = {row["sample_id"] for row in back}
    for row in back:
        row["recalled"] = True
    requests = [row for row in rows if row["sample_id"] not in back_ids]
    # Whoever has answered is listened to, also where the label came in another way since.
    listened = [
        row
        for row in requests
        if row["sample_id"] not in known or row["sample_id"] in answered | asked
    ]
    others = [row for row in stored_all if row["round_id"] != round_id]

    def decide(last: bool) -> dict[str, Decision]:
        return decide_requests(
            listened,
            merged.rows,
            loop,
            classes=classes,
            earlier=others,
            labels=latest_answers((r for r in every if not _is_of(r, round_id)), loop.task),
            probabilities=lambda: probabilities(
                lake, {row["sample_id"] for row in listened}, classes, version
            ),
            final=last,
        )

    decisions = decide(final)
    again = {
        row["sample_id"]
        for row in listened
        if decisions[row["sample_id"]].outcome == CONFLICT
        and not final
        and not answers_alone(loop)
        and (row["answers"] or 1) < most_answers(loop)
    }

    def outcomes_of(made: Mapping[str, Decision]) -> dict[str, str]:
        outcomes = {row["sample_id"]: known.get(row["sample_id"], OPEN) for row in requests}
        came = {s: one.outcome for s, one in made.items()}
        return outcomes | {s: one for s, one in came.items() if one != OPEN or s not in known}

    outcomes = outcomes_of(decisions) | dict.fromkeys(again, OPEN)
    config, standing = loop.labeling.ready, _standing(rows, requests, outcomes)
    ready = readiness(config, standing, now)
    late = ready.deadline is not None and now >= ready.deadline
    if not final and OPEN in outcomes.values() and (ready.ready or late):
        # It goes on with what is there: also with fewer answers than were asked for.
        last = decide(True)
        if late and not ready.ready:
            ready = readiness(config, _standing(rows, requests, outcomes_of(last)), now)
        if ready.ready:
            decisions, again, outcomes = last, set(), outcomes_of(last)
    where = found.where if found else ""
    return Settled(
        round_id, requests, back, gone & back_ids, merged.rows, stored, outcomes, decisions, again,
        ready, found.cursor if found else "", where, merged.not_stored, merged.unknown,
    )  # fmt: skip


def _is_of(row: Mapping[str, Any], round_id: str) -> bool:
    return is_collected(row) and row["round_id"] == round_id


def own_labels(labels: Iterable[Mapping[str, Any]], round_id: str) -> list[Mapping[str, Any]]:
    """Return the rows of `labels` that were made of the answers to a round's requests."""
    return [row for row in labels if _is_of(row, round_id) and row["origin"] != MODEL]


def _known_otherwise(
    requests: Sequence[Mapping[str, Any]],
    labels: Sequence[Mapping[str, Any]],
    round_id: str,
    task: str,
) -> dict[str, str]:
    """Return what is known of a round's samples beside the answers to its requests, by sample."""
    people = [r for r in labels if r["origin"] != MODEL and not _is_of(r, round_id)]
    answers = latest_answers(people, task)
    known = {}
    for request in requests:
        row = answers.get(request["sample_id"])
        first = request["purpose"] in (TRAINING, HOLDOUT)
        # Whoever asks again has heard what was said before.
        if row is not None and (first or row["created_at"] > request["requested_at"]):
            skipped = row["origin"] == SKIPPED
            known[request["sample_id"]] = PASSED if skipped else LABELLED
    return known


def _standing(
    rows: Sequence[Mapping[str, Any]],
    requests: Sequence[Mapping[str, Any]],
    outcomes: Mapping[str, str],
) -> Standing:
    counts: Counter[tuple[bool, bool]] = Counter(
        (row["purpose"] == HOLDOUT, outcomes[row["sample_id"]] != OPEN) for row in requests
    )
    times = [row["requested_at"] for row in rows if row["requested_at"] is not None]
    return Standing(
        training=counts[False, True] + counts[False, False],
        training_answered=counts[False, True],
        holdout=counts[True, True] + counts[True, False],
        holdout_answered=counts[True, True],
        asked_at=min(times, default=None),
    )


def cursor_of(lake: Lake, round_id: str, provider: str) -> str:
    """Return the cursor of the last collection of a round that was stored; empty for none.

    Args:
        lake: The lake.
        round_id: The round.
        provider: What rows of the lake call the provider: another one's cursor means nothing to it.
    """
    runs = lake.stage_runs(where="stage == 'collect_labels'").to_pylist()
    for row in sorted(runs, key=lambda row: row["sequence"], reverse=True):
        cursors = json.loads(row["outputs"] or "{}").get("cursors", {})
        if round_id in cursors:
            told = cursors[round_id]
            return str(told["cursor"]) if told["provider"] == provider else ""
    return ""


def frozen_classes(lake: Lake, version: str = "") -> list[str]:
    """Return the classes that the first model learned from its labels, none before there is one.

    Args:
        lake: The lake.
        version: Lake version to read at; empty for the newest.
    """
    columns = ["round_id", "arm", "classes"]
    models = lake.read("experiments", columns=columns, version=version or None).to_pylist()
    first = min(
        (row for row in models if row["arm"] == "loop" and row["classes"]),
        key=lambda row: row["round_id"],
        default=None,
    )
    return list(first["classes"]) if first else []


class _Merged:
    """A round's rows of `annotations`, those that were stored and those that came."""

    def __init__(
        self,
        loop: LoopConfig,
        lake: Lake,
        round_id: str,
        stored: Sequence[Mapping[str, Any]],
        now: datetime,
    ) -> None:
        self._loop, self._lake, self._round_id, self._now = loop, lake, round_id, now
        self.rows = [dict(row) for row in stored]
        self.not_stored: Counter[str] = Counter()
        self.unknown: list[str] = []

    def take(self, found: Collected, asked: Mapping[str, str], classes: Sequence[str]) -> None:
        """Put what came into the place of what was stored of the same samples."""
        if classes and answers_alone(self._loop):
            _check_classes(found, classes)
        came = [self._row(one, asked, classes) for one in found.annotations]
        came += [self._rejected(one) for one in found.rejected]
        new = [row for row in came if row is not None]
        named = {row["external_id"] for row in new if row["external_id"]}
        # A request that was deleted at the tool takes no answer back that was given to it.
        listed = found.samples - found.gone
        before = {_key(row): row for row in self.rows}
        kept = [
            row
            for row in self.rows
            if row["sample_id"] not in listed and row["external_id"] not in named
        ]
        self.rows = kept + [before.get(_key(row), row) for row in new]

    def _row(
        self, one: Annotation, asked: Mapping[str, str], classes: Sequence[str]
    ) -> dict[str, Any] | None:
        if one.sample_id not in asked:
            return self._rejected(Rejected(one.external_id, one.sample_id, UNKNOWN_SAMPLE, ""))
        names = [one.label] if one.label is not None else []
        strange = {*names, *(box.label for box in one.boxes or ())} - set(classes)
        reason = UNKNOWN_CLASS if classes and strange else ""
        return self._base(one.external_id, one.sample_id) | {
            "annotator": one.annotator,
            "state": REJECTED if reason else one.state,
            "reason": reason,
            "detail": ", ".join(sorted(strange)) if reason else "",
            "label": one.label,
            "boxes": None if one.boxes is None else [stored_box(box) for box in one.boxes],
            "prelabel": one.prelabel,
            "seconds": one.seconds,
            "created_at": one.created_at,
            "updated_at": one.updated_at,
        }

    def _rejected(self, one: Rejected) -> dict[str, Any] | None:
        if one.sample_id and (one.reason == ERASED or self._is_erased(one.sample_id)):
            # Nothing of it comes back into the lake.
            self.not_stored[ERASED] += 1
            return None
        if not one.external_id:
            if one.reason == UNKNOWN_SAMPLE:
                self.unknown.append(one.detail)
            else:
                self.not_stored[one.reason] += 1
            return None
        sample = one.sample_id if one.reason != UNKNOWN_SAMPLE else ""
        times = {"created_at": self._now, "updated_at": self._now}
        told = {"state": REJECTED, "reason": one.reason, "detail": one.detail or one.sample_id}
        return self._base(one.external_id, sample) | told | times

    def _is_erased(self, sample_id: str) -> bool:
        return sample_id in Tombstones.of(self._lake)

    def _base(self, external_id: str, sample_id: str) -> dict[str, Any]:
        empty = dict.fromkeys((*_SAME, "run_id"))
        return empty | {
            "sample_id": sample_id,
            "provider": provider_name(self._loop),
            "external_id": external_id,
            "task": self._loop.task,
            "round_id": self._round_id,
        }


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps([row[name] for name in _SAME], sort_keys=True, default=str)


def stored_box(box: Box) -> dict[str, Any]:
    """Return a box as a column of boxes holds it; a person's has no scores."""
    import numpy as np

    # As the column's type rounds them: what comes again is then recognised.
    places = {name: float(np.float32(getattr(box, name))) for name in PLACES}
    return places | {"label": box.label, "scores": None}


def _check_classes(found: Collected, classes: Sequence[str]) -> None:
    strange = sorted({a.label for a in found.annotations if a.label is not None} - set(classes))
    if strange:
        from visionloop.validation import nearest

        named = ", ".join(f"`{label}`" + nearest(label, list(classes)) for label in strange[:5])
        raise InputError(
            f"labels of classes that are not among the loop's classes: {named}",
            where=found.where,
            remedy="Correct the labels, or name every class in `classes:`, a new one at its end; "
            "nothing was stored",
        )
