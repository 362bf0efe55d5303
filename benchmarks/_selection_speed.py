"""The speed half of `benchmarks.selection`: k-center, typicality, near pairs, shards."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._rows import Row
from benchmarks._vectors import Floats, clustered, spread, with_near_copies

# A peer that takes longer than this runs once, between two runs of ours.
_LONG = 20.0
_RECALL = 0.99


def speed_cases(*, quick: bool) -> dict[str, Callable[[], list[Row]]]:
    """Return what measures each group of cases, by its name."""
    if quick:
        return {
            "k-center": lambda: k_center_rows("clustered", clustered(50_000, 128), 500),
            "typicality": lambda: typicality_rows("spread", spread(25_000, 64), 20),
            "pairs": lambda: pair_rows("clustered", with_near_copies(clustered(20_000, 64)), 0.97),
            "shards": lambda: shard_rows(clustered(60_000, 64), 200, 4),
            "memory": lambda: memory_rows(60_000, 256, 200),
            "accelerator": lambda: device_rows(clustered(60_000, 128), 200),
        }
    made = {"clustered": clustered, "spread": spread}
    million = functools.cache(lambda: clustered(1_000_000, 512))
    return {
        "k-center": lambda: [
            *k_center_rows("clustered", clustered(100_000, 128), 1000, scikit=True),
            *k_center_rows("spread", spread(200_000, 256), 1000),
        ],
        "typicality": lambda: [
            row
            for name, make in made.items()
            for row in typicality_rows(name, make(100_000, 128), 20)
        ],
        "pairs": lambda: [
            row
            for name, make in made.items()
            for row in pair_rows(name, with_near_copies(make(100_000, 128)), 0.97)
        ],
        "memory": lambda: memory_rows(1_000_000, 512, 1000),
        "shards": lambda: shard_rows(million(), 1000, 16),
        "accelerator": lambda: device_rows(million(), 1000),
        "k-center at a million": lambda: [
            *k_center_rows("clustered", million(), 1000, goals=(8.0, 10.0, 5.0)),
            *k_center_rows("clustered", million(), 5000, goals=(25.0, None, None), mundig=False),
        ],
    }


def k_center_rows(
    name: str,
    x: Floats,
    k: int,
    *,
    goals: tuple[float | None, float | None, float | None] = (None, None, None),
    mundig: bool = True,
    scikit: bool = False,
) -> list[Row]:
    """Compare exact k-center with plain greedy, with LightlyStudio's core and with the memory."""
    n, d = x.shape
    (found, ours), (expected, plain) = _interleaved(
        lambda: k_center(x, k), lambda: plain_k_center(x, k)
    )
    case = f"k-center, {name} {n:,} x {d}, k={k:,}"
    rows = [
        Row(
            f"{case} ({_agreement(x, found, expected)})",
            ours,
            f"NumPy {np.__version__}, a GEMV a pick",
            plain,
            "s",
            goals[0],
        ),
    ]
    if goals[2] is not None:
        bandwidth = _bandwidth(x)
        floor = f"reading x k times at {bandwidth / 1e9:.0f} GB/s"
        rows.append(Row(case, ours, floor, k * x.nbytes / bandwidth, "s", goals[2]))
    if mundig and (peer := installed("lightly-mundig")):
        import lightly_mundig

        selection = lightly_mundig.Selection()
        selection.add_diversifying_strategy(x, 1.0)
        _, seconds = timed(lambda: selection.run_selection([], n, k))
        rows.append(Row(case, ours, peer, seconds, "s", goals[1]))
    if scikit and (peer := installed("scikit-activeml")):
        from skactiveml.pool import CoreSet

        unlabelled = np.full(n, np.nan)
        unlabelled[0] = 0.0
        _, seconds = timed(lambda: CoreSet(random_state=0).query(x, unlabelled, batch_size=k))
        rows.append(Row(case, ours, f"{peer}, CoreSet", seconds, "s"))
    return rows


def k_center(x: Floats, k: int, *, device: str = "") -> list[int]:
    """Run ours as selection runs it, without anything labelled."""
    from visionloop.selection.greedy import greedy
    from visionloop.selection.objectives import Diversity

    picks, _ = greedy(
        [Diversity(x, x[:0])],
        np.ones(len(x), dtype=np.bool_),
        k,
        accept=lambda _: True,
        device=device,
    )
    return [pick.candidate for pick in picks]


def plain_k_center(x: Floats, k: int) -> list[int]:
    """Run plain greedy: all rows are compared with every pick."""
    squared = np.full(len(x), np.inf, dtype=np.float32)
    chosen = [0]
    for _ in range(k - 1):
        np.minimum(squared, 2 - 2 * (x @ x[chosen[-1]]), out=squared)
        chosen.append(int(squared.argmax()))
    return chosen


