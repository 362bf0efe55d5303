"""From the lake's tables to the estimated accuracy of what is deployed, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.labeling.answers import MODEL, latest_answers
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.deployed import (
    HOLDOUT,
    IDENTITY,
    IMAGES,
    Comparison,
    Deployed,
    asked_images,
    look_of,
    previous_window,
)
from visionloop.monitoring.drift import embedding_drift
from visionloop.monitoring.energy import farthest
from visionloop.monitoring.estimation import Answers, Estimate, estimate_accuracy, refusal
from visionloop.monitoring.findings import rows_table
from visionloop.monitoring.production import Drawn, Known, Traffic, production_accuracy
from visionloop.vectors.exact import Floats
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.lake.run import Run

CONFIDENCES, RANDOM_PICKS = "confidences", "random_picks"


@dataclass(frozen=True)
class Estimated:
    """One estimate and what it is of.

    Attributes:
        endpoint: Name of the endpoint.
        model_id: The model that answered.
        harvested_in_round: The window; empty for all that was harvested.
        method: `CONFIDENCES` or `RANDOM_PICKS`.
        label: Of the answers of this class; empty over all.
        estimate: The estimate, or its refusal.
    """

    endpoint: str
    model_id: str
    harvested_in_round: str
    method: str
    label: str
    estimate: Estimate


class Evidence:
    """What a lake holds that tells about its deployed models, each part read once.

    Args:
        lake: The lake.
        run: The stage's run, which reads at its base version.
        task: Task of the loop's labels.
        thresholds: When something is judged.
    """

    def __init__(self, lake: Lake, run: Run, task: str, thresholds: MonitoringConfig) -> None:
        self._lake, self._run, self._thresholds = lake, run, thresholds
        self._models = {
            row["model_id"]: row["classes"] or []
            for row in run.read("experiments", columns=["model_id", "classes"]).to_pylist()
        }
        samples = run.read("samples", columns=["sample_id", "split", "round_id"]).to_pylist()
        self._ingested = {row["sample_id"]: row["round_id"] or "" for row in samples}
        self._holdout = {row["sample_id"] for row in samples if row["split"] == "holdout"}
        rows = run.read("labels").to_pylist()
        # A model is not judged by what a model said.
        answers = latest_answers((row for row in rows if row["origin"] != MODEL), task)
        self._labels = {
            sample: Known(row["label"], row["round_id"] or "")
            for sample, row in answers.items()
            if row["label"] is not None
        }
        picks = run.read("selections", columns=["round_id", "sample_id", "arm", "propensity"])
        self._picks = [
            Drawn(
                row["round_id"],
                row["sample_id"],
                row["propensity"] if row["arm"] == "random" else None,
            )
            for row in picks.to_pylist()
        ]
        self._vectors: dict[tuple[str, str, str], tuple[dict[str, int], Floats]] = {}
        self._harvested: dict[tuple[str, str, str], pa.Table] = {}

    def from_confidences(self, window: Deployed) -> list[Estimated]:
        """Estimate a window's accuracy from its confidences, over all and by class."""
        classes = self._models.get(window.model_id)
        if not classes:
            return [self._of(window, refusal("the model is not one of this loop's", _n(window)))]
        rows = self._rows(window)
        probabilities, kept = _matrix(rows["probabilities"], len(classes))
        if not len(kept):
            return [self._of(window, refusal("no probabilities were harvested", _n(window)))]
        known = sorted(self._holdout & self._labels.keys())
        found = self._predictions(window.model_id, known)
        own, places = _matrix(found["probabilities"], len(classes))
        samples = [found["sample_id"][int(place)].as_py() for place in places]
        number = {name: i for i, name in enumerate(classes)}
        truth = np.array([number.get(self._labels[s].label, -1) for s in samples], dtype=np.int64)
        asked = rows["sample_id"].take(pa.array(kept)).to_pylist()
        vectors = self._vectors_of(asked, window.model_id, window)
        estimates = estimate_accuracy(
            Answers(own, self._vectors_of(samples, window.model_id)),
            truth,
            Answers(probabilities, vectors, asked_images(rows)[kept]),
            classes,
            self._thresholds,
        )
        return [self._of(window, estimate, label) for label, estimate in estimates.items()]

    def from_random_picks(self, window: Deployed) -> Estimated:
        """Estimate the accuracy of the window's model over all that its endpoint was asked."""
        columns = ["sample_id", "label"]
        rows = self._run.read(
            "confidences", columns=[*columns, "linked_by"], where=_of_model(window)
        )
        n_inferences = rows.num_rows
        # An estimate that is to be unbiased takes no sample that was only guessed.
        guessed = pc.fill_null(pc.equal(rows["linked_by"], "embedding"), False)
        rows = rows.filter(pc.invert(guessed))
        known = rows.filter(pc.and_(pc.is_valid(rows["sample_id"]), pc.is_valid(rows["label"])))
        counted = known.group_by(columns).aggregate([([], "count_all")]).to_pylist()
        answers: dict[str, dict[str, int]] = {}
        for row in counted:
            if row["sample_id"] in self._ingested:
                answers.setdefault(row["sample_id"], {})[row["label"]] = row["count_all"]
        traffic = [
            Traffic(sample, self._ingested[sample], sum(said.values()), said)
            for sample, said in answers.items()
        ]
        estimate = production_accuracy(
            traffic, n_inferences, self._labels, self._picks, self._thresholds
        )
        return Estimated(window.endpoint, window.model_id, "", RANDOM_PICKS, "", estimate)

    def embedding_comparisons(
        self, window: Deployed, windows: Sequence[Deployed]
    ) -> list[Comparison]:
        """Compare a window's embeddings with the holdout's and the previous window's."""
        names, current = self._known_vectors(window)
        if not len(current):
            return []
        references = []
        holdout = self._vectors_of(sorted(self._holdout), window.model_id)
        if holdout is not None:
            references.append((HOLDOUT, _finite(holdout)))
        before = previous_window(window, windows)
        if before is not None:
            references.append((round_name(before.round_id), self._known_vectors(before)[1]))
        look, found = look_of(window, windows), []
        for name, vectors in references:
            drift = embedding_drift(vectors, current, self._thresholds, look=look)
            images = tuple(names[row] for row in farthest(vectors, current, IMAGES))
            found.append(Comparison(window, name, drift, images))
        return found

    def _known_vectors(self, window: Deployed) -> tuple[list[str], Floats]:
        """Return the samples of a window that have an embedding, and these."""
        samples = self._rows(window)["sample_id"].unique().to_pylist()
        vectors = self._vectors_of(samples, window.model_id, window)
        if vectors is None:
            return [], np.zeros((0, 1), np.float32)
        known = np.isfinite(vectors).all(axis=1)
        return [samples[row] for row in np.flatnonzero(known)], vectors[known]

    def _rows(self, window: Deployed) -> pa.Table:
        key = (window.endpoint, window.model_id, window.round_id)
        if key not in self._harvested:
            where = f"{_of_model(window)} and {_equals('round_id', window.round_id)}"
            self._harvested[key] = self._run.read(
                "confidences", columns=[*IDENTITY, "probabilities"], where=where
            )
        return self._harvested[key]

    def _predictions(self, model_id: str, samples: Collection[str]) -> pa.Table:
        rows = self._run.read(
            "predictions",
            columns=["sample_id", "probabilities"],
            where=_equals("model_id", model_id),
        )
        return rows.filter(pc.is_in(rows["sample_id"], value_set=pa.array(samples, pa.string())))

    def _vectors_of(
        self, samples: Sequence[str | None], model_id: str, window: Deployed | None = None
    ) -> Floats | None:
        """Return a vector a sample, NaN where it has none; None where no sample has one.

        The samples are of the holdout, or of a window.
        """
        key = (model_id, window.endpoint, window.round_id) if window else (model_id, "", "")
        if key not in self._vectors:
            every = set(self._rows(window)["sample_id"].to_pylist()) if window else self._holdout
            space, wanted = self._space(model_id), sorted(every & self._ingested.keys())
            ids, vectors = (
                self._lake.embeddings(space, wanted, version=self._run.base)
                if space and wanted
                else ([], np.zeros((0, 0), np.float32))
            )
            self._vectors[key] = ({sample: i for i, sample in enumerate(ids)}, vectors)
        place, vectors = self._vectors[key]
        rows = np.array([place.get(sample, -1) if sample else -1 for sample in samples], np.intp)
        if not (rows >= 0).any():
            return None
        found = vectors[rows].copy()
        found[rows < 0] = np.nan
        return found

    def _space(self, model_id: str) -> str:
        """Return the model's own embedding space where the lake has it, else the base space."""
        runs = self._lake.stage_runs(where="stage == 'infer'").sort_by("sequence").to_pylist()
        held = self._lake.spaces(version=self._run.base)
        base = ""
        for row in reversed(runs):
            said = json.loads(row["outputs"] or "{}")
            if said.get("model_id") == model_id and said.get("model_space") in held:
                return str(said["model_space"])
            base = base or str(said.get("space") or "")
        return base if base in held else ""

    def _of(self, window: Deployed, estimate: Estimate, label: str = "") -> Estimated:
        return Estimated(
            window.endpoint, window.model_id, window.round_id, CONFIDENCES, label, estimate
        )


