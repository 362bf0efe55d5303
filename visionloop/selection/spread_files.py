"""Files of a selection that is spread over shards: what they are told, and what they leave.

They lie beside the files of `infer`, under names of their own, each written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visionloop.errors import VisionloopError
from visionloop.lake.storage import StorageError, name_of
from visionloop.selection.config import SelectionConfig
from visionloop.selection.pool import Harvested
from visionloop.selection.spread import at_least
from visionloop.vectors.exact import Floats

if TYPE_CHECKING:
    from visionloop.lake import Lake

FOLDER = "shards"
PLAN = ".plan.parquet"
_LABELLED, _QUERY, _HARVESTED = "labelled", "query", "harvested"


@dataclass(frozen=True)
class Spread:
    """A selection that is spread over shards.

    Attributes:
        name: Names its files; the same work has the same name.
        config: What is selected by, as plain lines over one space; as configured where a sample of
            the pool is selected from.
        classes: Classes of the loop.
        task: Its task.
        version: Lake version that is read.
        parts: Number of shards.
        most: Picks at most.
        seed: Of everything drawn.
        known: Vectors of labelled samples and of queries.
        labelled: Samples of the pool that are labelled.
        harvested: Harvested images that tell about similar ones; None where none does.
        cut: Whether more were harvested than these.
        sample: Where the objectives need everybody at once: from how many of the pool, drawn
            uniformly, is selected at most. 0 where they do not.
        why: Why they do.
        predicted: Whether the model in service has predicted anything at all.
    """

    name: str
    config: SelectionConfig
    classes: tuple[str, ...]
    task: str
    version: str
    parts: int
    most: int
    seed: int
    known: dict[str, Floats]
    labelled: frozenset[str]
    harvested: Harvested | None
    cut: bool
    sample: int
    why: str
    predicted: bool

    @property
    def shards(self) -> list[str]:
        """Names of the shards."""
        return [f"{self.name}-{part:05d}" for part in range(self.parts)]

    @property
    def candidates(self) -> int:
        """How many a shard proposes for its objectives."""
        return at_least(self.most)

    @property
    def diverse(self) -> bool:
        """Whether distances to what is chosen count."""
        return any(line.strategy.type == "DIVERSITY" for line in self.config.strategies)

    @property
    def only_diverse(self) -> bool:
        """Whether nothing else counts: then there is a bound."""
        kinds = {line.strategy.type for line in self.config.strategies} - {"THRESHOLD"}
        return kinds == {"DIVERSITY"}


def write_plan(
    lake: Lake,
    plan: dict[str, Any],
    known: tuple[list[str], Floats],
    labelled: Collection[str],
    harvested: Harvested | None,
) -> Spread:
    """Write what the shards are told, and return it.

    Args:
        lake: The lake.
        plan: `Spread`'s attributes but for the name and those below, the configuration as JSON.
        known: Ids in ascending order, and float32 [n, d].
        labelled: Those of them that are labelled samples of the pool.
        harvested: As in `Spread`.
    """
    ids, x = known
    told = json.dumps(plan, sort_keys=True)
    more = list(harvested.sample_ids) if harvested else []
    digest = hashlib.sha256(f"{told} {' '.join([*ids, '', *more])}".encode()).hexdigest()[:16]
    name = f"select-{digest}"
    kinds = [_LABELLED if sample in labelled else _QUERY for sample in ids]
    table = vectors_table([*ids, *more], np.concatenate([x, harvested.x]) if harvested else x)
    table = table.append_column("kind", pa.array([*kinds, *(_HARVESTED for _ in more)]))
    for score, values in harvested.scores.items() if harvested else ():
        of_known = np.full(len(ids), np.nan)
        table = table.append_column(score, pa.array(np.concatenate([of_known, values])))
    table = table.replace_schema_metadata({"told": told})
    write_table(lake, name + PLAN, table)
    return _spread(name, table)


def read_plan(lake: Lake, name: str) -> Spread:
    """Read what the shards are told.

    Raises:
        VisionloopError: It is not there any more.
    """
    return _spread(name, read_table(lake, name + PLAN))


def _spread(name: str, table: pa.Table) -> Spread:
    told = json.loads(table.schema.metadata[b"told"])
    ids, x = vectors_of_table(table)
    kinds = table["kind"].to_pylist()
    known = [row for row, kind in enumerate(kinds) if kind != _HARVESTED]
    more = [row for row, kind in enumerate(kinds) if kind == _HARVESTED]
    scores = {score: table[score].to_numpy()[more] for score in table.column_names[3:]}
    return Spread(
        name,
        SelectionConfig.model_validate_json(told["config"]),
        tuple(told["classes"]),
        told["task"],
        told["version"],
        told["parts"],
        told["most"],
        told["seed"],
        {ids[row]: x[row] for row in known},
        frozenset(ids[row] for row in known if kinds[row] == _LABELLED),
        Harvested(tuple(ids[row] for row in more), x[more], scores) if more else None,
        told["cut"],
        told["sample"],
        told["why"],
        told["predicted"],
    )


def vectors_table(ids: list[str], x: Floats) -> pa.Table:
    """Return samples and their vectors as a table."""
    flat = np.ascontiguousarray(x, dtype="<f4")
    column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(4 * flat.shape[1]), len(ids), [None, pa.py_buffer(flat)]
    )
    return pa.table({"sample_id": pa.array(ids, pa.string()), "vector": column})


def vectors_of_table(table: pa.Table) -> tuple[list[str], Floats]:
    """Return the samples of such a table, and float32 [n, d]."""
    width = table.schema.field("vector").type.byte_width
    x = np.empty((len(table), width // 4), dtype="<f4")
    done = 0
    for chunk in table["vector"].chunks:
        flat = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width)
        x[done : done + len(chunk)] = flat.view("<f4").reshape(len(chunk), width // 4)
        done += len(chunk)
    return table["sample_id"].to_pylist(), x


def write_table(lake: Lake, name: str, table: pa.Table) -> None:
    """Write a file of the selection whole, or not at all.

    Args:
        lake: The lake.
        name: Name of the file.
        table: What it holds.
    """
    lake.exists()  # raises where it went away: its folder must not be made anew
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none")
    lake.storage.write(lake.path(FOLDER, lake.loop, name), sink.getvalue().to_pybytes())


def read_table(lake: Lake, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read a file of the selection.

    Args:
        lake: The lake.
        name: Name of the file.
        columns: Columns to read, all by default.

    Raises:
        VisionloopError: It is not there any more.
    """
    uri = lake.path(FOLDER, lake.loop, name)
    try:
        data = lake.storage.read(uri)
    except StorageError as error:
        if lake.storage.exists(uri):
            raise
        raise VisionloopError(
            "a file that the selection was to read is not there",
            where=uri,
            remedy="Start the pipeline again: it goes on with the shards that are finished",
        ) from error
    return pq.read_table(pa.BufferReader(data), columns=columns)


def has_file(lake: Lake, name: str) -> bool:
    """Whether a file of the selection is there."""
    return lake.storage.exists(lake.path(FOLDER, lake.loop, name))


def remove_files(lake: Lake, name: str) -> None:
    """Remove all files of a plan, whose selection was committed."""
    folder = lake.path(FOLDER, lake.loop)
    found = [info.uri for info in lake.storage.list(folder)] if lake.storage.exists(folder) else []
    for uri in found:
        if name_of(uri).startswith((name + ".", name + "-")):
            lake.storage.delete(uri)