def _agreement(x: Floats, found: list[int], expected: list[int]) -> str:
    """Tell how many picks are equal, and how near a tie was where the first other pick was made."""
    shared = len(set(found) & set(expected))
    first = next(
        (i for i, pair in enumerate(zip(found, expected, strict=True)) if len({*pair}) > 1), None
    )
    if first is None:
        return "all picks equal"
    before = x[found[:first]].astype(np.float64)
    here, there = (
        float(((before - x[pick].astype(np.float64)) ** 2).sum(axis=1).min())
        for pick in (found[first], expected[first])
    )
    return f"{shared / len(found):.1%} of picks equal, first swap at a gap of {here - there:.0e}"


def typicality_rows(name: str, x: Floats, k: int) -> list[Row]:
    """Compare typicality with LightlyStudio's core, hnswlib and faiss, each with its index."""
    from visionloop.selection.objectives import density_typicality
    from visionloop.vectors.knn import nearest_neighbours

    n, d = x.shape
    rng = np.random.Generator(np.random.PCG64(3))
    sample = rng.permutation(n)[:1000]
    true = _true_neighbours(x, sample, k)
    recall = _recall(nearest_neighbours(x, k).rows[sample], true)
    rows = []
    case = f"typicality, {name} {n:,} x {d}, {k} neighbours (recall {recall:.4f}"
    if peer := installed("lightly-mundig"):
        import lightly_mundig

        (values, ours), (theirs, seconds) = _interleaved(
            lambda: density_typicality(x, k),
            lambda: lightly_mundig.Typicality(x).calculate_typicality(k),
        )
        off = float(np.abs(values - np.asarray(theirs)).mean())
        rows.append(Row(f"{case}, off by {off:.0e} in the mean)", ours, peer, seconds, "s", 10.0))
    for peer, search in (("hnswlib", _hnswlib), ("faiss-cpu", _faiss_ivf)):
        if told := installed(peer):
            _, ours = timed(lambda: density_typicality(x, k))
            seconds, theirs, settings = search(x, k, sample, true)
            goal = 2.0 if peer == "hnswlib" else None
            told = f"{told}, {settings}, recall {theirs:.4f}"
            rows.append(Row(f"{case})", ours, told, seconds, "s", goal))
    return rows


def _true_neighbours(x: Floats, rows: Any, k: int) -> Any:
    likeness = x[rows] @ x.T
    likeness[np.arange(len(rows)), rows] = -np.inf
    return np.argpartition(-likeness, k, axis=1)[:, :k]


def _recall(found: Any, true: Any) -> float:
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found, true, strict=True)]
    return float(np.mean(shared)) / true.shape[1]


def _hnswlib(x: Floats, k: int, sample: Any, true: Any) -> tuple[float, float, str]:
    """Return seconds of building and of the fastest search with the recall, and that.

    Around separate centres all of a cluster are about as far, and no breadth that is worth waiting
    for has the recall: then it is the largest breadth, and its recall is told.
    """
    import hnswlib

    n, d = x.shape

    def build() -> Any:
        index = hnswlib.Index(space="ip", dim=d)
        index.init_index(max_elements=n, ef_construction=100, M=16, random_seed=0)
        index.set_num_threads(1)
        index.add_items(x, np.arange(n))
        return index

    index, building = timed(build)
    for breadth in (24, 32, 48, 64, 96, 128):
        index.set_ef(breadth)
        found = index.knn_query(x[sample], k=k + 1)[0]
        recall = _recall(
            [row[row != own][:k] for row, own in zip(found, sample, strict=True)], true
        )
        if recall >= _RECALL:
            break
    _, searching = timed(lambda: index.knn_query(x, k=k + 1))
    return building + searching, recall, f"M=16 ef={breadth}"


def _faiss_ivf(x: Floats, k: int, sample: Any, true: Any) -> tuple[float, float, str]:
    """Return seconds of building and of the fastest search with the recall, and that."""
    import faiss

    n, d = x.shape
    cells = int(np.sqrt(n))

    def build() -> Any:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, cells, faiss.METRIC_INNER_PRODUCT)
        index.train(x)
        index.add(x)
        return index

    index, building = timed(build)
    for probes in (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, cells):
        index.nprobe = min(probes, cells)
        found = index.search(x[sample], k + 1)[1]
        recall = _recall(
            [row[row != own][:k] for row, own in zip(found, sample, strict=True)], true
        )
        if recall >= _RECALL:
            break
    _, searching = timed(lambda: index.search(x, k + 1))
    return building + searching, recall, f"IVF{cells} nprobe={index.nprobe}"


