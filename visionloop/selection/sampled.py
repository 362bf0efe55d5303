"""A uniform sample of a pool that is larger than one task may hold, named by its shards.

Every eligible sample has a lot, a number that depends on its id and the seed alone
(`visionloop.selection.lots`). A shard names its smallest, and those that are smallest over all
shards are a simple random sample of the pool: so what is dense, frequent or typical in it is so in
the pool, up to the error of sampling. The same lots decide who is in the random share, which
therefore is a simple random sample of the whole pool, drawn first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.selection.lots import lots
from visionloop.selection.pool import Pool
from visionloop.selection.spread import at_least
from visionloop.selection.spread_files import (
    Spread,
    read_table,
    vectors_of_table,
    vectors_table,
    write_table,
)
from visionloop.vectors.exact import Floats

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Of its even share of the sample a shard names so many times as many: the eligible samples may lie
# unevenly.
SLACK = 2
_ROWS = 1 << 14  # of a file of vectors


@dataclass(frozen=True)
class Sample:
    """What the shards name for a sample of the pool.

    Attributes:
        sample_ids: In ascending order, with what is labelled.
        x: float32 [n, d], their vectors.
        size: How many of them are in the sample.
    """

    sample_ids: list[str]
    x: Floats
    size: int


def vectors_name(shard: str, piece: int) -> str:
    """Return the name of a file of vectors that a shard names."""
    return f"{shard}.{piece:05d}.vectors.parquet"


def name_sample(lake: Lake, spread: Spread, shard: str, pool: Pool) -> tuple[pa.Table, float]:
    """Write the vectors of the samples of the smallest lots, a file at a time.

    Args:
        lake: The lake.
        spread: The selection.
        shard: The shard.
        pool: Its eligible samples.

    Returns:
        The samples and their lots, in the order of the lots, and the number below which everybody
        is named.
    """
    values = lots(pool.sample_ids, spread.seed, 1)
    number = max(-(-SLACK * spread.sample // spread.parts), at_least(spread.most))
    first = np.argsort(values, kind="stable")[:number]
    x = pool.embeddings[spread.config.space]
    for start in range(0, len(first), _ROWS):
        some = first[start : start + _ROWS]
        table = vectors_table([pool.sample_ids[i] for i in some], x[some])
        write_table(lake, vectors_name(shard, start // _ROWS), table)
    ids = pa.array([pool.sample_ids[i] for i in first], pa.string())
    known_to = float(values[first[-1]]) if len(first) < len(values) else 1.0
    return pa.table({"sample_id": ids, "lot": values[first]}), known_to


def read_sample(
    lake: Lake,
    spread: Spread,
    named: Sequence[pa.Table],
    known_to: float,
    labelled: list[str],
) -> Sample:
    """Return the sample of the pool, and what is labelled.

    Args:
        lake: The lake.
        spread: The selection.
        named: What each shard names, as `name_sample` returned it.
        known_to: Everybody with a smaller lot is named.
        labelled: Labelled samples of the pool, in ascending order.

    Memory: the vectors of the sample once, one file, and the ids of all that are named.
    """
    values: NDArray[np.float64] = np.concatenate([table["lot"].to_numpy() for table in named])
    values = values[values <= known_to]
    if len(values) > spread.sample:
        known_to = float(np.partition(values, spread.sample - 1)[spread.sample - 1])
    counts = [int((table["lot"].to_numpy() <= known_to).sum()) for table in named]
    chosen = [table["sample_id"].slice(0, n) for table, n in zip(named, counts, strict=True)]
    chunks = [chunk for column in chosen for chunk in column.chunks]
    ids = pa.concat_arrays([*chunks, pa.array(labelled, pa.string())])
    order = pc.sort_indices(ids).to_numpy()
    place = np.empty(len(ids), dtype=np.intp)
    place[order] = np.arange(len(ids))
    x = np.zeros((0, 0), dtype=np.float32)
    done = 0
    for shard, n in zip(spread.shards, counts, strict=True):
        for piece in range(-(-n // _ROWS)):
            vectors = vectors_of_table(read_table(lake, vectors_name(shard, piece)))[1]
            if not x.size:
                x = np.empty((len(ids), vectors.shape[1]), dtype=np.float32)
            some = vectors[: n - piece * _ROWS]
            x[place[done : done + len(some)]] = some
            done += len(some)
    for sample in labelled:
        if not x.size:
            x = np.empty((len(ids), len(spread.known[sample])), dtype=np.float32)
        x[place[done]] = spread.known[sample]
        done += 1
    return Sample(ids.take(pa.array(order)).to_pylist(), x, sum(counts))
