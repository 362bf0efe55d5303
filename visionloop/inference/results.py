"""What was embedded and predicted and is not committed yet: files, each found by what it holds.

A file holds up to some thousand samples and is written whole or not at all. Its name begins with a
key of the base space and the model, so that whoever works with the same two finds what is finished,
and goes on with the shard that made it. What a file covers is told by a list beside it, a hundredth
of its size: who asks what is finished reads no vector. The list is written last and removed first,
so that what is listed is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from visionloop.errors import VisionloopError
from visionloop.inference.pending import Models, Pending
from visionloop.lake.storage import StorageError, name_of

if TYPE_CHECKING:
    from visionloop.lake import Lake

FOLDER = "shards"
ORDER = ".order.parquet"
RESULT = ".result.parquet"
LIST = ".list.parquet"


@dataclass(frozen=True)
class Order:
    """A shard: the samples that one task embeds and predicts.

    Attributes:
        media: URI by sample id.
        pending: What has to be done of them.
        model_id: The model that predicts; empty on a cold start.
        model_uri: Where its bundle lies.
        space: The base space that they are embedded in.
    """

    media: dict[str, str]
    pending: Pending
    model_id: str
    model_uri: str
    space: str


@dataclass(frozen=True)
class Finished:
    """A file of results, as the list beside it tells.

    Attributes:
        uri: The file.
        names: Ids of the samples that it covers, in its order.
        reasons: Why one of them cannot be read now, by its id.
    """

    uri: str
    names: list[str]
    reasons: dict[str, str]

    @property
    def done(self) -> set[str]:
        """The samples that nothing lacks of: who could not be read may be readable later."""
        return {name for name in self.names if name not in self.reasons}


def key(space: str, model_id: str) -> str:
    """Return what the names of files of one embedding space and one model begin with."""
    return hashlib.sha256(f"{space} {model_id}".encode()).hexdigest()[:16]


def write_orders(
    lake: Lake, media: Mapping[str, str], pending: Pending, models: Models, shard_size: int
) -> list[str]:
    """Write what has to be done as shards.

    Args:
        lake: The lake.
        media: URI by sample id.
        pending: What has to be done.
        models: What it is done with.
        shard_size: Samples in a shard, the last one excepted.

    Returns:
        Names of the shards: the same work has the same names.
    """
    todo = pending.ids()
    names = []
    for start in range(0, len(todo), shard_size):
        ids = todo[start : start + shard_size]
        table = pa.table(
            {
                "sample_id": pa.array(ids, pa.string()),
                "uri": pa.array([media[name] for name in ids], pa.string()),
                "embed": pa.array([name in pending.to_embed for name in ids]),
                "predict": pa.array([name in pending.to_predict for name in ids]),
                "embed_with_model": pa.array([name in pending.to_embed_with_model for name in ids]),
            }
        )
        told = {
            "space": models.embedder.space,
            "model_id": models.model_id,
            "model_uri": models.uri,
        }
        name = _name(models, ids)
        _write(lake, name + ORDER, table.replace_schema_metadata({"order": json.dumps(told)}))
        names.append(name)
    return names


def read_order(lake: Lake, name: str) -> Order:
    """Read what a shard has to do.

    Args:
        lake: The lake.
        name: The shard.

    Raises:
        VisionloopError: It is not there any more.
    """
    uri = lake.path(FOLDER, lake.loop, name + ORDER)
    try:
        table = pq.read_table(pa.BufferReader(lake.storage.read(uri)))
    except StorageError as error:
        raise VisionloopError(
            "the shard's list of samples is not there any more",
            where=uri,
            remedy="Start the pipeline again: it lists what is left to do",
        ) from error
    told = json.loads((table.schema.metadata or {})[b"order"])
    ids = table["sample_id"].to_pylist()

    def marked(column: str) -> set[str]:
        flags = table[column].to_pylist()
        return {name for name, flag in zip(ids, flags, strict=True) if flag}

    return Order(
        dict(zip(ids, table["uri"].to_pylist(), strict=True)),
        Pending(marked("embed"), marked("predict"), marked("embed_with_model")),
        told["model_id"],
        told["model_uri"],
        told["space"],
    )


def write_result(lake: Lake, models: Models, table: pa.Table, shard: str = "") -> Finished:
    """Keep what was made of some samples until it is committed.

    Args:
        lake: The lake.
        models: What it was made with.
        table: As `visionloop.inference.embedding.embed_and_predict` returns it.
        shard: The shard that they belong to, if any.

    Returns:
        What the file covers.
    """
    names = table["sample_id"].to_pylist()
    name = f"{shard}-{_digest(names)}" if shard else _name(models, names)
    uri = _write(lake, name + RESULT, table)
    listed = table.select(["sample_id", "reason"])
    _write(lake, name + LIST, listed)
    return _finished(uri, listed)


def held_results(lake: Lake, models: Models, shard: str = "") -> list[Finished]:
    """Return what is finished and not committed yet.

    Args:
        lake: The lake.
        models: What it was made with; files of others are left out.
        shard: Only what was made of this shard.

    Returns:
        The files, in the order of their names.
    """
    found = []
    for uri in sorted(_named(lake, models, LIST, shard)):
        table = _columns(lake, uri, None)
        if table is not None:
            found.append(_finished(uri.removesuffix(LIST) + RESULT, table))
    return found


def read_result(lake: Lake, uri: str) -> pa.Table | None:
    """Return what a file holds, None where another run has committed and removed it."""
    return _columns(lake, uri, None)


def remove_done(
    lake: Lake, models: Models, samples: Iterable[str], finished: Iterable[Finished]
) -> None:
    """Remove the files of samples that were committed.

    Args:
        lake: The lake.
        models: What they were made with.
        samples: What the committing stage knew of: a file with others is another run's.
        finished: The files of results that it found and made.
    """
    known = set(samples)
    for file in finished:
        if known.issuperset(file.names):
            lake.storage.delete(file.uri.removesuffix(RESULT) + LIST)
            lake.storage.delete(file.uri)
    for uri in _named(lake, models, ORDER):
        table = _columns(lake, uri, ["sample_id"])
        if table is not None and known.issuperset(table["sample_id"].to_pylist()):
            lake.storage.delete(uri)


def vectors_of(table: pa.Table, column: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the rows of a result that have a vector, and float32 [n, d] of them."""
    values = table[column].combine_chunks()
    rows = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    flat = b"".join(values.take(pa.array(rows)).to_pylist())
    return rows, np.frombuffer(flat, "<f4").reshape(len(rows), -1) if len(rows) else np.zeros(
        (0, 0), np.float32
    )


