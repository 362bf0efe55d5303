"""k-means, small: what typicality needs, without the import time of a library.

Sources: Arthur & Vassilvitskii, "k-means++" (2007), for the seeds; Lloyd (1982) for the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.neighbours import nearest, squared_distances
from visionloop.vectors.cells import means
from visionloop.vectors.exact import Floats

_SAMPLE_PER_CLUSTER = 256  # more points than these hardly move a centre (as in faiss)


def kmeans(
    x: Floats, k: int, *, seed: int, iterations: int = 30, restarts: int = 1
) -> NDArray[np.intp]:
    """Return the cluster of each row.

    Args:
        x: float32 [n, d].
        k: Number of clusters, 1 to n. Fewer come back when there are fewer distinct rows.
        seed: Of the k-means++ seeds.
        iterations: At most so many of Lloyd's.
        restarts: The run of lowest inertia is kept.

    Returns:
        intp [n], cluster numbers below k. Cost O(restarts·iterations·min(n, 256·k)·k·d + n·k·d).
    """
    n = len(x)
    rng = np.random.Generator(np.random.PCG64(seed))
    limit = _SAMPLE_PER_CLUSTER * k
    sample = x if n <= limit else x[np.sort(rng.choice(n, limit, replace=False))]
    best: tuple[float, Floats] | None = None
    for _ in range(restarts):
        centres = _seeds(sample, k, rng)
        inertia = np.inf
        for _ in range(iterations):
            member, distance = nearest(sample, centres)
            total = float(distance.sum(dtype=np.float64))
            if inertia - total <= 1e-5 * total:
                break
            inertia = total
            centres = means(sample, member, distance, centres)
        if best is None or total < best[0]:
            best = (total, centres)
    assert best is not None
    return nearest(x, best[1])[0]


def _seeds(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Return k rows, each drawn with a chance proportional to its squared distance to the others.

    The best of a few draws is kept at each step (greedy k-means++): fewer poor starts.
    """
    n = len(x)
    tries = 2 + int(np.log(k))
    chosen = [int(rng.integers(n))]
    distance = squared_distances(x, x[chosen])[:, 0]
    for _ in range(1, k):
        total = distance.cumsum(dtype=np.float64)
        if total[-1] <= 0:  # all distinct rows are seeds already
            break
        drawn = np.searchsorted(total, rng.random(tries) * total[-1], side="right")
        drawn = np.minimum(drawn, n - 1)
        after = np.minimum(squared_distances(x, x[drawn]), distance[:, None])
        pick = int(after.sum(axis=0, dtype=np.float64).argmin())
        chosen.append(int(drawn[pick]))
        distance = after[:, pick]
    return x[chosen].copy()
