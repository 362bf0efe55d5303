"""What the search for outliers costs at a million embeddings: seconds and peak memory.

Each runs in a process of its own and reads the embeddings from a file a part at a time, as the lake
gives them. All samples are new, as with a first intake, and 20,000 of them are the reference. The
peers judge by the same reference: scikit-learn's local outlier factor, and FAISS's brute force,
which only finds the neighbours. Of a million rows they are given a tenth.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks._rows import Row

DIMENSIONS, GROUPS, PART = 512, 200, 50_000
_READ = """
import json, resource, sys, time
import numpy as np
path, n, d, part = sys.argv[1], *map(int, sys.argv[2:5])
def parts(n):
    for start in range(0, n, part):
        number = min(part, n - start)
        yield start, np.fromfile(path, np.float32, number * d, offset=4 * d * start).reshape(-1, d)
def told(began):
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.perf_counter() - began, memory]))
"""
_OURS = """
import pyarrow as pa
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.outliers import find_outliers
def read():
    for start, x in parts(n):
        yield pa.array([f"{i * 2654435761 % 2**32:064x}" for i in range(start, start + len(x))]), x
names = {name for ids, _ in read() for name in ids.to_pylist()}
began = time.perf_counter()
found = find_outliers(names, read, MonitoringConfig())
assert found.n_judged == n, found
told(began)
"""
_FACTOR = """
from sklearn.neighbors import LocalOutlierFactor
_, reference = next(iter(parts(20_000)))
began = time.perf_counter()
factor = LocalOutlierFactor(n_neighbors=10, novelty=True).fit(reference)
for _, x in parts(n):
    factor.predict(x)
told(began)
"""
_FAISS = """
import faiss
_, reference = next(iter(parts(20_000)))
began = time.perf_counter()
index = faiss.IndexFlatL2(d)
index.add(reference)
for _, x in parts(n):
    index.search(x, 10)
told(began)
"""


def large_rows(quick: bool) -> list[Row]:
    """Return seconds and MiB for 100,000 rows, and without ``quick`` for a million too."""
    peers = {f"scikit-learn {version('scikit-learn')}, LOF": _FACTOR}
    peers[f"FAISS {version('faiss-cpu')}, neighbours alone"] = _FAISS
    rows = []
    for n in (100_000,) if quick else (100_000, 1_000_000):
        given = min(n, 100_000)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "vectors"
            write_vectors(path, n)
            ours = _run(_OURS, path, n)
            theirs = {who: _run(script, path, given) for who, script in peers.items()}
        for who, (seconds, memory) in theirs.items():
            case, times = f"outlier: {n:,} new of {DIMENSIONS} dimensions", n // given
            name = who if times == 1 else f"{who}, a tenth of them, times {times}"
            rows.append(Row(f"{case}: time", ours[0], name, times * seconds, "s"))
            rows.append(Row(f"{case}: memory", ours[1], who, memory, "MiB"))
    return rows


def write_vectors(path: Path, n: int, dimensions: int = DIMENSIONS) -> None:
    """Write unit vectors around some centres, float32 [n, dimensions], a part at a time."""
    rng = np.random.Generator(np.random.PCG64(0))
    centres = rng.standard_normal((GROUPS, dimensions), dtype=np.float32)
    with path.open("wb") as file:
        for start in range(0, n, PART):
            x = rng.standard_normal((min(PART, n - start), dimensions), dtype=np.float32)
            x *= 0.5
            x += centres[rng.integers(GROUPS, size=len(x))]
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            file.write(x.tobytes())


def _run(script: str, path: Path, n: int) -> tuple[float, float]:
    """Return seconds and MiB of a process."""
    command = [sys.executable, "-c", _READ + script, str(path), str(n), str(DIMENSIONS), str(PART)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), float(memory)