def pair_rows(name: str, x: Floats, cosine: float) -> list[Row]:
    """Compare exact near pairs with faiss's range search, after comparing the pairs."""
    from visionloop.vectors.pairs import near_pairs

    if not (peer := installed("faiss-cpu")):
        return []
    import faiss

    n, d = x.shape
    index = faiss.IndexFlatIP(d)
    index.add(x)

    found, peers = _interleaved(
        lambda: near_pairs(x, cosine), lambda: index.range_search(x, cosine)
    )
    (ours, seconds), ((limits, _, others), theirs) = found, peers
    rows = np.repeat(np.arange(n), np.diff(limits).astype(np.int64))
    once = rows < others
    expected = set(zip(rows[once].tolist(), others[once].tolist(), strict=True))
    differing = expected ^ set(map(tuple, ours.tolist()))
    same = "the same" if not differing else f"{len(differing)} differ"
    case = f"pairs of cosine ≥ {cosine}, {name} {n:,} x {d} ({len(ours):,}, {same})"
    return [Row(case, seconds, f"{peer}, IndexFlatIP.range_search", theirs, "s", 3.0)]


def shard_rows(x: Floats, k: int, number: int) -> list[Row]:
    """Compare the radius of the two-stage picks with that of the exact ones."""
    from visionloop.selection.shards import farthest, merge, select_shard

    n, d = x.shape
    ids = np.array([f"{i:09d}" for i in range(n)])
    exact = farthest(x, x[k_center(x, k)])
    rows = []
    for more in (1, 2):
        shards, times = [], []
        for part in range(number):  # every so-manieth row: shards of a lake are not clusters
            mine, embeddings = ids[part::number].tolist(), x[part::number].copy()
            shard, seconds = timed(partial(select_shard, mine, embeddings, more * k))
            shards.append(shard)
            times.append(seconds)
        merged, merging = timed(partial(merge, shards, k))
        radius = farthest(x, x[[int(s) for s in merged.sample_ids]])
        case = (
            f"radius of k={k:,} in {number} shards of {n // number:,} x {d}, {more}k candidates "
            f"each (bound {merged.bound:.3f}; {max(times):.2f} s a shard, {merging:.2f} s to merge)"
        )
        rows.append(Row(case, radius, "exact k-center", exact, "", 0.25))
    return rows


def memory_rows(n: int, d: int, k: int) -> list[Row]:
    """Measure the most memory that k-center holds, in a process of its own, with the embeddings."""
    size = n * d * 4 / 2**30
    command = [sys.executable, "-m", "benchmarks._selection_speed", str(n), str(d), str(k)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = float(answer.stdout.split()[-1]) / 2**30
    case = f"memory of k-center, {n:,} x {d}, k={k:,}: {peak / size:.3f} times the embeddings"
    return [Row(case, peak, "1.3 times the embeddings", 1.3 * size, "GiB", 1.0)]


def measure_memory(n: int, d: int, k: int) -> None:
    """Print the most bytes held by the embeddings and k-center on them."""
    k_center(clustered(2000, 8), 10)  # what the imports and the libraries' buffers hold
    before = _memory("VmRSS")
    x = clustered(n, d)
    # Only now begins what is measured: making the embeddings took more than holding them.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    k_center(x, k)
    print(_memory("VmHWM") - before)


def _memory(field: str) -> int:
    """Return one of this process's sizes in bytes: resident now, or at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def device_rows(x: Floats, k: int) -> list[Row]:
    """Compare k-center on an accelerator with the processor, where there is one."""
    import torch

    if not torch.cuda.is_available():
        print("no accelerator: k-center in PyTorch was not measured", file=sys.stderr)
        return []
    k_center(x, 2, device="cuda")
    (found, ours), (expected, theirs) = _interleaved(
        lambda: k_center(x, k, device="cuda"), lambda: k_center(x, k)
    )
    n, d = x.shape
    name = torch.cuda.get_device_name()
    case = f"k-center on {name}, {n:,} x {d}, k={k:,} ({_agreement(x, found, expected)})"
    return [Row(case, ours, "the processor, one thread", theirs, "s")]


def _bandwidth(x: Floats) -> float:
    """Return bytes a second at which the rows are read, at best."""
    flat = x.reshape(-1)
    return max(
        x.nbytes / min(timed(work)[1] for _ in range(3)) for work in (flat.max, lambda: flat @ flat)
    )


def _interleaved(
    ours: Callable[[], Any], theirs: Callable[[], Any]
) -> tuple[tuple[Any, float], tuple[Any, float]]:
    """Return each one's result and median seconds, of runs in turn."""
    mine, peers = [timed(ours)], [timed(theirs)]
    for _ in range(2):
        mine.append(timed(ours))
        if peers[0][1] < _LONG:
            peers.append(timed(theirs))
    return (
        (mine[0][0], float(np.median([seconds for _, seconds in mine]))),
        (peers[0][0], float(np.median([seconds for _, seconds in peers]))),
    )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the processor's seconds, which other processes hardly change.

    Everything here is to run on one thread: for that they are the seconds of an idle machine.
    """
    wall, began = time.perf_counter(), time.process_time()
    result = work()
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    if seconds > 1.1 * wall + 0.1:
        raise RuntimeError(f"{seconds:.1f} s in {wall:.1f} s: that was more than one thread")
    return result, seconds


def installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        print(f"{name} is not installed and was not measured", file=sys.stderr)
        return ""


if __name__ == "__main__":
    measure_memory(*map(int, sys.argv[1:4]))
