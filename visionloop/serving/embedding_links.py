"""Which sample of the lake an inference is about, told by the embedding that the reply carries.

The same picture, encoded anew or reduced, lies very near to its sample in the model's own embedding
space, and the next sample far away. So an inference is linked where the nearest sample is nearer
than `MAX_DISTANCE` *and* than `MAX_RATIO` of the second one's distance: near duplicates in the lake
are told apart by neither, and link nothing. `python -m benchmarks.harvest_links` measures both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.lake.schemas import PROBABILITIES, arrow_schema

if TYPE_CHECKING:
    from visionloop.lake import Lake

Floats = NDArray[np.float32]
Links = dict[tuple[str, int, int], str]  # the sample of (event id, occurrence, row)

MAX_DISTANCE = 0.001
MAX_RATIO = 0.1

_QUERIES, _SAMPLES = 1024, 8192  # compared at once


def unlinked_rows(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return what is to be linked of rows of `confidences`: those with an embedding and no sample.

    Args:
        rows: Rows, with ``embedding`` float32 [d] where the reply has one.
    """
    wanted = [row for row in rows if row.get("embedding") is not None and not row["sample_id"]]
    wanted = [row for row in wanted if row["model_id"]]
    held = arrow_schema("confidences")
    columns = {
        name: pa.array([row[name] for row in wanted], held.field(name).type)
        for name in ("event_id", "occurrence", "row", "model_id")
    }
    vectors = [row["embedding"] for row in wanted]
    return pa.table({**columns, "vector": pa.array(vectors, PROBABILITIES)})


def find_links(lake: Lake, version: str, unlinked: Iterable[pa.Table]) -> Links:
    """Find the samples of rows, each in the space of the model that answered.

    Args:
        lake: The lake.
        version: Lake version.
        unlinked: As `unlinked_rows` returns them, some at a time.

    Memory: some rows and a block of the space, and what is linked.
    """
    found: Links = {}
    spaces: dict[str, str] | None = None
    for rows in unlinked:
        if spaces is None:
            spaces = _model_spaces(lake, version)
        for model_id in pc.unique(rows["model_id"]).to_pylist():
            if model_id in spaces:
                mine = rows.filter(pc.equal(rows["model_id"], model_id))
                found.update(_linked(lake, version, spaces[model_id], mine))
    return found


def _model_spaces(lake: Lake, version: str) -> dict[str, str]:
    """Return the embedding space of each model that has one."""
    held = set(lake.spaces(version=version))
    found: dict[str, str] = {}
    for row in lake.stage_runs(where="stage == 'infer'").sort_by("sequence").to_pylist():
        said = json.loads(row["outputs"] or "{}")
        if said.get("model_space") in held:
            found[str(said.get("model_id"))] = str(said["model_space"])
    return found


def _linked(
    lake: Lake, version: str, space: str, rows: pa.Table
) -> Iterator[tuple[tuple[str, int, int], str]]:
    keys = rows.select(["event_id", "occurrence", "row"]).to_pylist()
    widths = pc.list_value_length(rows["vector"]).to_numpy()
    for width in np.unique(widths):
        places = np.flatnonzero(widths == width)
        flat = rows["vector"].take(pa.array(places)).combine_chunks().flatten()
        vectors = flat.to_numpy(zero_copy_only=False).reshape(len(places), width)
        blocks = lake.embedding_blocks(space, version=version)
        samples = nearest_samples(vectors, ((i.to_pylist(), x) for i, x in blocks))
        for place, sample in zip(places.tolist(), samples, strict=True):
            if sample is not None:
                yield tuple(keys[place].values()), sample


def nearest_samples(
    vectors: Floats, blocks: Iterable[tuple[list[str], Floats]]
) -> list[str | None]:
    """Return the sample that each vector is of, None where it is of none, or of one of several.

    Args:
        vectors: float32 [n, d], of any length each.
        blocks: Ids and vectors, float32 [m, d], of all samples.
    """
    asked = _unit(vectors)
    first = np.full(len(asked), np.inf, np.float32)
    second = first.copy()
    names: list[str | None] = [None] * len(asked)
    for ids, held in blocks:
        if held.shape[1] != asked.shape[1]:
            return [None] * len(asked)  # another network than the one whose space this is
        for start in range(0, len(held), _SAMPLES):
            samples = _unit(held[start : start + _SAMPLES])
            for begin in range(0, len(asked), _QUERIES):
                part = slice(begin, begin + _QUERIES)
                _nearer(1 - asked[part] @ samples.T, first[part], second[part],
                        names, begin, ids[start : start + _SAMPLES])  # fmt: skip
    told = is_told(first, second)
    return [name if sure else None for name, sure in zip(names, told.tolist(), strict=True)]


def is_told(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Return whether the nearest sample is the one, by the cosine distances of the nearest two."""
    near = np.maximum(first, 0)
    return np.asarray(np.isfinite(second) & (near < MAX_DISTANCE) & (near < MAX_RATIO * second))


def _nearer(
    distances: Floats,
    first: Floats,
    second: Floats,
    names: list[str | None],
    begin: int,
    ids: list[str],
) -> None:
    """Take what is nearer than what was found so far; NaN is near to nothing."""
    distances = np.where(np.isnan(distances), np.inf, distances)
    place = distances.argmin(axis=1)
    rows = np.arange(len(distances))
    best = distances[rows, place]
    distances[rows, place] = np.inf
    rest = distances.min(axis=1)
    better = best < first
    second[:] = np.minimum(np.where(better, first, best), np.minimum(second, rest))
    first[:] = np.minimum(first, best)
    for row in np.flatnonzero(better).tolist():
        names[begin + row] = ids[int(place[row])]


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(vectors / lengths, np.float32)


def with_links(rows: pa.Table, links: Links) -> pa.Table:
    """Put samples into rows of `confidences` that have none.

    Args:
        rows: Rows of `confidences`.
        links: What `find_links` found.
    """
    ids = pa.array({event_id for event_id, _, _ in links}, pa.string())
    if not len(links) or not pc.any(pc.is_in(rows["event_id"], value_set=ids)).as_py():
        return rows
    keys = rows.select(["event_id", "occurrence", "row"]).to_pylist()
    samples = [links.get(tuple(key.values())) for key in keys]
    named = pa.array(samples, pa.string())
    by = pc.if_else(pc.is_valid(named), "embedding", pa.scalar(None, pa.string()))
    for column, added in (("sample_id", named), ("linked_by", by)):
        place = rows.schema.get_field_index(column)
        rows = rows.set_column(place, rows.schema.field(column), pc.coalesce(rows[column], added))
    return rows
