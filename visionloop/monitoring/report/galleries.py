"""The pictures that the report shows: what was chosen, what was flagged, where the model erred."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.report.data import FlagKind, Gallery, Picture
from visionloop.monitoring.report.pictures import Pictures, lookup
from visionloop.monitoring.report.reading import Reader, array, named_model
from visionloop.monitoring.standing import current_flags
from visionloop.monitoring.telling import evidence_lines, evidence_of, file_name
from visionloop.words import counted, round_name

# Newest rounds shown, pictures of each, examples of each kind of flag, and of errors.
ROUNDS, SELECTED, EXAMPLES, ERRORS = 2, 24, 6, 24
# What is said of one picture: of itself, of its file, of its label.
OF_PICTURES = ["sample", "file", "label"]
_SEVERITIES = {"error": 0, "warning": 1, "info": 2}
# An error that the model is less sure of than this is no confident one.
CONFIDENT = 0.5


@dataclass
class Chosen:
    """What the galleries will show, before any picture was read.

    Attributes:
        picks: Rows of ``selections`` of the newest rounds, by round, newest first.
        totals: Picks of those rounds.
        flags: Examples of each kind, worst first.
        flag_table: All flags of samples and files that count now.
        errors: The most confident errors.
        n_errors: All errors.
        disagreements: Flags of confident disagreement, worst first.
    """

    picks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    flags: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    flag_table: pa.Table | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    n_errors: int = 0
    disagreements: list[dict[str, Any]] = field(default_factory=list)

    def samples(self) -> set[str]:
        """Return the samples whose pictures are needed."""
        found = {row["sample_id"] for rows in self.picks.values() for row in rows}
        found |= {row["sample_id"] for row in self.errors}
        for rows in (*self.flags.values(), self.disagreements):
            found |= {sample for row in rows if (sample := shown_sample(row))}
        return found


def choose(reader: Reader, flags: pa.Table) -> Chosen:
    """Decide what the galleries show.

    Args:
        reader: The lake.
        flags: Flags that count now.
    """
    chosen = Chosen()
    picks = reader.selections
    rounds = sorted(pc.unique(picks["round_id"]).to_pylist(), reverse=True)[:ROUNDS]
    for round_id in rounds:
        own = picks.filter(pc.equal(picks["round_id"], round_id))
        chosen.totals[round_id] = own.num_rows
        keys = [("rank", "ascending"), ("sample_id", "ascending")]
        chosen.picks[round_id] = own.sort_by(keys).slice(0, SELECTED).to_pylist()
    shown = pc.is_in(flags["subject_type"], value_set=pa.array(OF_PICTURES))
    chosen.flag_table = flags.filter(shown)
    for kind in sorted(pc.unique(chosen.flag_table["kind"]).to_pylist()):
        rows = worst(chosen.flag_table.filter(pc.equal(chosen.flag_table["kind"], kind)))
        chosen.flags[kind] = rows.slice(0, EXAMPLES).to_pylist()
        if kind == "confident_disagreement":
            chosen.disagreements = rows.slice(0, ERRORS).to_pylist()
    chosen.errors, chosen.n_errors = confident_errors(reader)
    return chosen


def current(reader: Reader) -> pa.Table:
    """Return the flags that count now."""
    files = reader.read("files", "uri", "state")
    return current_flags(reader.flags, samples=reader.samples, files=files)


def worst(flags: pa.Table) -> pa.Table:
    """Return flags with the worst first: the score that is farthest from its threshold.

    Args:
        flags: Flags of one kind.
    """
    far = pc.abs(pc.subtract(flags["score"], flags["threshold"]))
    # What has no score is as bad as any other; the newest comes first.
    keyed = flags.append_column("far", pc.fill_null(far, 0.0))
    order = [("far", "descending"), ("round_id", "descending"), ("subject", "ascending")]
    return keyed.sort_by(order).drop_columns(["far"])


def shown_sample(row: Mapping[str, Any]) -> str:
    """Return the sample whose picture shows a flag best, "" where none does."""
    if row["subject_type"] in ("sample", "label"):
        return str(row["subject"])
    images = evidence_of(row).get("images")
    return str(images[0]) if isinstance(images, list) and images else ""


def confident_errors(reader: Reader) -> tuple[list[dict[str, Any]], int]:
    """Return the errors on labelled pictures that the model is surest of, and how many there are.

    They are of the model in service, see `Reader.erring`. A picture that it learned from is an
    error no less: a label that a model cannot learn is worth a look.
    """
    (_, rows), answers = reader.erring, reader.answers
    known = answers.filter(
        pc.and_(
            pc.is_valid(answers["label"]),
            pc.not_equal(pc.fill_null(answers["origin"], ""), "model"),
        )
    )
    if not rows.num_rows or not known.num_rows:
        return [], 0
    at = pc.index_in(array(rows["sample_id"]), value_set=array(known["sample_id"]))
    rows = rows.append_column("at", at).filter(pc.is_valid(at)).combine_chunks()
    truth = array(known["label"]).take(array_of(rows["at"]))
    rows = rows.append_column("truth", truth)
    wrong = pc.not_equal(rows["label"], rows["truth"])
    rows = rows.filter(pc.fill_null(wrong, False))
    sure = rows.filter(pc.greater_equal(pc.fill_null(rows["confidence"], 0.0), CONFIDENT))
    order = [("confidence", "descending"), ("sample_id", "ascending")]
    return sure.sort_by(order).slice(0, ERRORS).to_pylist(), rows.num_rows


def array_of(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return column.combine_chunks()


def selection_galleries(reader: Reader, chosen: Chosen, pictures: Pictures) -> tuple[Gallery, ...]:
    """Return what the newest rounds chose, newest first.

    Args:
        reader: Reads the lake's tables.
        chosen: What is shown.
        pictures: Thumbnails and names of samples.
    """
    ids = {row["sample_id"] for rows in chosen.picks.values() for row in rows}
    labels = lookup(reader.answers, ids, "label")
    galleries = []
    for round_id, rows in chosen.picks.items():
        made = []
        for row in rows:
            label = labels.get(row["sample_id"], (None,))[0]
            title = str(label) if label is not None else "not labelled yet"
            made.append(_picture(pictures, row["sample_id"], title, why(row)))
        total = chosen.totals[round_id]
        heading = round_name(round_id).capitalize()
        galleries.append(
            Gallery(
                heading, total, tuple(made), _shown(len(made), total, "the first that were chosen")
            )
        )
    return tuple(galleries)


def why(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in words why a row of ``selections`` was chosen."""
    from visionloop.selection.explain import explain

    values = json.loads(row["objectives"]) if row["objectives"] else {}
    known = {name: value for name, value in values.items() if _is_number(value)}
    said = explain(known, arm=row["arm"] or "selected")
    # Under a picture, in a column of words, the opening that all sentences share is noise.
    for opening in ("Picked because it is ", "Picked because "):
        if said.startswith(opening):
            said = said.removeprefix(opening)
            said = said[:1].upper() + said[1:]
    return (said,) if row["rank"] is None else (f"Choice {row['rank'] + 1}.", said)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def flag_kinds(
    chosen: Chosen,
    pictures: Pictures,
    planted: Mapping[str, Mapping[str, int]] | None,
    upcoming: str = "",
) -> tuple[FlagKind, ...]:
    """Return the flags of files and samples by kind: the severest first, then the most frequent.

    Args:
        chosen: What to show.
        pictures: Their pictures.
        planted: Defects that were put in on purpose, ``{round id: {kind: n}}``.
        upcoming: Id of the round that was not opened yet.
    """
    found: dict[str, dict[str, int]] = {
        kind: {} for counts in (planted or {}).values() for kind in counts
    }
    if chosen.flag_table is not None:
        counts = chosen.flag_table.group_by(["kind", "round_id"]).aggregate([([], "count_all")])
        for row in sorted(counts.to_pylist(), key=lambda row: str(row["round_id"])):
            of = found.setdefault(row["kind"], {})
            of[row["round_id"] or ""] = row["count_all"]
    kinds = []
    for kind, by_round in found.items():
        made = []
        for row in chosen.flags.get(kind, ()):
            title, *lines = evidence_lines(row, upcoming) or [kind.replace("_", " ")]
            sample = shown_sample(row)
            name = file_name(row["subject"]) if row["subject_type"] == "file" else ""
            made.append(_picture(pictures, sample, title, tuple(lines), name))
        put_in = None
        if planted is not None:
            put_in = {round_id: counts.get(kind, 0) for round_id, counts in planted.items()}
        about = KINDS.get(kind)
        title = about.title if about else kind.replace("_", " ").capitalize()
        total = sum(by_round.values())
        kinds.append(
            FlagKind(
                kind,
                by_round,
                put_in,
                Gallery(title, total, tuple(made), _shown(len(made), total)),
                title,
                about.severity if about else "warning",
                about.meaning if about else "",
                about.remedy if about else "",
            )
        )
    return tuple(sorted(kinds, key=lambda k: (_SEVERITIES[k.severity], -k.total, k.kind)))


