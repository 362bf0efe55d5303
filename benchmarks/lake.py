"""The lake at scale: append, full scan, random rows by sample id, one column beside vectors.

A million rows with a vector of 512 float32 components and a few columns of metadata, on the local
disk, all of it in the page cache. Each is written and read through its own interface at its best
settings: raw pyarrow (fixed-length binary, uncompressed, no dictionary, memory-mapped), Parquet as
pyarrow writes a list column by default, and Lance. A scan hands out every id and every vector as
float32 and adds its components up. Ours goes through the lake: commit, version, catalog.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._rows import Row, arguments, report

D = 512
GROUP = 16_384
CAMERAS = ("north", "south", "east", "west")


class Store(Protocol):
    """What is measured: somewhere to put rows, and to read them from."""

    name: str

    def remove(self) -> None:
        """Remove what `append` wrote."""

    def append(self) -> None:
        """Write all rows where there are none."""

    def scan(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield how many ids came, and their vectors."""

    def take(self, ids: list[str]) -> int:
        """Return how many vectors of these samples were read."""

    def column(self) -> Any:
        """Return one column of metadata."""


class Data:
    """The rows, made once: ids like SHA-256 in hexadecimal, vectors, two columns of metadata.

    The vectors lie in a mapped file, so that a peer that decodes them all at once has room.
    """

    def __init__(self, n: int, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.n = n
        self.ids = [data.hex() for data in np.frombuffer(rng.bytes(32 * n), "V32").tolist()]
        self.vectors = np.memmap(folder / "vectors", np.float32, "w+", shape=(n, D))
        for start in range(0, n, GROUP):
            rng.standard_normal(dtype=np.float32, out=self.vectors[start : start + GROUP])
        self.cameras = pa.array(CAMERAS).take(pa.array(rng.integers(4, size=n)))
        self.iso = pa.array(rng.integers(100, 3200, size=n).astype(float))

    def table(self, vectors: pa.Array) -> pa.Table:
        """Return the rows as one table, as who has no lake would store them."""
        return pa.table(
            {
                "sample_id": pa.array(self.ids),
                "camera": self.cameras,
                "iso": self.iso,
                "vector": vectors,
            }
        )

    def binary(self) -> pa.Table:
        """Return the rows with vectors of fixed-length binary."""
        buffers = [None, pa.py_buffer(self.vectors)]
        return self.table(pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * D), self.n, buffers))


class OurLake:
    """A lake with an embedding space and a metadata table."""

    name = "visionloop"

    def __init__(self, folder: Path, data: Data) -> None:
        from visionloop.lake import Lake

        self._root, self._data = folder / "lake", data
        self._open = lambda: Lake.open(str(self._root), loop="bench")

    def remove(self) -> None:
        """Remove what `append` wrote."""
        shutil.rmtree(self._root, ignore_errors=True)

    def append(self) -> None:
        """Write all rows where there are none."""
        data = self._data
        with self._open().run(stage="infer") as run:
            run.append_embeddings("space", data.ids, data.vectors)
            run.commit()

    def add_metadata(self) -> None:
        """Write the metadata, which has a table of its own."""
        data = self._data
        with self._open().run(stage="ingest") as run:
            rows = {"sample_id": pa.array(data.ids), "camera": data.cameras, "iso": data.iso}
            run.append("metadata", pa.table(rows))
            run.commit()

    def scan(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield how many ids came, and their vectors."""
        for ids, block in self._open().embedding_blocks("space"):
            yield len(ids), block

    def take(self, ids: list[str]) -> int:
        """Return how many vectors of these samples were read."""
        return len(self._open().embeddings("space", ids)[1])

    def column(self) -> Any:
        """Return one column of metadata."""
        return self._open().read("metadata", columns=["camera"])


class RawPyarrow:
    """One Parquet file of fixed-length binary, uncompressed, without dictionary or statistics."""

    name = f"pyarrow {pa.__version__}, raw: fixed-length binary, uncompressed, memory-mapped"

    def __init__(self, folder: Path, data: Data) -> None:
        self._path, self._data = folder / "raw.parquet", data

    def remove(self) -> None:
        """Remove what `append` wrote."""
        self._path.unlink(missing_ok=True)

    def append(self) -> None:
        """Write all rows where there are none."""
        pq.write_table(
            self._data.binary(), self._path, compression="none", use_dictionary=False,
            write_statistics=False, row_group_size=GROUP,
        )  # fmt: skip

    def scan(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield how many ids came, and their vectors."""
        file = pq.ParquetFile(self._path, memory_map=True)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["sample_id", "vector"])
            for column in rows["vector"].chunks:
                flat = np.frombuffer(column.buffers()[1], "<f4", len(column) * D)
                yield len(column), flat.reshape(-1, D)

    def take(self, ids: list[str]) -> int:
        """Return how many vectors of these samples were read."""
        file = pq.ParquetFile(self._path, memory_map=True)
        wanted, found = pa.array(ids), 0
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["sample_id", "vector"])
            found += rows.filter(pc.is_in(rows["sample_id"], value_set=wanted)).num_rows
        return found

    def column(self) -> Any:
        """Return one column of metadata."""
        return pq.read_table(self._path, columns=["camera"], memory_map=True)


