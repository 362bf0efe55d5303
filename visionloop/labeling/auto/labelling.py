"""Gives automatic labels: what the model in service says, where the holdout proves that it may.

It is decided anew each time, from the model in service, the holdout as people labelled it and the
configuration. A label that an earlier model gave stays, under that model's proof, where the model
in service has trained on it, and is else taken back, as is what is not proven any more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import (
    MODEL,
    TICK,
    WITHDRAWN,
    is_collected,
    latest_answers,
    standing,
)
from visionloop.labeling.auto.earlier import given_before, kept, nth_model, proved
from visionloop.labeling.auto.proof import Judged, Proof, miss_of, prove
from visionloop.labeling.auto.share import drawn, within_share
from visionloop.labeling.requests import AS_AT_RANDOM, AUDIT, RELABEL, Wanted
from visionloop.lake import parts
from visionloop.selection.in_service import model_in_service

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run

Row = Mapping[str, Any]
DECISION, FLAG = "auto_labels", "auto_labels_withdrawn"


@dataclass(frozen=True)
class AutoLabelled:
    """What became of automatic labels.

    Attributes:
        model_id: The model in service; empty without one.
        labelled: Samples with an automatic label now.
        added: Labels that were given now.
        withdrawn: Labels that were taken back now.
        reason: Why so many, for people; empty where automatic labels are off.
        audits: Requests to people: a random share of the labels.
        proof: What the holdout shows; None where it was not asked.
        rows: Rows of `labels` that say so.
        decisions: Rows of `decisions` that say why.
    """

    model_id: str = ""
    labelled: int = 0
    added: int = 0
    withdrawn: int = 0
    reason: str = ""
    audits: list[Wanted] = field(default_factory=list)
    proof: Proof | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """What a run counts; nothing where automatic labels are off."""
        told = ("labelled", "added", "withdrawn")
        return {f"automatic_{name}": getattr(self, name) for name in told if self.reason}

    def write(self, run: Run) -> None:
        """Write the rows, as part of a run."""
        append(run, "labels", self.rows)
        append(run, "decisions", self.decisions)


@dataclass(frozen=True)
class _Allowed:
    """What may be labelled: `said` is label, confidence and model by sample."""

    model_id: str
    said: dict[str, tuple[str, float, str]]
    reason: str
    proof: Proof | None = None
    eligible: int = 0


def auto_label(run: Run, lake: Lake, loop: LoopConfig, now: datetime) -> AutoLabelled:
    """Decide which automatic labels are given, and which are taken back that are not proven now.

    Nothing is written: `AutoLabelled.write` does.

    Only samples of the pool get one that nobody labelled, skipped or disagrees about, that nobody
    is asked about, that are not picked, that carry no flag, and that are copies neither of the
    holdout nor of what people labelled.

    Args:
        run: The run of a stage, which tells the round.
        lake: The loop's lake.
        loop: Its configuration.
        now: UTC.
    """
    rows = run.read("labels").to_pylist()
    held = standing_automatic(rows)
    config = loop.labeling.auto_labels
    if not config.precision and not held:
        return AutoLabelled()
    people = [row for row in rows if row["origin"] != MODEL]
    allowed = _allowed(run, lake, loop, people, held)
    answered = latest_answers(people, loop.task)
    pool = _trainable(run, loop)
    n_people = sum(answered[s]["label"] is not None for s in answered.keys() & pool)
    chosen = within_share(allowed.said, n_people, config.max_share)
    target = {sample: allowed.said[sample] for sample in chosen}
    stays = {
        sample
        for sample, row in held.items()
        if sample in target
        and row["model_id"] == target[sample][2]
        and row["label"] == target[sample][0]
    }
    # A person's label wins in any case: what a model had said before stays on record.
    gone = [held[sample] for sample in sorted(held.keys() - stays - _said_by(people))]
    new = {sample: said for sample, said in sorted(target.items()) if sample not in stays}
    newest = max((row["created_at"] for row in held.values()), default=now)
    at = max(now, newest + TICK)
    added = [_label(sample, said, loop, at + TICK) for sample, said in new.items()]
    return AutoLabelled(
        allowed.model_id,
        len(target),
        len(new),
        len(gone),
        allowed.reason,
        _audits(run, target, config.audit),
        allowed.proof,
        [*withdrawals(gone, at), *added],
        _decision(run, loop, allowed, len(target), now),
    )


def standing_automatic(labels: Sequence[Row]) -> dict[str, Row]:
    """Return the automatic label of each sample that has one, also where a person's wins.

    Args:
        labels: Rows of the table `labels`.
    """
    mine = (
        row
        for row in labels
        if row["origin"] == MODEL or (row["origin"] == WITHDRAWN and row["annotator"] == MODEL)
    )
    return standing(mine)


def withdrawals(held: Sequence[Row], now: datetime) -> list[dict[str, Any]]:
    """Return the rows of `labels` that take automatic labels back.

    Args:
        held: The rows of the labels.
        now: UTC, later than those.
    """
    return [
        {
            "sample_id": row["sample_id"],
            "task": row["task"],
            "label": None,
            "boxes": None,
            "annotator": MODEL,
            "origin": WITHDRAWN,
            "created_at": now,
            "model_id": row["model_id"],
            # A withdrawal is of what its round had written.
            "round_id": row["round_id"],
        }
        for row in held
    ]


def append(run: Run, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows, if there are any, to a table.

    Args:
        run: The run of a stage.
        table: Name of the table.
        rows: Its rows; columns that one lacks are null.
    """
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    if rows:
        run.append(table, pa.Table.from_pylist(list(rows), schema=arrow_schema(table)))


