"""Builds the index of a version from the lake's tables; rows are joined as columns, not one by one.

Cost: a pass over each table, and memory for the columns that are kept. Of vectors, thumbnails,
boxes and probabilities nothing is held.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.monitoring.joining import joined, latest
from visionloop.monitoring.live.columns import METADATA, column_of
from visionloop.monitoring.live.index import BETWEEN, Index
from visionloop.monitoring.predicting import predicting_model
from visionloop.monitoring.report.reading import Reader

if TYPE_CHECKING:
    from visionloop.lake import Lake

_SAMPLES = [
    "sample_id", "uri", "source_uri", "width", "height", "format", "captured_at", "ingested_at",
    "source", "split", "group_key", "sharpness", "brightness", "contrast", "size", "color_mode",
    "saturation", "entropy", "attached", "round_id",
]  # fmt: skip
# A text that most rows have for themselves is kept as it is.
_REPEATS = 4
_OWN = frozenset({"sample_id", "uri", "source_uri"})
_NOT_METADATA = frozenset({"sample_id", "raw", "round_id", "run_id"})


def build_index(lake: Lake, version: str) -> Index:
    """Return the index of a version.

    Args:
        lake: The lake.
        version: The version; not the empty one.

    Raises:
        VisionloopError: The lake cannot be read, or what the version was made of is gone.
    """
    samples = lake.read("samples", columns=_SAMPLES, version=version)
    order = [("ingested_at", "ascending"), ("sample_id", "ascending")]
    samples = samples.sort_by(order).combine_chunks()
    ids = samples["sample_id"]
    columns: dict[str, Any] = {name: samples[name] for name in _SAMPLES if name != "round_id"}
    if pc.all(pc.equal(pc.coalesce(samples["source_uri"], samples["uri"]), samples["uri"])).as_py():
        del columns["source_uri"]
    columns["round"] = samples["round_id"]
    holdout = ids.filter(pc.equal(samples["split"], "holdout"))
    model = predicting_model(lake, holdout, version=version)
    columns |= _labels(lake, version, ids)
    columns |= _predictions(lake, version, ids, model)
    if columns.get("label") is not None and columns.get("prediction") is not None:
        columns["agrees"] = pc.equal(columns["label"], columns["prediction"])
    columns["flags"] = _flags(lake, version, ids)
    columns |= _checks(lake, version, ids)
    columns |= _picks(lake, version, ids)
    columns |= _metadata(lake, version, ids)
    runs = lake.stage_runs()
    reader = Reader(lake, version)
    reader.predicting = model  # looking for it would read all predictions once more
    return Index(
        version,
        _as_of(runs, version),
        pa.table({name: _packed(name, values) for name, values in columns.items()}),
        reader.predicting_words,
        model,
        _space(lake, runs, version),
        reader.upcoming,
    )


def _packed(name: str, values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in one piece, its texts kept once where they repeat."""
    whole = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    if pa.types.is_string(whole.type) and name not in _OWN:
        encoded = whole.dictionary_encode().combine_chunks()
        encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
        if len(encoded.dictionary) * _REPEATS <= max(len(whole), 64):
            return pa.chunked_array([encoded])
    whole = whole.combine_chunks()
    return whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole])


def _labels(lake: Lake, version: str, ids: pa.ChunkedArray) -> dict[str, Any]:
    from visionloop.monitoring.current_labels import current_labels, current_objects, read_labels

    rows = read_labels(lake, version)
    names = {"label": "label", "origin": "label_origin"}
    found = joined(ids, current_labels(rows), "sample_id", names)
    boxed = current_objects(rows)
    if boxed.num_rows:
        found |= joined(ids, boxed, "sample_id", {"objects": "objects"})
    return found


