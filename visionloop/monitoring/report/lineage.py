"""The model in service, down to the samples that it learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.report.data_funnel import Part
from visionloop.monitoring.report.data_lineage import DecisionLine, LearnedFrom, Lineage
from visionloop.monitoring.report.data_models import ModelRow
from visionloop.monitoring.report.learned import origin_words
from visionloop.monitoring.report.pictures import lookup
from visionloop.monitoring.report.reading import Reader, array, content, named_model
from visionloop.monitoring.telling import file_name
from visionloop.words import round_name

# Rows of the training set that the page lists; the lake holds all of them.
LISTED = 200
# Decisions that the page lists.
DECISIONS = 60
_ARMS = {
    "selected": "chosen",
    "unknown": "chosen: the detector found nothing in it",
    "random": "drawn at random",
    "": "not picked: imported with its label",
}


def lineage(reader: Reader, models: Sequence[ModelRow], n_holdout: int) -> Lineage | None:
    """Return where the model in service comes from, None without one.

    Args:
        reader: The lake.
        models: Every model.
        n_holdout: Labelled holdout samples.
    """
    model_id = reader.in_service
    if not model_id:
        return None
    about = [line for row, line in _lines(reader) if row["subject"] == model_id]
    row = next((r for r in reversed(reader.experiments) if r["model_id"] == model_id), None)
    name = named_model(reader.model_names, model_id)
    if row is None:  # brought in by hand: nothing was trained here
        return Lineage(model_id, name, "", decisions=tuple(about), before=_before(reader, model_id))
    told = next((model for model in models if model.model_id == model_id), None)
    accuracy = told.accuracy if told else None
    learned = reader.read(
        "training_sets",
        "sample_id",
        "label",
        "position",
        "origin",
        where=f"training_set == '{row['training_set']}'",
    )
    learned = learned.sort_by("position") if learned.num_rows else learned
    ids = array(learned["sample_id"])
    joined = _joined(reader, learned, ids)
    return Lineage(
        model_id,
        name,
        row["round_id"] or "",
        row["architecture"] or "",
        row["training_set"] or "",
        learned.num_rows,
        _parts(joined["origin"], origin_words),
        _parts(joined["picked_in"], lambda r: round_name(r) if r else "not picked by a round"),
        _parts(joined["arm"], lambda arm: _ARMS.get(arm, arm)),
        _parts(joined["source"], lambda source: source or "of no source that is on record"),
        _parts(joined["label"], str),
        accuracy.n if accuracy else n_holdout,
        accuracy,
        tuple(about),
        _before(reader, model_id),
        _listed(reader, joined),
        row["uri"] or "",
        row["trained_at"],
    )


def _joined(reader: Reader, learned: pa.Table, ids: pa.Array) -> pa.Table:
    """Return the training set with who labelled, who picked, and the source of each sample."""
    answers, samples = reader.answers, reader.samples
    picks = (
        reader.selections.sort_by("round_id") if reader.selections.num_rows else reader.selections
    )

    def of(table: pa.Table, column: str) -> pa.Array:
        at = pc.index_in(ids, value_set=array(table["sample_id"]))
        return pc.fill_null(array(table[column]).take(at), "")

    automatic = pc.equal(pc.fill_null(array(learned["origin"]), ""), "model")
    return pa.table(
        {
            "sample_id": ids,
            "label": array(learned["label"]),
            "origin": pc.if_else(automatic, "model", of(answers, "origin")),
            "picked_in": of(picks, "round_id"),
            "arm": of(picks, "arm"),
            "source": of(samples, "source"),
        }
    )


def _parts(column: pa.ChunkedArray, words: Any) -> tuple[Part, ...]:
    counts = pc.value_counts(column.combine_chunks()).to_pylist()
    rows = sorted(counts, key=lambda row: (-row["counts"], row["values"] or ""))
    return tuple(Part(words(row["values"] or ""), row["counts"]) for row in rows)


def _listed(reader: Reader, joined: pa.Table) -> tuple[LearnedFrom, ...]:
    rows = joined.slice(0, LISTED).to_pylist()
    uris = lookup(reader.samples, [row["sample_id"] for row in rows], "uri")
    return tuple(
        LearnedFrom(
            row["sample_id"],
            file_name(str(uris.get(row["sample_id"], ("",))[0] or "")),
            row["label"] or "",
            row["origin"],
            row["picked_in"],
            row["arm"],
            row["source"],
        )
        for row in rows
    )


def decision_lines(reader: Reader) -> tuple[DecisionLine, ...]:
    """Return the newest decisions, newest first."""
    return tuple(line for _, line in reversed(_lines(reader)[-DECISIONS:]))


def _lines(reader: Reader) -> list[tuple[Mapping[str, Any], DecisionLine]]:
    found: list[tuple[Mapping[str, Any], DecisionLine]] = []
    for row in sorted(reader.decisions, key=lambda row: str(row["decided_at"])):
        subject = str(row["subject"] or "")
        if subject in reader.model_names:
            subject = reader.model_names[subject]
        elif subject.isdigit():
            subject = round_name(subject)
        reason = with_names(reader, row["reason"] or "")
        line = DecisionLine(
            row["decision"],
            subject,
            row["outcome"] or "",
            reason,
            row["round_id"] or "",
            row["decided_at"],
        )
        found.append((row, line))
    return found


def with_names(reader: Reader, text: str) -> str:
    """Return a sentence with models called by their rounds, and not by their ids."""
    for model_id, name in reader.model_names.items():
        text = text.replace(model_id, f"the {name}")
    return text


def _before(reader: Reader, model_id: str) -> str:
    """Return the name of the model that was in service before this one, "" for none."""
    for row in reversed(reader.decisions):
        if row["subject"] == model_id and row["decision"] in ("publish", "rollback"):
            before = content(row["inputs"]).get("before")
            if row["outcome"] == "published" and before and before != model_id:
                return named_model(reader.model_names, str(before))
    return ""
