"""Brings together what a round asked, what people answered, and what that comes to.

Nothing is written here: `collect_labels` writes it, and `watch` only looks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import CONFLICT as CONFLICT_ROW
from visionloop.labeling.answers import MODEL, SKIPPED, is_collected, latest_answers, standing
from visionloop.labeling.deciding import CONFLICT, LABELLED, OPEN, PASSED, Decision, decide_requests
from visionloop.labeling.merging import REJECTED, Merged
from visionloop.labeling.opening import answers_alone, provider_name
from visionloop.labeling.predicted import unseen
from visionloop.labeling.provider import DONE, LabelingProvider
from visionloop.labeling.provider import SKIPPED as SKIPPED_ANSWER
from visionloop.labeling.ready import Readiness, Standing, readiness
from visionloop.labeling.requests import HOLDOUT, TRAINING, most_answers

if TYPE_CHECKING:
    import numpy as np

    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


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
        ask_again: Samples that people disagree about, and that one more is asked about from now on.
        disputed: All that people disagree about and that are open, `ask_again` among them.
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
    disputed: set[str]
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
    of_round = [row for row in stored_all if row["round_id"] == round_id]
    stored = [row for row in of_round if row["provider"] == name]
    # Answers that were given before the configuration named another provider still count.
    elsewhere = [row for row in of_round if row["provider"] != name]
    every = lake.read("labels", version=at).to_pylist()
    held = [row for row in rows if not row["recalled"]]
    known = _known_otherwise(held, every, round_id, loop.task)
    asked = {row["sample_id"] for row in of_round}
    if answers_alone(loop):
        # A list may be much longer: only what is wanted of it is an answer.
        held = [row for row in held if row["sample_id"] not in known or row["sample_id"] in asked]
    ids = {row["sample_id"]: row["external_id"] or "" for row in held}
    found = provider.collect(round_id, ids, cursor_of(lake, round_id, name)) if ids else None
    classes = list(loop.classes) or frozen_classes(lake, version)
    merged = Merged(loop, lake, round_id, stored, now)
    if found is not None:
        merged.take(found, ids, classes)
    gone = set(found.gone) & ids.keys() if found else set()
    came = [*elsewhere, *merged.rows]
    answered = {row["sample_id"] for row in came if row["state"] in (DONE, SKIPPED_ANSWER)}
    lost = gone - answered - known.keys()
    back = [row for row in rows if row["recalled"] or row["sample_id"] in lost]
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
    for row in listened:
        if row["sample_id"] in gone:
            # Nobody can answer any more: what is there decides.
            row["answers"] = 1
    others = [row for row in stored_all if row["round_id"] != round_id]

    def of_models(samples: Collection[str]) -> Mapping[str, np.ndarray]:
        return unseen(lake, samples, classes, version)

    def decide(last: bool) -> dict[str, Decision]:
        return decide_requests(
            listened,
            came,
            loop,
            classes=classes,
            earlier=others,
            labels=latest_answers((r for r in every if not _is_of(r, round_id)), loop.task),
            probabilities=of_models,
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
        and row["sample_id"] not in gone
    }

    def outcomes_of(made: Mapping[str, Decision]) -> dict[str, str]:
        outcomes = {row["sample_id"]: known.get(row["sample_id"], OPEN) for row in requests}
        told = {s: one.outcome for s, one in made.items()}
        return outcomes | {s: one for s, one in told.items() if one != OPEN or s not in known}

    outcomes = outcomes_of(decisions) | dict.fromkeys(again, OPEN)
    config = loop.labeling.ready
    ready = readiness(config, _standing(rows, requests, outcomes), now)
    late = ready.deadline is not None and now >= ready.deadline
    if not final and OPEN in outcomes.values() and (ready.ready or late):
        # It goes on with what is there: also with fewer answers than were asked for.
        last = decide(True)
        if late and not ready.ready:
            ready = readiness(config, _standing(rows, requests, outcomes_of(last)), now)
        if ready.ready:
            decisions, again, outcomes = last, set(), outcomes_of(last)
    if final:
        # What was decided is not decided anew by other weights: only what was answered since.
        kept = _decided(every, round_id, merged.changed())
        decisions = {sample: one for sample, one in decisions.items() if sample not in kept}
        outcomes |= {sample: one for sample, one in kept.items() if sample in outcomes}
    disputed = {
        sample
        for sample, row in standing(own_labels(every, round_id)).items()
        if row["origin"] == CONFLICT_ROW and outcomes.get(sample) == OPEN
    }
    where = found.where if found else ""
    return Settled(
        round_id, requests, back, gone & back_ids, merged.rows, stored, outcomes, decisions, again,
        disputed | again, ready, found.cursor if found else "", where, merged.not_stored,
        merged.unknown,
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


def _decided(
    labels: Iterable[Mapping[str, Any]], round_id: str, changed: set[str]
) -> dict[str, str]:
    """Return what was decided of a round's samples whose answers are the same as then."""
    named = {SKIPPED: PASSED, CONFLICT_ROW: CONFLICT}
    return {
        sample: named.get(row["origin"], LABELLED)
        for sample, row in standing(own_labels(labels, round_id)).items()
        if sample not in changed
    }


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