class DefaultParquet:
    """What `pq.write_table` does with a list column."""

    name = f"pyarrow {pa.__version__}, default: list column, snappy"

    def __init__(self, folder: Path, data: Data) -> None:
        self._path, self._data = folder / "default.parquet", data

    def remove(self) -> None:
        """Remove what `append` wrote."""
        self._path.unlink(missing_ok=True)

    def append(self) -> None:
        """Write all rows where there are none."""
        flat = pa.array(self._data.vectors.reshape(-1))
        offsets = pa.array(np.arange(self._data.n + 1, dtype=np.int32) * D)
        pq.write_table(self._data.table(pa.ListArray.from_arrays(offsets, flat)), self._path)

    def scan(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield how many ids came, and their vectors."""
        file = pq.ParquetFile(self._path)
        for batch in file.iter_batches(GROUP, columns=["sample_id", "vector"]):
            yield len(batch), batch["vector"].flatten().to_numpy().reshape(-1, D)

    def take(self, ids: list[str]) -> int:
        """Return how many vectors of these samples were read."""
        # A scan: the dataset's own filter decodes the whole row group, a million rows, at once.
        wanted, found = pa.array(ids), 0
        file = pq.ParquetFile(self._path)
        for batch in file.iter_batches(GROUP, columns=["sample_id", "vector"]):
            found += batch.filter(pc.is_in(batch["sample_id"], value_set=wanted)).num_rows
        return found

    def column(self) -> Any:
        """Return one column of metadata."""
        return pq.read_table(self._path, columns=["camera"])


class LanceDataset:
    """Lance, with vectors as fixed-size lists."""

    def __init__(self, folder: Path, data: Data) -> None:
        import lance

        self.name = f"Lance {lance.__version__}: fixed-size list"
        self._lance, self._path, self._data = lance, folder / "rows.lance", data

    def remove(self) -> None:
        """Remove what `append` wrote."""
        shutil.rmtree(self._path, ignore_errors=True)

    def append(self) -> None:
        """Write all rows where there are none."""
        flat = pa.array(self._data.vectors.reshape(-1))
        rows = self._data.table(pa.FixedSizeListArray.from_arrays(flat, D))
        self._lance.write_dataset(rows, str(self._path))

    def scan(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield how many ids came, and their vectors."""
        opened = self._lance.dataset(str(self._path))
        for batch in opened.to_batches(columns=["sample_id", "vector"], batch_size=GROUP):
            yield len(batch), batch["vector"].flatten().to_numpy().reshape(-1, D)

    def take(self, ids: list[str]) -> int:
        """Return how many vectors of these samples were read."""
        opened = self._lance.dataset(str(self._path))
        held = opened.to_table(columns=["sample_id"])["sample_id"].combine_chunks()
        places = np.flatnonzero(pc.is_in(held, value_set=pa.array(ids)).to_numpy(False))
        return int(opened.take(places.tolist(), columns=["sample_id", "vector"]).num_rows)

    def column(self) -> Any:
        """Return one column of metadata."""
        return self._lance.dataset(str(self._path)).to_table(columns=["camera"])


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="lake-benchmark-") as name:
        data = Data(50_000 if options.quick else 1_000_000, Path(name))
        measured = {}
        for make in (OurLake, RawPyarrow, DefaultParquet, LanceDataset):
            folder = Path(name) / make.__name__
            folder.mkdir()
            store: Any = make(folder, data)
            measured[store.name] = _measure(store, data)
            print(f"{store.name}: {measured[store.name]}", file=sys.stderr)
            shutil.rmtree(folder)  # two gigabytes each
    report("lake", rows(measured, data.n, quick=options.quick), as_json=options.json)


