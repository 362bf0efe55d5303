"""The monitor's look at what the sources bring: reads the lake, and compares."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.stages.monitor_part import Look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from visionloop.monitoring.arrivals import Arrivals
    from visionloop.monitoring.input_drift import Predicted
    from visionloop.monitoring.judged import Judged
    from visionloop.vectors.exact import Floats


def compare_inputs(look: Look) -> list[Judged]:
    """Compare the newest images of each source with those before.

    Args:
        look: What the monitor looks at.

    Returns:
        Every comparison, also those in which nothing can be said.
    """
    from visionloop.monitoring.arrivals import arrivals
    from visionloop.monitoring.input_drift import PIXELS, compare_arrivals
    from visionloop.monitoring.judged import judged_source

    thresholds = look.loop.monitoring
    samples = look.run.read(
        "samples", columns=["sample_id", "source", "round_id", "run_id", *PIXELS]
    )
    if not samples.num_rows:
        return []
    # Rows in one order, so that what is drawn of them is the same in every look.
    samples = samples.sort_by("sample_id")
    ids = samples["sample_id"].combine_chunks()
    sources, of_source = _numbered(samples["source"])
    rounds, of_round = _numbered(samples["round_id"])
    of_run = _numbered(samples["run_id"])[1]
    learned = _learned(look, ids)
    found = arrivals(
        sources,
        of_source,
        rounds,
        of_round,
        of_run,
        learned,
        least=thresholds.drift_min_events,
    )
    pixels = {name: _floats(samples[name]) for name in PIXELS}
    vectors = _Vectors(look, ids, found)
    predicted = _predicted(look, ids)
    judged = []
    for one in found:
        for compared in compare_arrivals(one, pixels, vectors.of, predicted, thresholds):
            shown = [ids[row].as_py() for row in compared.rows]
            judged.append(judged_source(compared, shown, look.run.round_id))
    return judged


def _numbered(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.intp]]:
    """Return the different texts of a column, nulls as empty ones, and the number of each row's."""
    encoded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices).astype(np.intp)


def _floats(column: pa.ChunkedArray) -> NDArray[np.floating]:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy())


def _learned(look: Look, ids: pa.Array) -> NDArray[np.bool_] | None:
    """Return which samples the model in service learned from; None where no model serves."""
    from pyiceberg.expressions import EqualTo

    from visionloop.training.experiments import in_service

    serving = in_service(look.lake, version=look.run.base)
    if serving is None:
        return None
    where = EqualTo(term="training_set", value=serving["training_set"] or "")
    rows = look.run.read("training_sets", columns=["sample_id"], where=where)
    return np.asarray(pc.is_in(ids, value_set=rows["sample_id"].combine_chunks()))


class _Vectors:
    """The embeddings that all comparisons need, read at once."""

    def __init__(self, look: Look, ids: pa.Array, found: list[Arrivals]) -> None:
        from visionloop.monitoring.energy import ROWS
        from visionloop.monitoring.input_drift import drawn

        most = max(ROWS, look.loop.monitoring.drift_min_events)
        compared = [one for one in found if not one.reason]
        windows = [part for one in compared for part in (one.before, one.newest)]
        windows += [part.rows for one in compared for part in one.parts]
        none = np.zeros(0, np.intp)
        rows = np.unique(np.concatenate([none, *(drawn(part, most) for part in windows)]))
        wanted = ids.take(pa.array(rows)).to_pylist()
        names, vectors = (
            look.lake.embeddings(look.space, wanted, version=look.run.base)
            if look.space and wanted
            else ([], np.zeros((0, 1), np.float32))
        )
        sound = np.isfinite(vectors).all(axis=1)
        place = {name: i for i, name in enumerate(names) if sound[i]}
        # Both are in the order of the samples' ids.
        self._rows = {int(row): place.get(name, -1) for row, name in zip(rows, wanted, strict=True)}
        self._vectors = vectors

    def of(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Floats]:
        places = np.array([self._rows[int(row)] for row in rows], np.intp)
        return rows[places >= 0], self._vectors[places[places >= 0]]


def _predicted(look: Look, ids: pa.Array) -> Predicted | None:
    """Return what the model of the newest `infer` said of all samples; None where none has."""
    from visionloop.monitoring.input_drift import Predicted

    model_id = _newest_model(look)
    if not model_id:
        return None
    from pyiceberg.expressions import EqualTo

    rows = look.run.read(
        "predictions",
        columns=["sample_id", "label", "confidence"],
        where=EqualTo(term="model_id", value=model_id),
    )
    rows = rows.filter(pc.is_valid(rows["label"]))
    places = pc.index_in(ids, value_set=rows["sample_id"].combine_chunks())
    known = np.asarray(pc.is_valid(places))
    labels: Any = rows["label"].combine_chunks().take(places).to_numpy(zero_copy_only=False)
    sure = rows["confidence"].combine_chunks().take(places)
    return Predicted(model_id, known, labels, _floats(pa.chunked_array([sure])))


def _newest_model(look: Look) -> str:
    runs = look.lake.stage_runs(where="stage == 'infer'").sort_by("sequence").to_pylist()
    for row in reversed(runs):
        model_id = json.loads(row["outputs"] or "{}").get("model_id")
        if model_id:
            return str(model_id)
    return ""