def estimate_rows(found: Sequence[Estimated], now: datetime) -> pa.Table:
    """Return the rows of the table `estimates`.

    Args:
        found: The estimates.
        now: Written as ``estimated_at``.
    """
    rows = [
        {
            "endpoint": one.endpoint,
            "model_id": one.model_id,
            "harvested_in_round": one.harvested_in_round,
            "method": one.method,
            "label": one.label or None,
            "value": _number(one.estimate.value),
            "low": _number(one.estimate.low),
            "high": _number(one.estimate.high),
            "n": one.estimate.n,
            "state": one.estimate.state,
            "reason": one.estimate.reason,
            "evidence": json.dumps(one.estimate.evidence, sort_keys=True),
            "estimated_at": now,
        }
        for one in found
    ]
    return rows_table("estimates", rows)


def same_estimates(held: pa.Table, found: pa.Table) -> bool:
    """Return whether two tables of estimates say the same, whenever they were made."""
    columns = [name for name in found.column_names if name != "estimated_at"]

    def said(table: pa.Table) -> list[tuple[Any, ...]]:
        rows = table.select(columns).to_pylist()
        return sorted((tuple(row[name] for name in columns) for row in rows), key=repr)

    return said(held) == said(found)


def _matrix(column: pa.ChunkedArray, classes: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the whole distributions of a column, float32 [n, C], and the rows that have one."""
    lists = column.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(lengths == classes)
    flat = lists.take(pa.array(rows)).flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(rows), classes), rows


def _finite(vectors: Floats) -> Floats:
    return vectors[np.isfinite(vectors).all(axis=1)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _n(window: Deployed) -> int:
    return len(window.confidences)


def _of_model(window: Deployed) -> str:
    return f"{_equals('endpoint', window.endpoint)} and {_equals('model_id', window.model_id)}"


def _equals(column: str, value: str) -> str:
    if not value:
        return f"({column} is null or {column} == '')"
    quoted = value.replace("'", "''")
    return f"{column} == '{quoted}'"
