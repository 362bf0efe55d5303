"""The rows of an imported set: labels, boxes, predictions, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from visionloop.labeling.answers import (
    CONFLICT,
    DETECTION,
    is_models,
    standing_answers,
    standing_boxes,
)
from visionloop.labeling.requests import blind_samples
from visionloop.media.metadata import Problem, metadata_table, parse_sidecar

if TYPE_CHECKING:
    from visionloop.interchange.records import Annotated, Box, Problems
    from visionloop.lake import Run
    from visionloop.stages.import_set import Imported

IMPORT = "import"
_BATCH = 10_000
_NAMED = 5_000


class LabelRows:
    """Gathers the rows of `labels`, and what contradicts the labels that are there.

    Args:
        run: Reads the labels that are there.
        task: The loop's task.
        annotator: Who annotated, where a record does not say.
        now: Time of the import.
        imported: Receives the counts.
        problems: Receives what is odd.
        replace: Whether an earlier import gives way.

    Attributes:
        odd: Conflicts, to be flagged.
    """

    def __init__(
        self,
        run: Run,
        task: str,
        annotator: str,
        now: datetime,
        imported: Imported,
        problems: Problems,
        *,
        replace: bool,
    ) -> None:
        held = run.read("labels").to_pylist()
        self._answers, self._objects = standing_answers(held, task), standing_boxes(held)
        asked = run.read("label_requests").to_pylist()
        drawn = run.read("selections", where="arm == 'random'").to_pylist()
        self._blind = blind_samples((row for row in asked if not row["recalled"]), drawn)
        self._task, self._annotator, self._now = task, annotator, now
        self._imported, self._problems, self._replace = imported, problems, replace
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []
        self._brought: dict[str, str] = {}
        self.odd: list[Problem] = []

    def add(self, record: Annotated, sample_id: str, size: tuple[int, int]) -> None:
        """Add what a record says of a sample.

        Args:
            record: The record.
            sample_id: The sample.
            size: Its width and height in pixels, as it is shown.
        """
        if record.untouched and sample_id in self._blind:
            # What a model or a file put there must not judge models: nobody has looked at it.
            counts = self._imported.labels if record.labels else self._imported.boxes
            counts["untouched"] += 1
            told = "people were asked about it without the model's answer: it stays open"
            self._problems.add("nobodys_answer", record.file, "", told)
            return
        if record.labels:
            self._add_label(record, sample_id)
        if record.boxes is not None:
            self._add_boxes(record, sample_id, size)
        if len(self._rows) >= _BATCH:
            self._flush()

    def compare(self, record: Annotated, sample_id: str) -> None:
        """Flag a second image of the same bytes that the set gives another class."""
        before = self._brought.get(sample_id)
        if before is not None and record.labels and record.labels[0] != before:
            stays = f"{before!r} stays (a copy in the same set)"
            self._conflict(record, sample_id, record.labels[0], stays)

    def _add_label(self, record: Annotated, sample_id: str) -> None:
        if len(record.labels) > 1:
            # The loop knows one class an image; which of several is not ours to say.
            self._imported.labels["several"] += 1
            self._problems.add("several_labels", record.file, "", ", ".join(record.labels))
            return
        label = record.labels[0]
        self._brought[sample_id] = label
        held = self._answers.get(sample_id)
        if held is not None and is_models(held):
            held = None  # a person's label wins, also one that says the same
        before = held["label"] if held else None
        # A label that comes for a sample which somebody had skipped is welcome.
        if before == label:
            self._imported.labels["same"] += 1
            return
        disputed = held is not None and held["origin"] == CONFLICT
        if held is not None and (before is not None or disputed) and not self._gives_way(held):
            self._imported.labels["conflict"] += 1
            self._conflict(record, sample_id, label, _stays(held, before))
            return
        self._imported.labels["replaced" if before is not None else "new"] += 1
        self._row(record, sample_id, task=self._task, label=label)

    def _add_boxes(self, record: Annotated, sample_id: str, size: tuple[int, int]) -> None:
        if record.width and record.height and (record.width, record.height) != size:
            told = f"{record.width} x {record.height} in the set, {size[0]} x {size[1]} as shown"
            self._imported.boxes["mismatch"] += 1
            self._problems.add("size_mismatch", record.file, "", told)
            self.odd.append(Problem(sample_id, "size_mismatch", told))
            return
        boxes = box_rows(record.boxes or (), scored=False)
        held = self._objects.get(sample_id)
        disputed = held is not None and held["origin"] == CONFLICT
        if held is not None and not disputed and same_boxes(boxes, held["boxes"]):
            self._imported.boxes["same"] += 1
            return
        if held is not None and not self._gives_way(held):
            before = f"{len(held['boxes'] or ())} boxes"
            self._imported.boxes["conflict"] += 1
            self._conflict(record, sample_id, f"{len(boxes)} boxes", _stays(held, before))
            return
        self._imported.boxes["replaced" if held is not None else "new"] += 1
        self._imported.n_boxes += len(boxes)
        self._row(record, sample_id, task=DETECTION, boxes=boxes)

    def _gives_way(self, held: Mapping[str, Any]) -> bool:
        return self._replace and held["origin"] == IMPORT

    def _conflict(self, record: Annotated, sample_id: str, label: str, stays: str) -> None:
        told = f"the set says {label!r}, and {stays}"
        self._problems.add("label_conflict", record.file, "", told)
        self.odd.append(Problem(sample_id, "label_conflict", told))

    def _row(self, record: Annotated, sample_id: str, **said: Any) -> None:
        self._rows.append(
            {
                "sample_id": sample_id,
                "annotator": record.origin or self._annotator,
                "origin": IMPORT,
                "created_at": self._now,
                "seconds": record.seconds,
                **said,
            }
        )

    def _flush(self) -> None:
        from visionloop.media.records import rows_of

        self._tables.append(rows_of("labels", self._rows))
        self._rows.clear()

    def table(self) -> pa.Table:
        """Return the rows."""
        self._flush()
        return pa.concat_tables(self._tables)


def _stays(held: Mapping[str, Any], said: str | None) -> str:
    if held["origin"] == CONFLICT:
        return "people disagree: it stays without a label"
    return f"{said!r} stays (origin {held['origin']})"


class PredictionRows:
    """Gathers the rows of `predictions` of a model from elsewhere.

    Args:
        model: Its name.
        classes: The loop's classes; probabilities are put in their order where they are the same.
        named: The set's classes.
        now: Time of the import.
        imported: Receives the counts.
        problems: Receives what is odd.
    """

    def __init__(
        self,
        model: str,
        classes: Sequence[str],
        named: Sequence[str],
        now: datetime,
        imported: Imported,
        problems: Problems,
    ) -> None:
        self._model, self._now, self._imported = model, now, imported
        self._problems = problems
        same = sorted(classes) == sorted(named)
        self._order = [list(named).index(name) for name in classes] if same else None
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []

    def add(self, record: Annotated, sample_id: str, size: tuple[int, int]) -> None:
        """Add what a record says of a sample.

        Args:
            record: The record.
            sample_id: The sample.
            size: Its width and height in pixels, as it is shown.
        """
        boxes = record.boxes
        if boxes and record.width and (record.width, record.height) != size:
            told = f"{record.width} x {record.height} in the set, {size[0]} x {size[1]} as shown"
            self._imported.boxes["mismatch"] += 1
            self._problems.add("size_mismatch", record.file, "", told)
            boxes = None
        if not record.labels and boxes is None:
            return
        self._imported.predictions += 1
        self._imported.n_boxes += len(boxes or ())
        self._rows.append(
            {
                "sample_id": sample_id,
                "model_id": self._model,
                "label": record.labels[0] if record.labels else None,
                "confidence": record.score,
                "probabilities": self._ordered(record.probabilities),
                "boxes": None if boxes is None else box_rows(boxes, scored=True),
                "predicted_at": self._now,
            }
        )
        if len(self._rows) >= _BATCH:
            self._flush()

    def _ordered(self, probabilities: Sequence[float]) -> list[float] | None:
        if not probabilities:
            return None
        if self._order is None or len(self._order) != len(probabilities):
            return list(probabilities)
        return [probabilities[place] for place in self._order]

    def _flush(self) -> None:
        from visionloop.media.records import rows_of

        self._tables.append(rows_of("predictions", self._rows))
        self._rows.clear()

    def write(self, run: Run) -> None:
        """Write the rows; what the model had said of the same samples gives way."""
        import pyarrow.compute as pc

        self._flush()
        rows = pa.concat_tables(self._tables)
        mine = f"model_id == '{self._model}'"
        held = run.read("predictions", where=mine)
        if held.num_rows:
            ids = rows["sample_id"].combine_chunks()
            rest = held.filter(pc.invert(pc.is_in(held["sample_id"], ids)))
            rows = pa.concat_tables([rest, rows], promote_options="default")
        run.replace("predictions", rows, mine)


def box_rows(boxes: Sequence[Box], *, scored: bool) -> list[dict[str, Any]]:
    """Return boxes as the lake holds them.

    Args:
        boxes: The boxes.
        scored: Whether each needs a score: a detector's does, a person's has one where it was
            given.
    """
    rows = []
    for box in boxes:
        one = [box.score] if box.score is not None else [1.0] if scored else []
        rows.append(
            {
                "x_min": box.x_min,
                "y_min": box.y_min,
                "x_max": box.x_max,
                "y_max": box.y_max,
                "label": box.label,
                "scores": list(box.scores) or one,
            }
        )
    return rows


def same_boxes(boxes: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether boxes are those that the lake holds, in whatever order."""

    def told(row: Mapping[str, Any]) -> tuple[Any, ...]:
        numbers = [row[side] for side in ("x_min", "y_min", "x_max", "y_max")]
        scores = np.asarray(row["scores"] or (), np.float32).tolist()
        return (*np.asarray(numbers, np.float32).tolist(), row["label"], tuple(scores))

    return sorted(map(told, boxes)) == sorted(map(told, held))


