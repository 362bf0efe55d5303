"""Sound samples that are flagged as outliers, as the reference grows; nothing is put in."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._monitoring_peers_run import AllPeers
from benchmarks._rows import Row
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.outliers import find_outliers

Floats = NDArray[np.float32]
REFERENCES = (200, 400, 1000, 4000)
DIMENSIONS = 64
# New samples of each reference, from clouds of so many seeds.
NEW, SEEDS, QUICK_NEW = 1000, 8, 200


def sound_rows(peers: AllPeers, quick: bool) -> list[Row]:
    """Return the share of sound new samples that are flagged, by the size of the reference.

    All are of one Gaussian cloud around a point off the origin, of length 1. `outlier_share` (1 in
    1,000) is what ours means to flag; the peers have no such promise.
    """
    new, seeds = (QUICK_NEW, 2) if quick else (NEW, SEEDS)
    rows = []
    for known in REFERENCES:
        pools = [cloud(known + new, seed) for seed in range(seeds)]
        flagged = {"ours": sum(_ours(pool, known) for pool in pools)}
        found = peers.datalab.found({f"outliers:{i}": pool for i, pool in enumerate(pools)})
        if found:
            who = f"Datalab {peers.datalab.versions['cleanlab']}"
            flagged[who] = sum(row >= known for one in found.values() for row in one)
        factor = f"scikit-learn {version('scikit-learn')}, LOF, novelty"
        flagged[factor] = sum(_local_outlier_factor(pool, known) for pool in pools)
        case = f"outlier: {new * seeds:,} sound samples, {known:,} known before, flagged of 1,000"
        shares = {who: 1000 * number / (new * seeds) for who, number in flagged.items()}
        rows += [
            Row(case, shares["ours"], who, share, "")
            for who, share in shares.items()
            if who != "ours"
        ]
    return rows


def cloud(n: int, seed: int, dimensions: int = DIMENSIONS) -> Floats:
    """Return n unit vectors around one direction, float32 [n, d]."""
    rng = np.random.Generator(np.random.PCG64(seed))
    vectors = 0.5 * rng.standard_normal((n, dimensions)) / np.sqrt(dimensions)
    vectors[:, 0] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _ours(pool: Floats, known: int) -> int:
    names = [f"{row:064d}" for row in range(len(pool))]
    found = find_outliers(set(names[known:]), lambda: [(pa.array(names), pool)], MonitoringConfig())
    if found.why_not:
        raise RuntimeError(f"sound samples were not judged: {found.why_not}")
    return len(found.found)


def _local_outlier_factor(pool: Floats, known: int) -> int:
    from sklearn.neighbors import LocalOutlierFactor

    told = LocalOutlierFactor(novelty=True).fit(pool[:known])
    return int((told.predict(pool[known:]) == -1).sum())
