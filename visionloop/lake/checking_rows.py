"""Checks among the rows of a lake: references, keys, counts, vectors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from visionloop.errors import VisionloopError
from visionloop.lake import rounds as round_states
from visionloop.lake.checking import Finding, finding
from visionloop.lake.schemas import EMBEDDINGS_PREFIX, ERASED
from visionloop.words import round_name, round_number

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

# (table, column, table, column): each value of the first that is not empty is one of the second.
REFERENCES = [
    ("files", "sample_id", "samples", "sample_id"),
    ("samples", "sample_id", "files", "sample_id"),
    ("metadata", "sample_id", "samples", "sample_id"),
    ("thumbnails", "sample_id", "samples", "sample_id"),
    ("labels", "sample_id", "samples", "sample_id"),
    ("label_requests", "sample_id", "samples", "sample_id"),
    ("annotations", "sample_id", "samples", "sample_id"),
    ("relabels", "sample_id", "samples", "sample_id"),
    ("predictions", "sample_id", "samples", "sample_id"),
    ("predictions", "model_id", "experiments", "model_id"),
    ("selections", "sample_id", "samples", "sample_id"),
    ("selections", "nearest_chosen", "samples", "sample_id"),
    ("selections", "model_id", "experiments", "model_id"),
    ("named_selections", "sample_id", "samples", "sample_id"),
    ("named_selections", "nearest_chosen", "samples", "sample_id"),
    ("named_selections", "model_id", "experiments", "model_id"),
    ("training_sets", "sample_id", "samples", "sample_id"),
    ("experiments", "training_set", "training_sets", "training_set"),
    ("confidences", "event_id", "harvest_events", "event_id"),
    ("harvest_events", "uri", "harvest_ledger", "uri"),
]
# The columns that tell a table's rows apart.
KEYS = {
    "samples": ("sample_id",),
    "files": ("uri", "generation"),
    "metadata": ("sample_id",),
    "thumbnails": ("sample_id",),
    "label_requests": ("round_id", "sample_id", "purpose"),
    "annotations": ("round_id", "provider", "sample_id", "external_id", "annotator"),
    "relabels": ("round_id", "sample_id"),
    "predictions": ("sample_id", "model_id"),
    "selections": ("round_id", "sample_id", "arm"),
    "named_selections": ("name", "sample_id"),
    "experiments": ("model_id",),
    "training_sets": ("training_set", "sample_id"),
    "confidences": ("event_id", "occurrence", "row"),
    "harvest_events": ("uri", "line", "line_sha256"),
    "checks": ("subject", "generation"),
    "erased": ("digest",),
    "rounds": ("round_id",),
}
# A stage counts its input as ``in`` (the harvest as ``events``), and each piece of it once more.
PARTS = {
    "in": (
        "ok",
        "flagged",
        "unreadable",
        "no_picture",
        "skipped",
        "duplicates",
        "unchecked",
        "missing",
        "conflicts",
        "recalled",
    ),
    "annotations": ("used", "passed", "drafts", "rejected"),
    "events": ("pending", "harvested", "duplicate", "rejected", "orphan", "ignored"),
}
FILE_STATES = ("ok", "unreadable", "skipped", "removed", "container")
# Float32 vectors of a few thousand components that were scaled to length 1 are closer than this.
LENGTH_TOLERANCE = 1e-3
_RESTORE = "Restore the lake from a backup, or report this: no stage leaves such rows"


class _Columns:
    """Columns of the newest version, each read once."""

    def __init__(self, lake: Lake, version: str) -> None:
        self._lake, self._version = lake, version
        self._held: dict[tuple[str, str], list[Any]] = {}

    def __call__(self, table: str, *names: str) -> list[tuple[Any, ...]]:
        wanted = [name for name in names if (table, name) not in self._held]
        if wanted:
            read = self._lake.read(table, columns=wanted, version=self._version)
            for name in wanted:
                self._held[table, name] = read[name].to_pylist()
        return list(zip(*(self._held[table, name] for name in names), strict=True))

    def values(self, table: str, name: str) -> set[Any]:
        return {value for (value,) in self(table, name)}


def rows(lake: Lake, version: str) -> Iterator[Finding]:
    """Yield what is found among the rows of a version."""
    columns = _Columns(lake, version)
    yield from _references(columns)
    yield _subjects(columns, "checks", [(s, "") for (s,) in columns("checks", "subject")])
    yield _subjects(columns, "flags", columns("flags", "subject", "subject_type"))
    for table, key in KEYS.items():
        yield _key(columns, table, key)
    yield _files(columns)
    yield _training_sets(columns)
    yield _rounds(columns)
    yield from _history(lake)
    samples = columns.values("samples", "sample_id")
    for space in lake.spaces(version=version):
        yield _space(lake, space, version, samples)


def _references(columns: _Columns) -> Iterator[Finding]:
    for table, name, target, target_name in REFERENCES:
        known = columns.values(target, target_name)
        if table == "training_sets":
            known = known | columns.values(ERASED, "tombstone")
        held = [value for (value,) in columns(table, name) if value]
        lost = sorted({value for value in held if value not in known})
        yield finding(
            f"{table}.{name} in {target}",
            len(held),
            [f"{value} is not in {target}" for value in lost],
            _RESTORE,
        )


def _subjects(columns: _Columns, table: str, held: list[tuple[Any, ...]]) -> Finding:
    known = {
        "sample": columns.values("samples", "sample_id"),
        "file": columns.values("files", "uri"),
        "model": columns.values("experiments", "model_id"),
        "round": columns.values("rounds", "round_id"),
    }
    # A check's subject is a sample or a file; an endpoint is whatever sent events.
    known[""] = known["sample"] | known["file"]
    lost = [
        f"{kind or 'sample or file'} {subject} is not in the lake"
        for subject, kind in held
        if kind in known and subject not in known[kind]
    ]
    return finding(f"{table}.subject", len(held), lost, _RESTORE)


def _key(columns: _Columns, table: str, key: tuple[str, ...]) -> Finding:
    if table == "files":
        # What could not be had is tried again and noted each time.
        held = [row[:2] for row in columns(table, *key, "state") if row[2] != "skipped"]
    else:
        held = columns(table, *key)
    again = [row for row, times in Counter(held).items() if times > 1]
    named = [", ".join(str(part) for part in row) + " is there more than once" for row in again]
    return finding(f"{table}: one row for each {' and '.join(key)}", len(held), named, _RESTORE)


def _files(columns: _Columns) -> Finding:
    held = columns("files", "uri", "state", "sample_id")
    wrong = [
        f"{uri} is {state!r} with sample {sample_id}"
        for uri, state, sample_id in held
        if state not in FILE_STATES
        # What was removed names the sample that it was, if it was one.
        or (state != "removed" and (state == "ok") != bool(sample_id))
    ]
    return finding("files: a sample if and only if readable", len(held), wrong, _RESTORE)


def _training_sets(columns: _Columns) -> Finding:
    rows = columns("training_sets", "training_set", "origin")
    # What the model labelled itself is trained on, and is no label that people gave.
    sizes = Counter(digest for digest, origin in rows if origin != "model")
    held = columns("experiments", "model_id", "training_set", "n_labels")
    wrong = [
        f"{model} was trained on {n} labels, its training set has {sizes[digest]}"
        for model, digest, n in held
        if sizes[digest] != n
    ]
    return finding("experiments: labels add up", len(held), wrong, _RESTORE)


def _rounds(columns: _Columns) -> Finding:
    held = sorted(columns("rounds", "round_id", "state"))
    wrong = [
        f"{round_name(number)} is missing"
        for number in (f"{i:04d}" for i in range(len(held)))
        if number not in {round_id for round_id, _ in held}
    ]
    opened = [round_number(round_id) for round_id, state in held if state != round_states.DONE]
    if len(opened) > 1:
        wrong.append(f"rounds {', '.join(opened)} are open at once")
    return finding("rounds: in sequence, one open", len(held), wrong, _RESTORE)


def _history(lake: Lake) -> Iterator[Finding]:
    held = lake.history().to_pylist()
    times = Counter(row["sequence"] for row in held)
    yield finding(
        "stage_runs: one row for each sequence",
        len(held),
        [f"sequence {number} is there {n} times" for number, n in times.items() if n > 1],
        _RESTORE,
    )
    wrong, checked = [], 0
    for row in held:
        counts = json.loads(row["counts"] or "{}")
        for whole, parts in PARTS.items():
            if whole in counts:
                checked += 1
                found = sum(counts.get(part, 0) for part in parts)
                if found != counts[whole]:
                    wrong.append(
                        f"{row['stage']} of {round_name(row['round_id'])} counted "
                        f"{counts[whole]} in and {found} out"
                    )
    yield finding(
        "stage_runs: in = ok + flagged + unreadable + skipped",
        checked,
        wrong,
        "Report this with the counts: a stage lost or doubled something",
    )


def _space(lake: Lake, space: str, version: str, samples: set[str]) -> Finding:
    name = f"{EMBEDDINGS_PREFIX}{space}: finite, of length 1, one a sample"
    remedy = "Restore the lake from a backup, or name another space and run infer again"
    ids: list[str] = []
    wrong: list[str] = []
    try:
        for names, vectors in lake.embedding_blocks(space, version=version):
            finite = np.isfinite(vectors).all(axis=1)
            lengths = np.linalg.norm(np.where(finite[:, None], vectors, 0), axis=1)
            off = finite & (np.abs(lengths - 1) > LENGTH_TOLERANCE)
            held = names.to_pylist()
            ids += held
            wrong += [f"{held[i]} is not finite" for i in np.flatnonzero(~finite)]
            wrong += [f"{held[i]} has length {lengths[i]:.4f}" for i in np.flatnonzero(off)]
    except (VisionloopError, ValueError) as error:
        return finding(name, 0, [f"cannot be read: {error}"], remedy)
    wrong += [f"{one} is there more than once" for one, n in Counter(ids).items() if n > 1]
    wrong += [f"{one} is not in samples" for one in ids if one not in samples]
    return finding(name, len(ids), wrong, remedy)
