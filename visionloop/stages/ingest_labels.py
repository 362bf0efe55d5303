"""Labels that sources bring: of folders, of the sources themselves, of tables beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.labeling.answers import (
    CONFLICT,
    DETECTION,
    is_models,
    standing_answers,
    standing_boxes,
)
from visionloop.lake.storage import name_of
from visionloop.media.metadata import Problem
from visionloop.media.outcomes import ids_of, texts_of
from visionloop.media.records import among, rows_of, some_at_a_time
from visionloop.stages.import_rows import IMPORT, same_boxes

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.media.outcomes import Rows
    from visionloop.stages.ingest_rows import Ingest


# What is said of each sample: its label, its boxes, and who said it.
Brought = dict[str, dict[str, Any]]
# The rows of `labels` that count, by sample.
Answers = dict[str, Mapping[str, Any]]
# So many labels are objects at a time.
_SOME = 50_000


def labels_of(ingest: Ingest, rows: Rows) -> Iterator[pa.Table]:
    """Return the labels that sources bring for samples without any, some thousand at a time.

    A file's own label comes before one in a table. What is odd about them is added to the ingest's
    flags and counts; all that is refused is refused before the first are returned.

    Args:
        ingest: The ingest.
        rows: All its rows, decided.

    Raises:
        InputError: A label is of a class that the configuration lacks, or a table of labels cannot
            be used.
    """
    chosen, differing = rows.brought()
    ingest.flag(_conflicts(rows, differing))
    of_tables = _of_tables(ingest, rows, chosen)

    def all_of_them() -> Iterator[Brought]:
        for start in range(0, len(chosen), _SOME):
            yield _of_files(ingest, rows, chosen[start : start + _SOME])
        for some in some_at_a_time(sorted(of_tables), _SOME):
            yield {one: of_tables[one] for one in some}

    _check_classes(ingest.loop, (told for brought in all_of_them() for told in brought.values()))
    return (_without_any(ingest, brought) for brought in all_of_them())


def _conflicts(rows: Rows, differing: Iterable[tuple[int, int]]) -> Iterator[Problem]:
    for row, first in differing:
        told = [rows.label[one].as_py() or "boxes" for one in (row, first)]
        detail = f"a copy lies in {told[0]!r}, the first file in {told[1]!r}"
        yield Problem(rows.sample[row].as_py().hex(), "label_conflict", detail)


def _without_any(ingest: Ingest, brought: Brought) -> pa.Table:
    """Return the rows of those of some labels whose samples have none yet.

    Where an earlier ingest or import brought another one, that one stays and the sample is flagged.
    What somebody has said since is not asked about again, and what people disagree about stays a
    conflict: the table that they doubt says the same at each ingest.
    """
    answers, objects = _answered(ingest, brought)
    rows, odd = [], []
    for sample_id, told in sorted(brought.items()):
        row = {
            "sample_id": sample_id,
            "annotator": told["annotator"],
            "origin": IMPORT,
            "created_at": ingest.now,
        }
        if told["label"] is not None:
            if (held := answers.get(sample_id)) is None:
                rows.append({**row, "task": ingest.loop.task, "label": told["label"]})
            elif held["origin"] == IMPORT and held["label"] != told["label"]:
                odd.append((sample_id, told, repr(told["label"]), repr(held["label"])))
        if told.get("boxes") is not None:
            if (held := objects.get(sample_id)) is None:
                rows.append({**row, "task": DETECTION, "boxes": told["boxes"]})
            elif held["origin"] == IMPORT and not same_boxes(told["boxes"], held["boxes"]):
                n, before = len(told["boxes"]), len(held["boxes"])
                odd.append((sample_id, told, f"{n} boxes", f"other {before} boxes"))
    ingest.flag(
        Problem(one, "label_conflict", f"{told['annotator']} says {new}, and {old} stays")
        for one, told, new, old in odd
    )
    return rows_of("labels", rows)


def _of_files(ingest: Ingest, rows: Rows, chosen: NDArray[np.intp]) -> Brought:
    """Return the labels that some files bring for their samples."""
    roots = ingest.listing.roots
    ids = texts_of(rows.sample.take(pa.array(chosen))).to_pylist()
    found = {}
    for sample_id, row in zip(ids, chosen.tolist(), strict=True):
        boxes = rows.boxes[row].as_py()
        found[sample_id] = {
            "label": _class_of(rows.label[row].as_py(), ingest.loop.classes),
            "boxes": json.loads(boxes) if boxes is not None else None,
            "annotator": roots[int(rows.source[row])],
        }
    return found


def _of_tables(ingest: Ingest, rows: Rows, chosen: NDArray[np.intp]) -> Brought:
    """Return the labels that tables have for samples whose files bring none."""
    found: Brought = {}
    for source in ingest.loop.sources:
        if source.labels not in ("none", "folder", "source"):
            for sample_id, row in _of_table(ingest, source.labels, rows):
                found.setdefault(sample_id, row)
    names = sorted(found)
    of_files = rows.sample.take(pa.array(chosen))
    for name, is_one in zip(
        names, pc.is_in(ids_of(names), value_set=of_files).to_pylist(), strict=True
    ):
        if is_one:
            del found[name]
    return found


def _of_table(ingest: Ingest, uri: str, rows: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the labels that a table has for samples of the lake and of this ingest."""
    from visionloop.labeling.answers import is_skip
    from visionloop.labeling.tables import labels_of_files, read_label_csv

    told = read_label_csv(uri)
    names = {name_of(value) for _, key, value, _ in told if key == "file"}
    ids = {value.lower() for _, key, value, _ in told if key == "sample_id"}
    named = {
        place: sample_id
        for place, sample_id in _places(ingest, rows)
        if sample_id in ids or name_of(place) in names
    }
    labels, strange = labels_of_files(uri, named)
    ingest.counts["n_unknown_labels"] += len(strange)
    for sample_id, label in labels.items():
        if not is_skip(label, ingest.loop.classes):
            yield sample_id, {"label": label, "annotator": uri}