def error_gallery(reader: Reader, chosen: Chosen, pictures: Pictures) -> Gallery | None:
    """Return the most confident errors, None where no model has predicted a labelled picture.

    Args:
        reader: Reads the lake's tables.
        chosen: What is shown.
        pictures: Thumbnails and names of samples.
    """
    erring, rows = reader.erring
    if not rows.num_rows:
        return None
    held = set(reader.holdout.to_pylist())
    made = []
    for row in chosen.errors:
        title = f"{row['truth']}, taken for {row['label']}"
        where = "of the holdout" if row["sample_id"] in held else "of the pool, labelled"
        lines = (f"{row['confidence']:.1%} sure as answered", where)
        made.append(_picture(pictures, row["sample_id"], title, lines))
    name = f"the {named_model(reader.model_names, erring)}"
    if erring == reader.in_service:
        name += ", in service"
    alone = "" if erring == reader.predicting else "; it has answered the holdout alone so far"
    note = f"Answers of {name}{alone}. "
    total = counted(chosen.n_errors, "error")
    if made or not chosen.n_errors:
        note += f"{len(made):,} of {total} shown, the surest first."
    else:
        note += f"{total}, of none of them was it {CONFIDENT:.0%} sure."
    return Gallery("Most confident errors", chosen.n_errors, tuple(made), note)