def _label(
    sample: str, said: tuple[str, float, str], loop: LoopConfig, now: datetime
) -> dict[str, Any]:
    return {
        "sample_id": sample,
        "task": loop.task,
        "label": said[0],
        "annotator": MODEL,
        "origin": MODEL,
        "created_at": now,
        "quality": said[1],
        "model_id": said[2],
    }


def _said_by(people: Sequence[Row]) -> set[str]:
    """Return the samples that people have said something of: also that they disagree."""
    return set(standing(people))


def _allowed(
    run: Run, lake: Lake, loop: LoopConfig, people: Sequence[Row], held: Mapping[str, Row]
) -> _Allowed:
    """Return what may be labelled, and why no more."""
    precision = loop.labeling.auto_labels.precision
    if not precision:
        return _Allowed("", {}, "`labeling.auto_labels.precision` is 0: the model labels nothing")
    model = model_in_service(run.read("experiments", where="arm == 'loop'").to_pylist())
    if model is None:
        return _Allowed("", {}, "no model is in service yet")
    model_id = str(model["model_id"])
    flags = run.read("flags", columns=["subject", "kind", "subject_type"]).to_pylist()
    refuted = {row["subject"] for row in flags if row["kind"] == FLAG}
    trained = _trained_on(run, model)
    candidates = _candidates(run, loop, people, flags)
    decisions = run.read("decisions", where=f"decision == '{DECISION}'").to_pylist()
    models = {name: one for name, one in proved(decisions).items() if name not in refuted}
    stay = kept(
        {sample: row for sample, row in held.items() if sample in candidates},
        trained,
        models,
        precision,
    )
    said = {s: (row["label"], row["quality"], row["model_id"]) for s, row in stay.items()}
    if model_id in refuted:
        told = "people found more errors among its labels than were stated: it labels nothing more"
        return _Allowed(model_id, said, told)
    candidates -= trained
    truth = _truth(run, loop, people)
    given = given_before(
        stay.values(), models, lambda name: _predicted(lake, name, truth.keys(), run.base)
    )
    found = _predicted(lake, model_id, candidates | truth.keys(), run.base)
    holdout = [
        Judged(*found[sample], right=found[sample][0] == label)
        for sample, label in sorted(truth.items())
        if sample in found and sample not in given
    ]
    pool = {sample: one for sample, one in found.items() if sample in candidates}
    proof = prove(
        holdout,
        [confidence for _, confidence in pool.values()],
        precision,
        miss_of(nth_model(decisions, model_id)),
    )
    said |= {sample: (*one, model_id) for sample, one in pool.items() if proof.admits(*one)}
    return _Allowed(model_id, said, proof.reason, proof, len(pool))


def _trained_on(run: Run, model: Row) -> set[str]:
    rows = run.read(
        "training_sets",
        columns=["sample_id"],
        where=f"training_set == '{model['training_set'] or ''}'",
    )
    return set(rows["sample_id"].to_pylist())