def _places(ingest: Ingest, rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield URI and sample of every file with an image, of the lake and then of this ingest."""
    for batch in ingest.files(["uri", "sample_id"]):
        uris, ids = batch.column("uri").to_pylist(), batch.column("sample_id").to_pylist()
        yield from ((uri, one) for uri, one in zip(uris, ids, strict=True) if one)
    counted = rows.of_kind("new", "duplicate")
    start = 0
    for part in ingest.parts():
        table = part.rows.filter(pa.array(counted[start : start + part.rows.num_rows]))
        start += part.rows.num_rows
        yield from zip(table["uri"].to_pylist(), texts_of(table["sample"]).to_pylist(), strict=True)


def _answered(ingest: Ingest, samples: Iterable[str]) -> tuple[Answers, Answers]:
    """Return the row that counts of each of some samples that has a label, and of objects.

    One that was skipped has no label; one that people disagree about has the row that says so.
    """
    answers: Answers = {}
    objects: Answers = {}
    for some in some_at_a_time(sorted(samples)):
        held = ingest.run.read("labels", where=among("sample_id", some)).to_pylist()
        # What a model said is no answer: what a source brings takes its place.
        found = standing_answers((r for r in held if not is_models(r)), ingest.loop.task)
        answers |= {
            one: row
            for one, row in found.items()
            if row["label"] is not None or row["origin"] == CONFLICT
        }
        objects |= standing_boxes(held)
    return answers, objects


def _class_of(label: str | None, classes: list[str]) -> str | None:
    """Return the class that a label means: WebDataset and others write its place, from 0."""
    if label is None or label in classes or not (label.isascii() and label.isdigit()):
        return label
    return classes[int(label)] if int(label) < len(classes) else label


def _check_classes(loop: LoopConfig, brought: Iterable[dict[str, Any]]) -> None:
    pairs = set()
    for row in brought:
        boxes = row.get("boxes") or ()
        told = [box["label"] for box in boxes] if boxes or not row["label"] else [row["label"]]
        pairs |= {(label, row["annotator"]) for label in told}
    strange = sorted(pair for pair in pairs if pair[0] not in loop.classes)
    if loop.classes and strange:
        from visionloop.validation import nearest

        named = ", ".join(f"`{label}`" + nearest(label, loop.classes) for label, _ in strange[:5])
        raise InputError(
            f"{len(strange)} classes of imported labels are not in the configuration: {named}",
            where=strange[0][1],
            remedy="Correct the labels, or add the classes to `classes:`; nothing was stored",
        )