def _finished(uri: str, listed: pa.Table) -> Finished:
    names, reasons = (listed[column].to_pylist() for column in ("sample_id", "reason"))
    told = {name: reason for name, reason in zip(names, reasons, strict=True) if reason}
    return Finished(uri, names, told)


def _name(models: Models, ids: list[str]) -> str:
    return f"{key(models.embedder.space, models.model_id)}-{_digest(ids)}"


def _digest(ids: list[str]) -> str:
    return hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16]


def _named(lake: Lake, models: Models, suffix: str, shard: str = "") -> Iterator[str]:
    folder = lake.path(FOLDER, lake.loop)
    if not lake.storage.exists(folder):
        return
    prefix = (shard or key(models.embedder.space, models.model_id)) + "-"
    for info in lake.storage.list(folder):
        name = name_of(info.uri)
        if name.startswith(prefix) and name.endswith(suffix):
            yield info.uri


def _write(lake: Lake, name: str, table: pa.Table) -> str:
    lake.exists()  # raises where it went away: its folder must not be made anew
    sink = pa.BufferOutputStream()
    # Float vectors do not compress, and reading them plain is five times faster.
    pq.write_table(table, sink, compression="none")
    uri = lake.path(FOLDER, lake.loop, name)
    lake.storage.write(uri, sink.getvalue().to_pybytes())
    return uri


def _columns(lake: Lake, uri: str, columns: list[str] | None) -> pa.Table | None:
    try:
        data = lake.storage.read(uri)
    except StorageError:
        if lake.storage.exists(uri):
            raise
        return None
    return pq.read_table(pa.BufferReader(data), columns=columns)
