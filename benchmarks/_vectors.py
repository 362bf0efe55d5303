"""Made embeddings, and a process in which every peer computes at its best with one thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_PART = 100_000


def compute_alike(threads: int = 1) -> None:
    """Start this command again with the settings that numerical libraries read only once.

    OpenBLAS, also the one inside faiss, does not know every processor and falls back to narrow
    kernels: with AVX-512 it computes about twice as fast when it is told.
    """
    wanted = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    }
    if "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        wanted["OPENBLAS_CORETYPE"] = "SkylakeX"
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def kernels() -> str:
    """Return which BLAS each library loaded and its kernels, for the log."""
    from threadpoolctl import threadpool_info

    return "; ".join(
        f"{Path(i['filepath']).name.split('.')[0]} {i['version']} {i.get('architecture', '')} "
        f"{i['num_threads']} thread"
        for i in threadpool_info()
        if i["user_api"] == "blas"
    )


def clustered(n: int, d: int) -> Floats:
    """Return unit vectors around 200 centres: rows of a cluster have a cosine of about 0.8."""
    rng = np.random.Generator(np.random.PCG64(0))
    centres = rng.standard_normal((200, d), dtype=np.float32)
    x = np.empty((n, d), dtype=np.float32)
    cluster = rng.integers(200, size=n)
    for start in range(0, n, _PART):
        part = x[start : start + _PART]
        rng.standard_normal(part.shape, dtype=np.float32, out=part)
        part *= 0.5
        part += centres[cluster[start : start + _PART]]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return x


def spread(n: int, d: int) -> Floats:
    """Return unit vectors in 1,000 overlapping groups whose energy falls off as i^-1.6.

    That is nearer to an encoder's embeddings than separate clusters, and harder: hardly a
    neighbourhood ends where another begins.
    """
    rng = np.random.Generator(np.random.PCG64(1))
    scale = (np.arange(1, d + 1) ** -0.8).astype(np.float32)
    centres = rng.standard_normal((1000, d), dtype=np.float32)
    x = rng.standard_normal((n, d), dtype=np.float32)
    x *= 0.4
    x += centres[rng.integers(1000, size=n)]
    x *= scale
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def with_near_copies(x: Floats) -> Floats:
    """Make one row in twenty a copy of another with noise, to a cosine of 0.93 to 1."""
    rng = np.random.Generator(np.random.PCG64(2))
    number = len(x) // 20
    rows = rng.permutation(len(x))[: 2 * number]
    noise = rng.standard_normal((number, x.shape[1]), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = x[rows[number:]] + noise * np.linspace(0.0, 0.4, number, dtype=np.float32)[:, None]
    x[rows[:number]] = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    return x
