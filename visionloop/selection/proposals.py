"""What one shard proposes for a selection, from its own rows alone.

Its samples pass the same guards and thresholds as in a selection of one task. Then it names, with
their vectors: candidates by the objectives; the samples of the smallest lots, for the share that is
drawn; images in which a detector found nothing, for their quota. Of objectives that each sample has
a number for, it also writes down everybody's, so that what is scaled is scaled over all shards.
Where the objectives need everybody at once, it names its part of a uniform sample of the pool
instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake import parts
from visionloop.selection.config import SelectionConfig
from visionloop.selection.eligibility import eligible
from visionloop.selection.engine import DEFAULT_CLASSES
from visionloop.selection.extract import Extract
from visionloop.selection.greedy import comparable, greedy
from visionloop.selection.lots import lots
from visionloop.selection.material import Material, read_material
from visionloop.selection.objectives import Fixed, Similarity
from visionloop.selection.pool import Pool
from visionloop.selection.request import Request
from visionloop.selection.sampled import name_sample
from visionloop.selection.shards import farthest, select_shard
from visionloop.selection.spread import at_least, before_all
from visionloop.selection.spread_files import (
    Spread,
    has_file,
    read_table,
    vectors_of_table,
    vectors_table,
    write_table,
)
from visionloop.selection.strategies import build_objectives
from visionloop.vectors.exact import Floats, Rows

if TYPE_CHECKING:
    from visionloop.lake import Lake

PROPOSED, IDS, VALUES = ".part.parquet", ".ids.parquet", ".values.parquet"
_ROWS = 1 << 14


@dataclass(frozen=True)
class Proposed:
    """What a shard proposes.

    Attributes:
        table: The samples in ascending order with their vectors; those of a sample of the pool in
            the order of their lots and with these, the vectors in files of their own.
        told: Counts (`pool`, `eligible`, `removed` by reason); `radius`: no eligible row is farther
            from a candidate or from what is labelled, None where there is no bound; `before`: the
            same of any row and what is labelled, None where nothing is; `rest`: of rows that are
            not eligible; `lot`: everybody with a smaller lot is named; `scaled`: objectives whose
            values are in a file of their own.
    """

    table: pa.Table
    told: dict[str, Any]

    @property
    def vectors(self) -> dict[str, Floats]:
        """The vector of each sample."""
        return dict(zip(*vectors_of_table(self.table), strict=True))


def finished(lake: Lake, shard: str) -> bool:
    """Whether a shard has proposed."""
    return has_file(lake, shard + PROPOSED)


def read_proposed(lake: Lake, shard: str) -> Proposed:
    """Read what a shard proposes.

    Raises:
        VisionloopError: It has not, or the file is gone.
    """
    table = read_table(lake, shard + PROPOSED)
    return Proposed(table, json.loads(table.schema.metadata[b"told"]))


def propose(lake: Lake, spread: Spread, part: int) -> Proposed:
    """Propose, and write it down.

    Args:
        lake: The lake.
        spread: The selection.
        part: The shard.

    Raises:
        InputError: A vector holds NaN or infinity, or the configuration names what the lake does
            not have.

    Memory: the shard's vectors 1.2 times, and what the selection reads of each of its samples.
    """
    space, shard = spread.config.space, spread.shards[part]
    ids, x = parts.read_part(lake, space, spread.version, part, spread.parts)
    extract = Extract(lake, spread.version, space, ids, x, spread.known, spread.harvested)
    nobody = x[:0].copy()
    del ids, x
    material = read_material(
        lake,
        spread.config,
        classes=spread.classes,
        version=spread.version,
        task=spread.task,
        extract=extract,
    )
    del extract
    pool, told = _guarded(material, before_all(material.config, predicted=spread.predicted))
    if spread.sample:
        table, told["lot"] = name_sample(lake, spread, shard, pool)
        return _write(lake, shard, table, told | {"radius": None})
    named, more = _named(material, pool, spread)
    if objectives := more.pop("objectives", []):
        write_table(lake, shard + IDS, pa.table({"sample_id": pa.array(pool.sample_ids)}))
        columns = {one.name: pa.array(one.given) for one in objectives}
        write_table(lake, shard + VALUES, pa.table(columns))
        more["scaled"] = [
            {"name": one.name, "similar": isinstance(one, Similarity), "strength": one.strength,
             "scale": one.scale}
            for one in objectives
        ]  # fmt: skip
    told |= more
    chosen = pool.embeddings[space][named] if len(named) else nobody
    return _write(lake, shard, vectors_table([pool.sample_ids[i] for i in named], chosen), told)


def _write(lake: Lake, shard: str, table: pa.Table, told: dict[str, Any]) -> Proposed:
    """Write what is proposed; last of all files: where it is there, so is the rest."""
    table = table.replace_schema_metadata({"told": json.dumps(told)})
    write_table(lake, shard + PROPOSED, table)
    return Proposed(table, told)


def _guarded(material: Material, config: SelectionConfig) -> tuple[Pool, dict[str, Any]]:
    """Return the pool of the eligible samples alone, its vectors moved together in their place."""
    pool, labelled, space = material.pool, material.labelled, material.space
    found = eligible(
        pool,
        config,
        labelled=labelled,
        holdout=material.holdout,
        taken=material.taken,
        excluded={},
    )
    rows = found.rows
    told: dict[str, Any] = {
        "pool": len(pool),
        "eligible": len(rows),
        "removed": {reason: number for reason, number in found.removed.items() if number},
    }
    x, centres = pool.embeddings[space], labelled.embeddings.get(space)
    others = np.ones(len(pool), dtype=np.bool_)
    others[rows] = False
    rest = _reach(x[others], centres)
    for start in range(0, len(rows), _ROWS):
        x[start : min(start + _ROWS, len(rows))] = x[rows[start : start + _ROWS]]
    pool = _only(pool, rows, {space: x[: len(rows)]})
    here = _reach(pool.embeddings[space], centres)
    told["rest"] = rest
    told["before"] = None if here is None or rest is None else max(here, rest)
    return pool, told


def _reach(x: Floats, centres: Floats | None) -> float | None:
    """Return the largest distance to the nearest centre; None where rows have none."""
    if not len(x):
        return 0.0
    return None if centres is None or not len(centres) else farthest(x, centres)


def _only(pool: Pool, rows: Rows, embeddings: dict[str, Floats]) -> Pool:
    found = pool.detections
    return replace(
        pool,
        sample_ids=tuple(pool.sample_ids[row] for row in rows),
        embeddings=embeddings,
        scores={name: values[rows] for name, values in pool.scores.items()},
        metadata={name: values[rows] for name, values in pool.metadata.items()},
        probabilities=None if pool.probabilities is None else pool.probabilities[rows],
        fingerprints=None if pool.fingerprints is None else pool.fingerprints[rows],
        flags={kind: values[rows] for kind, values in pool.flags.items()},
        detections=None if found is None else found.taken(rows),
        committee=None,
        passes=None,
    )


def _named(material: Material, pool: Pool, spread: Spread) -> tuple[Rows, dict[str, Any]]:
    """Return the rows that are proposed, ascending, and what is told of them."""
    config, m = material.config, len(pool)
    more: dict[str, Any] = {"radius": None, "lot": 1.0}
    if not m:
        return np.zeros(0, dtype=np.intp), more | {"radius": 0.0}
    chosen = [np.zeros(0, dtype=np.intp)]
    random = config.strategy == "random"
    share = 1.0 if random else config.random_share
    if number := int(share * spread.most + 0.5):
        values = lots(pool.sample_ids, spread.seed, 1)
        first = np.argsort(values, kind="stable")[: at_least(number)]
        chosen.append(first)
        more["lot"] = float(values[first[-1]]) if len(first) < m else 1.0
    if not random:
        request = Request(
            pool=pool,
            rows=np.arange(m),
            config=config,
            labelled=material.labelled,
            queries=material.queries,
            n=min(spread.most, m),
            n_classes=material.n_classes or len(pool.classes) or DEFAULT_CLASSES,
            seed=spread.seed,
        )
        rows, radius, scaled = _by_objectives(request, spread)
        chosen += [rows, _without_boxes(request, spread)]
        more |= {"radius": radius, "objectives": scaled}
    return np.unique(np.concatenate(chosen)), more


def _by_objectives(request: Request, spread: Spread) -> tuple[Rows, float | None, list[Fixed]]:
    """Return candidates, the radius that they leave, and objectives that are scaled over all."""
    m, k = len(request.rows), spread.candidates
    if spread.only_diverse:
        rows, radius = _spread_out(request, np.arange(m), k)
        return rows, radius, []
    objectives = build_objectives(request).objectives
    scaled = [one for one in objectives if isinstance(one, Fixed)]
    if spread.diverse:
        everyone = np.ones(m, dtype=np.bool_)
        picked, _ = greedy(objectives, everyone, min(k, m), accept=lambda _: True)
        return np.array([pick.candidate for pick in picked], dtype=np.intp), None, scaled
    total = sum_of(scaled)
    total = comparable(total, [one.strength for one in scaled])
    return np.argsort(-total, kind="stable")[:k], None, scaled


def sum_of(objectives: list[Fixed]) -> NDArray[np.float64]:
    """Return what `greedy` compares candidates by, where nothing changes from pick to pick."""
    total = np.zeros(len(objectives[0].given))
    for one in objectives:
        if one.strength:
            total += one.strength * np.log(one.values())
    return total


def _spread_out(request: Request, rows: Rows, k: int) -> tuple[Rows, float]:
    """Return k-center's picks among some rows, and their radius."""
    x, already = request.vectors(request.space())
    names = [request.pool.sample_ids[row] for row in rows]
    some = x if len(rows) == len(x) else x[rows]
    found = select_shard(names, some, k, already=already)
    place = dict(zip(names, rows.tolist(), strict=True))
    return np.array([place[name] for name in found.sample_ids], dtype=np.intp), found.radius


def _without_boxes(request: Request, spread: Spread) -> Rows:
    found = request.pool.detections
    quota = int(request.config.unknown_share * spread.most + 0.5)
    if found is None or not quota:
        return np.zeros(0, dtype=np.intp)
    rows = np.flatnonzero(found.without_boxes)
    return _spread_out(request, rows, at_least(quota))[0] if len(rows) else rows