def _truth(run: Run, loop: LoopConfig, people: Sequence[Row]) -> dict[str, str | None]:
    """Return what people say of the holdout's samples; null where nobody can label one.

    As they said before models doubted it: what models share an error about they do not doubt, so
    that second opinions move the holdout towards them.
    """
    again = run.read(
        "label_requests", columns=["sample_id", "round_id"], where=f"purpose == '{RELABEL}'"
    ).to_pylist()
    doubted = {(row["sample_id"], row["round_id"]) for row in again}
    first = [
        row
        for row in people
        if not is_collected(row) or (row["sample_id"], row["round_id"]) not in doubted
    ]
    answers = latest_answers(first, loop.task)
    held = run.read("samples", columns=["sample_id"], where="split == 'holdout'")
    ids = held["sample_id"].to_pylist()
    return {sample: answers[sample]["label"] for sample in ids if sample in answers}


def _candidates(
    run: Run, loop: LoopConfig, people: Sequence[Row], flags: Sequence[Row]
) -> set[str]:
    requests = run.read("label_requests", columns=["sample_id", "purpose", "recalled"])
    asked = {
        row["sample_id"]
        for row in requests.to_pylist()
        if not row["recalled"] and row["purpose"] != AUDIT
    }
    picked = run.read("selections", columns=["sample_id"], where=f"round_id == '{run.round_id}'")
    flagged = {row["subject"] for row in flags if row["subject_type"] == "sample"}
    said = _said_by(people)
    left = _trainable(run, loop) - said - asked - flagged - set(picked["sample_id"].to_pylist())
    return left - _copies(run, left, said, loop.selection.copy_distance)


def _trainable(run: Run, loop: LoopConfig) -> set[str]:
    from visionloop.training.training_set import trainable

    samples = run.read("samples", columns=["sample_id", "split", "fingerprint"]).to_pylist()
    return trainable(samples, loop.selection.copy_distance)


def _copies(run: Run, left: Collection[str], said: Collection[str], distance: int) -> set[str]:
    """Return the samples that are copies of such as people have said something of."""
    from visionloop.selection.neighbours import copies_of
    from visionloop.selection.pool import fingerprint_words

    rows = run.read("samples", columns=["sample_id", "fingerprint"]).to_pylist()
    mine = [row for row in rows if row["sample_id"] in left]
    known = [row["fingerprint"] for row in rows if row["sample_id"] in said]
    who, _ = copies_of(
        fingerprint_words([row["fingerprint"] for row in mine]), fingerprint_words(known), distance
    )
    return {row["sample_id"] for row, copy in zip(mine, who, strict=True) if copy >= 0}


def _predicted(
    lake: Lake, model_id: str, ids: Collection[str], version: str
) -> dict[str, tuple[str, float]]:
    rows = parts.rows_of(
        lake,
        "predictions",
        set(ids),
        columns=["sample_id", "label", "confidence"],
        where=f"model_id == '{model_id}'",
        version=version,
    ).to_pylist()
    return {
        row["sample_id"]: (row["label"], float(row["confidence"]))
        for row in rows
        if row["label"] is not None
        and row["confidence"] is not None
        and math.isfinite(row["confidence"])
    }


def _audits(run: Run, target: Mapping[str, tuple[str, float, str]], share: float) -> list[Wanted]:
    """Return requests for a random share of the labels: each with that probability."""
    rows = run.read("label_requests", columns=["sample_id", "round_id", "recalled"]).to_pylist()
    asked = {
        row["sample_id"]
        for row in rows
        if row["round_id"] != run.round_id and not row["recalled"]
    }  # fmt: skip
    return [
        Wanted(sample, AUDIT, AS_AT_RANDOM)
        for sample, (_, _, model) in sorted(target.items())
        if sample not in asked and drawn(f"audit {model}", sample) < share
    ]


def _decision(
    run: Run, loop: LoopConfig, allowed: _Allowed, labelled: int, now: datetime
) -> list[dict[str, Any]]:
    """Return what was decided, with the probability of an audit, unless it is said already."""
    config = loop.labeling.auto_labels
    told = {
        "precision": config.precision,
        "audit_propensity": config.audit,
        "max_share": config.max_share,
        "eligible": allowed.eligible,
        "labelled": labelled,
        "proof": allowed.proof.plain() if allowed.proof else None,
    }
    row = {
        "decision": DECISION,
        "subject": allowed.model_id,
        "outcome": "labelled" if labelled else "none",
        "reason": allowed.reason,
        "inputs": json.dumps(told, sort_keys=True),
        "decided_at": now,
    }
    mine = run.read("decisions", where=f"decision == '{DECISION}'").to_pylist()
    last = max(mine, key=lambda one: one["decided_at"], default=None)
    same = ("subject", "outcome", "reason", "inputs")
    return [row] if last is None or any(last[name] != row[name] for name in same) else []
