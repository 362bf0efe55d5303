"""k-means, small: what typicality needs, without the import time of a library.

Sources: Arthur & Vassilvitskii, "k-means++" (2007), for the seeds; Lloyd (1982) for the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.cells import assign, means
from visionloop.vectors.exact import Floats, Rows, squared_norms
from visionloop.vectors.gathered import Matrix
from visionloop.vectors.phases import steps

# Of more rows than these and than so many a cluster, a sample decides where the centres are: the
# sum of squared distances of all 50,000 x 128 to 500 centres is 0.3 to 2.4% larger for it.
_FEW = 16_384
_SAMPLE_PER_CLUSTER = 40  # as faiss asks for at least 39
_SEEDS_PER_CLUSTER = 10  # the seeds only begin


def kmeans(
    x: Matrix, k: int, *, seed: int, iterations: int = 30, restarts: int = 1
) -> NDArray[np.intp]:
    """Return the cluster of each row.

    Args:
        x: float32 [n, d].
        k: Number of clusters, 1 to n. Fewer come back when there are fewer distinct rows.
        seed: Of the k-means++ seeds.
        iterations: At most so many of Lloyd's.
        restarts: The run of lowest inertia is kept.

    Returns:
        intp [n], cluster numbers below k. Cost O(restarts·iterations·s·k·d + n·k·d) for the s rows
        of a sample: all up to 16,384, or else that many or 40·k.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    sample = _some(x, max(_FEW, _SAMPLE_PER_CLUSTER * k), rng)
    best: tuple[float, Floats] | None = None
    for _ in range(restarts):
        centres = _seeds(_some(sample, max(_FEW // 2, _SEEDS_PER_CLUSTER * k), rng), k, rng)
        inertia = np.inf
        for _ in steps("k-means", range(iterations)):
            member, distance = assign(sample, centres)
            total = float(distance.sum(dtype=np.float64))
            if inertia - total <= 1e-5 * total:
                break
            inertia = total
            centres = means(sample, member, distance, centres)
        if best is None or total < best[0]:
            best = (total, centres)
    assert best is not None
    return assign(x, best[1])[0]


def _some(x: Matrix, most: int, rng: np.random.Generator) -> Floats:
    return np.asarray(x) if len(x) <= most else x[np.sort(rng.choice(len(x), most, replace=False))]


def _seeds(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Return k rows, each drawn with a chance proportional to its squared distance to the others.

    The best of a few draws is kept at each step (greedy k-means++): fewer poor starts.
    """
    n = len(x)
    tries = 2 + int(np.log(k))
    norms = squared_norms(x)
    chosen = [int(rng.integers(n))]
    distance = _squared(x, norms, np.array(chosen))[:, 0]
    for _ in steps("first centres", range(1, k)):
        total = distance.cumsum(dtype=np.float64)
        if total[-1] <= 0:  # all distinct rows are seeds already
            break
        drawn = np.searchsorted(total, rng.random(tries) * total[-1], side="right")
        drawn = np.minimum(drawn, n - 1)
        after = np.minimum(_squared(x, norms, drawn), distance[:, None])
        pick = int(after.sum(axis=0, dtype=np.float64).argmin())
        chosen.append(int(drawn[pick]))
        distance = after[:, pick]
    return x[chosen].copy()


def _squared(x: Floats, norms: Floats, rows: Rows) -> Floats:
    """Return the squared distances of all rows to some of them, float32 [n, rows]."""
    result: Floats = x @ x[rows].T
    result *= -2.0
    result += norms[:, None]
    result += norms[rows]
    return np.maximum(result, 0.0, out=result)