def metadata_rows(
    run: Run, known: Mapping[str, Mapping[str, Any]], imported: Imported
) -> list[Problem]:
    """Write what a set knows of its images; what the lake knew before stays.

    Args:
        run: The import.
        known: Metadata by sample id.
        imported: Receives the count.

    Returns:
        What contradicts the lake, or does not fit a column.
    """
    odd: list[Problem] = []
    ids = sorted(known)
    for start in range(0, len(ids), _NAMED):
        part = ids[start : start + _NAMED]
        held = run.read("metadata", where=_among(part)).drop_columns(["round_id", "run_id"])
        told = {
            sample_id: parse_sidecar(json.dumps(dict(known[sample_id]), default=str).encode())
            for sample_id in part
        }
        brought, problems = metadata_table(told, held.schema)
        odd += problems
        before = {row["sample_id"]: row for row in held.to_pylist()}
        rows = []
        for row in brought.to_pylist():
            merged = _merged(row, before.get(row["sample_id"], {}), odd)
            if merged is not None:
                rows.append(merged)
        imported.metadata += len(rows)
        if rows:
            schema = pa.unify_schemas([held.schema, brought.schema])
            table = pa.Table.from_pylist(rows, schema=schema)
            run.replace("metadata", table, _among(table["sample_id"].to_pylist()))
    return odd


def _merged(
    row: dict[str, Any], held: Mapping[str, Any], odd: list[Problem]
) -> dict[str, Any] | None:
    """Return a row with what the lake knows and what a set adds; None where it adds nothing."""
    new = {name: value for name, value in row.items() if value is not None}
    kept = {name: value for name, value in held.items() if value is not None}
    differ = sorted(n for n in new.keys() & kept.keys() if n != "raw" and new[n] != kept[n])
    if differ:
        told = f"the set says something else of {', '.join(differ)}: the lake's stays"
        odd.append(Problem(row["sample_id"], "metadata_conflict", told))
    return None if new.keys() <= kept.keys() else {**new, **kept}


def _among(sample_ids: Sequence[str]) -> str:
    return "sample_id in ({})".format(", ".join(f"'{name}'" for name in sample_ids))