def _predictions(lake: Lake, version: str, ids: pa.ChunkedArray, model: str) -> dict[str, Any]:
    if not model:
        return {}
    kept = []
    columns = ["sample_id", "model_id", "label", "confidence", "boxes", "predicted_at"]
    for batch in lake.batches("predictions", columns=columns, version=version):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(pc.equal(rows["model_id"], model))
        if rows.num_rows:
            objects = pc.list_value_length(rows["boxes"]).cast(pa.int32())
            kept.append(
                pa.table(
                    {
                        "sample_id": rows["sample_id"].cast(pa.string()),
                        "label": rows["label"].cast(pa.string()),
                        "confidence": rows["confidence"],
                        "objects": objects,
                        "predicted_at": rows["predicted_at"],
                    }
                )
            )
    if not kept:
        return {}
    rows = latest(pa.concat_tables(kept), "sample_id", ["predicted_at"])
    names = {"label": "prediction", "confidence": "confidence"}
    if not rows["label"].length() or rows["label"].null_count == rows.num_rows:
        names = {"objects": "predicted_objects", "confidence": "confidence"}
    return joined(ids, rows, "sample_id", names)


def _flags(lake: Lake, version: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the kinds of flags of each image, as one text."""
    rows = lake.read("flags", columns=["subject", "subject_type", "kind"], version=version)
    about = pa.array(["sample", "label"])
    rows = rows.filter(pc.is_in(rows["subject_type"], value_set=about))
    places = pc.index_in(rows["subject"], value_set=ids.combine_chunks())
    rows = rows.append_column("place", places).filter(pc.is_valid(places))
    found: list[str | None] = []
    texts: NDArray[np.int32] = np.full(len(ids), -1, np.int32)
    if rows.num_rows:
        kinds = sorted(pc.unique(rows["kind"]).to_pylist())
        codes = pc.index_in(rows["kind"], value_set=pa.array(kinds)).to_numpy().astype(np.int64)
        pairs = np.unique(rows["place"].to_numpy().astype(np.int64) * len(kinds) + codes)
        where, kind = pairs // len(kinds), pairs % len(kinds)
        starts = np.flatnonzero(np.diff(where, prepend=-1))
        known: dict[tuple[int, ...], int] = {}
        for start, end in zip(starts, [*starts[1:], len(where)], strict=True):
            held = tuple(kind[start:end].tolist())
            if held not in known:
                known[held] = len(found)
                found.append(BETWEEN.join(kinds[one] for one in held))
            texts[where[start]] = known[held]
    codes_of_rows = pa.array(texts, mask=texts < 0)
    names = pa.array(found, pa.string())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(codes_of_rows, names)])


def _checks(lake: Lake, version: str, ids: pa.ChunkedArray) -> dict[str, Any]:
    rows = lake.read("checks", columns=["subject", "state", "checked_at"], version=version)
    found = joined(ids, latest(rows, "subject", ["checked_at"]), "subject", {"state": "checks"})
    return {"checks": pc.fill_null(found["checks"], "unchecked")}


def _picks(lake: Lake, version: str, ids: pa.ChunkedArray) -> dict[str, Any]:
    columns = ["sample_id", "rank", "arm", "selected_at", "round_id"]
    rows = lake.read("selections", columns=columns, version=version)
    rows = latest(rows, "sample_id", ["round_id", "selected_at"])
    return joined(ids, rows, "sample_id", {"round_id": "picked_in", "arm": "arm", "rank": "rank"})


def _metadata(lake: Lake, version: str, ids: pa.ChunkedArray) -> dict[str, Any]:
    rows = lake.read("metadata", version=version).combine_chunks()
    names = {
        one.name: METADATA + one.name
        for one in rows.schema
        if one.name not in _NOT_METADATA and column_of(METADATA + one.name, one.type)
    }
    return joined(ids, rows, "sample_id", names)


def _as_of(runs: pa.Table, version: str) -> Any:
    own = runs.filter(pc.equal(runs["version"], version))
    return pc.max(own["finished_at"]).as_py() if own.num_rows else None


def _space(lake: Lake, runs: pa.Table, version: str) -> str:
    spaces = lake.spaces(version=version)
    ordered = runs.filter(pc.equal(runs["stage"], "infer")).sort_by([("sequence", "descending")])
    for told in ordered["outputs"]:  # the newest says it: the others stay unread
        space = json.loads(told.as_py() or "{}").get("space")
        if space in spaces:
            return str(space)
    return spaces[0] if spaces else ""