def disagreement_gallery(chosen: Chosen, pictures: Pictures) -> Gallery | None:
    """Return labels that a deployed model confidently contradicts, None where there are none."""
    if not chosen.disagreements:
        return None
    made = []
    for row in chosen.disagreements:
        title, *lines = evidence_lines(row) or ["confident disagreement"]
        made.append(_picture(pictures, shown_sample(row), title, tuple(lines)))
    total = 0
    if chosen.flag_table is not None:
        same = pc.equal(chosen.flag_table["kind"], "confident_disagreement")
        total = int(pc.sum(same).as_py() or 0)
    about = KINDS["confident_disagreement"]
    return Gallery(about.title, total, tuple(made), _shown(len(made), total))


def _picture(
    pictures: Pictures, sample: str, title: str, lines: Sequence[str], name: str = ""
) -> Picture:
    thumb = pictures.thumbnail(sample) if sample else None
    return Picture(
        name or pictures.name(sample),
        thumb.uri if thumb else "",
        title,
        tuple(lines),
        thumb.small if thumb else False,
        sample,
    )


def _shown(shown: int, total: int, which: str = "the worst first") -> str:
    if shown == total:
        return f"{total:,} in all."
    return f"{shown:,} of {total:,} are shown, {which}."


def mark(ids: pa.Array, some: Collection[str]) -> np.ndarray:
    """Return bool [ids], whether each is among some."""
    among = pa.array(sorted(some), pa.string())
    return np.asarray(pc.is_in(ids, value_set=among).to_numpy(zero_copy_only=False), np.bool_)