def _measure(store: Store, data: Data) -> dict[str, float]:
    """Return MB/s of append and scan, seconds of the other two, and MB read for one column."""
    megabytes = data.vectors.nbytes / 1e6
    wanted = [data.ids[i] for i in np.random.default_rng(1).choice(data.n, 10_000, replace=False)]
    found = {"append": megabytes / _median(store.append, before=store.remove)}
    if isinstance(store, OurLake):
        store.add_metadata()
    exact = float(data.vectors[:, 0].sum(dtype=np.float64))

    def scan() -> None:
        n, first = 0, 0.0
        for ids, block in store.scan():
            n += ids
            first += float(block[:, 0].sum(dtype=np.float64))
            block.sum()
        assert n == data.n and abs(first - exact) < 1e-3, "the scan lost rows"

    def take() -> None:
        assert store.take(wanted) == len(wanted), "rows were not found"

    def column() -> None:
        assert store.column().num_rows == data.n, "rows were lost"

    found["scan"] = megabytes / _median(scan)
    found["take"] = _median(take)
    found["column"] = _median(column)
    before = _bytes_read()
    column()
    found["column_mb"] = (_bytes_read() - before) / 1e6
    return found


def _median(work: Callable[[], Any], *, before: Callable[[], Any] | None = None) -> float:
    """Return the median seconds of three runs after a first that nothing is told of.

    Args:
        work: What is timed.
        before: Done before each run, and not timed; then what waits for the disk is written, or a
            run would be held up by what the one before it left.
    """
    times = []
    for _ in range(4):
        if before:
            before()
            os.sync()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _bytes_read() -> int:
    held = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(held["rchar"])


def rows(measured: dict[str, dict[str, float]], n: int, *, quick: bool) -> list[Row]:
    """Return a row a case and peer; goals are for the full size, where commits weigh nothing."""
    ours, *peers = measured
    raw = peers[0]
    of = f"{n:,} x {D} float32"
    found = [
        Row(f"{case} {of}", measured[ours][name], peer, measured[peer][name], "MB/s",
            0.7 if peer == raw and not quick else None, smaller_is_better=False)
        for case, name in (("append", "append"), ("full scan", "scan"))
        for peer in peers
    ]  # fmt: skip
    case = f"10,000 random rows of {of}"
    found.append(Row(case, measured[ours]["take"], "limit", 0.5, "s", 1.0))
    found += [
        Row(case, measured[ours]["take"], peer, measured[peer]["take"], "s") for peer in peers
    ]
    case = f"one metadata column beside {of}"
    found += [
        Row(case, measured[ours]["column"], peer, measured[peer]["column"], "s") for peer in peers
    ]
    read, vectors = measured[ours]["column_mb"], 4 * n * D / 1e6
    found.append(Row(f"{case}: bytes read", read, "all vectors", vectors, "MB", 10.0))
    return found


if __name__ == "__main__":
    os.environ.setdefault("LANCE_LOG", "error")
    main()
