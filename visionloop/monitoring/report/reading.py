"""Reads a lake's tables for the report: by column, at one version, each no more than once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.current_labels import LABEL_COLUMNS, current_labels
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Opening and letting go of a round is bookkeeping, not a stage of the loop.
BOOKKEEPING = frozenset({"open_round", "release_round", "watch"})


class Reader:
    """The tables of a lake at one version.

    Rows of the large tables stay in Arrow: a million samples as Python objects would take minutes
    and gigabytes.

    Attributes:
        lake: The lake.
        version: Lake version that is read, "" for an empty lake.
    """

    def __init__(self, lake: Lake, version: str) -> None:
        self.lake = lake
        self.version = version

    def read(self, table: str, *columns: str, where: Any = None) -> pa.Table:
        """Return columns of a table; all where none is named."""
        return self.lake.read(
            table, columns=list(columns) or None, where=where, version=self.version or None
        )

    def batches(self, table: str, *columns: str) -> Iterator[pa.RecordBatch]:
        """Yield columns of a table some rows at a time."""
        return self.lake.batches(table, columns=list(columns), version=self.version or None)

    @cached_property
    def samples(self) -> pa.Table:
        """Samples: sample_id, uri, split, source and round_id."""
        table = self.read("samples", "sample_id", "uri", "split", "source", "round_id")
        return table.combine_chunks()

    @cached_property
    def holdout(self) -> pa.Array:
        """Ids of the holdout's samples."""
        held = pc.equal(self.samples["split"], "holdout")
        return array(self.samples["sample_id"].filter(held))

    @cached_property
    def selections(self) -> pa.Table:
        """All picks."""
        return self.read("selections")

    @cached_property
    def flags(self) -> pa.Table:
        """All flags."""
        return self.read("flags")

    @cached_property
    def experiments(self) -> list[dict[str, Any]]:
        """Models, oldest first."""
        rows = self.read("experiments").to_pylist()
        return sorted(rows, key=lambda row: (row["round_id"], str(row["trained_at"])))

    @cached_property
    def decisions(self) -> list[dict[str, Any]]:
        """Decisions, oldest first."""
        rows = self.read("decisions").to_pylist()
        return sorted(rows, key=lambda row: (row["round_id"], str(row["decided_at"])))

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """Rounds, oldest first."""
        return sorted(self.read("rounds").to_pylist(), key=lambda row: str(row["round_id"]))

    @cached_property
    def upcoming(self) -> str:
        """Id of the round that comes next: what ran after the last round carries it until then."""
        return f"{len(self.rounds):04d}"

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        """Stage runs up to this version, oldest first."""
        rows = sorted(self.lake.stage_runs().to_pylist(), key=lambda row: row["sequence"])
        # A report of an older version does not know what came after it.
        last = max((r["sequence"] for r in rows if r["version"] == self.version), default=None)
        return rows if last is None else [row for row in rows if row["sequence"] <= last]

    @cached_property
    def looked_at(self) -> datetime | None:
        """When the sources were last looked at, None where nobody did."""
        looks = [row["started_at"] for row in self.runs if row["stage"] == "ingest"]
        return max((one for one in looks if one), default=None)

    @cached_property
    def requests(self) -> list[dict[str, Any]]:
        """Label requests."""
        rows: list[dict[str, Any]] = self.read("label_requests").to_pylist()
        return rows

    @cached_property
    def answers(self) -> pa.Table:
        """The answer that counts of each labelled or skipped sample; people's before a model's.

        Columns sample_id, label, origin, round_id, created_at and n_annotations; one row a sample.
        """
        names = ("sample_id", "label", "origin", "round_id", "created_at", "n_annotations")
        return current_labels(self.read("labels", *LABEL_COLUMNS), names).combine_chunks()

    @cached_property
    def model_names(self) -> dict[str, str]:
        """What each model is called: "model of round 3"."""
        return model_names(self.experiments)

    @cached_property
    def in_service(self) -> str:
        """Id of the model in service, "" for none."""
        for row in reversed(self.decisions):
            if row["decision"] in ("publish", "rollback") and row["outcome"] == "published":
                return str(row["subject"])
        loop = [row for row in self.experiments if row["arm"] != "random"]
        return next((str(m["model_id"]) for m in reversed(loop) if m["state"] == "in_service"), "")

    @cached_property
    def predicting_words(self) -> str:
        """Whose predictions of all pictures are shown, "" for nobody's.

        Where that is not the model in service, it says so.
        """
        if not self.predicting:
            return ""
        name = named_model(self.model_names, self.predicting)
        if not self.in_service:
            return name
        if self.in_service == self.predicting:
            return f"{name}, in service"
        served = named_model(self.model_names, self.in_service)
        return f"{name}: the {served}, in service now, has answered the holdout alone so far"

    @cached_property
    def predicting(self) -> str:
        """The newest model that predicted more than the holdout, "" for none."""
        from visionloop.monitoring.predicting import predicting_model

        return predicting_model(self.lake, self.holdout, version=self.version or None)

    @cached_property
    def predictions(self) -> pa.Table:
        """What `predicting` predicted: sample_id, label and confidence."""
        return self._predicted(self.predicting)

    @cached_property
    def erring(self) -> tuple[str, pa.Table]:
        """Whose errors are shown, "" for nobody's, and its predictions, as in `predictions`.

        It is the model in service, that of the holdout alone where it was just published; where it
        has predicted nothing, it is `predicting`.
        """
        if self.in_service and self.in_service != self.predicting:
            rows = self._predicted(self.in_service)
            if rows.num_rows:
                return self.in_service, rows
        return self.predicting, self.predictions

    def _predicted(self, model_id: str) -> pa.Table:
        from pyiceberg.expressions import AlwaysFalse, EqualTo

        # A model of another's making may bear any name.
        mine = EqualTo(term="model_id", value=model_id) if model_id else AlwaysFalse()
        return self.read("predictions", "sample_id", "label", "confidence", where=mine)

    @cached_property
    def holdout_predictions(self) -> pa.Table:
        """What every model predicted of the holdout: sample_id, model_id, label, confidence."""
        wanted = ("sample_id", "model_id", "label", "confidence")
        found = []
        for batch in self.batches("predictions", *wanted):
            inside = pc.is_in(batch["sample_id"].cast(pa.string()), value_set=self.holdout)
            found.append(pa.Table.from_batches([batch.filter(inside)]))
        return pa.concat_tables(found) if found else self.read("predictions", *wanted)


def array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column of text as one array of strings."""
    held = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return held.cast(pa.string())


def content(text: str | None) -> Any:
    """Return what a column of JSON holds, an empty object for nothing."""
    return json.loads(text) if text else {}


def model_names(experiments: list[dict[str, Any]]) -> dict[str, str]:
    """Return what each model is called: by its round, and numbered where a round has several.

    Args:
        experiments: Rows of ``experiments``, oldest first.
    """
    named: dict[str, str] = {}
    used: dict[str, int] = {}
    for row in experiments:
        if row["model_id"] in named:
            continue
        what = "random arm" if row["arm"] == "random" else "model"
        name = f"{what} of {round_name(row['round_id'] or '')}"
        used[name] = used.get(name, 0) + 1
        named[row["model_id"]] = name if used[name] == 1 else f"{name} ({used[name]})"
    return named


def named_model(names: Mapping[str, str], model_id: str | None) -> str:
    """Return a model's name, or words for one that this lake has no record of."""
    if not model_id:
        return ""
    return names.get(model_id, f"model {model_id}, which this loop did not train")
