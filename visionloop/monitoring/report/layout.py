"""Lays vectors out in the plane, so that alike ones lie close together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# With fewer pictures t-SNE shows groups that are not there.
TSNE_FROM = 50
COMPONENTS = 50
# Early exaggeration and the rest; twice as many move points by less than their size.
EXAGGERATED, SETTLING = 125, 250
PERPLEXITY = 30
# Cells of the grid that repulsion is interpolated on: a few thousand points need no more.
_CELLS = 16
_SEED = 0


def lay_out(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], str]:
    """Return a place in the unit square for each vector, and the method's name.

    t-SNE (van der Maaten and Hinton, JMLR 9, 2008) over the first 50 principal components, begun
    at the first two (Kobak and Berens, Nature Communications 10, 2019), by openTSNE; PCA alone
    below 50 vectors. The same vectors give the same places.

    Args:
        vectors: float32 [n, d].

    Returns:
        float64 [n, 2] in [0, 1], rounded to four places; ``t-SNE`` or ``PCA``.
    """
    n = len(vectors)
    if n == 0:
        return np.zeros((0, 2)), "PCA"
    reduced = _principal(np.asarray(vectors, np.float64), COMPONENTS)
    if n < TSNE_FROM or not np.ptp(reduced, axis=0).any():
        return _in_square(reduced[:, :2]), "PCA"
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    start = reduced[:, :2].copy()
    if start.shape[1] < 2:
        start = np.column_stack([start, np.zeros(n)])
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    # One thread: sums whose order changes from run to run would change the page's bytes.
    affinities = PerplexityBasedNN(
        reduced,
        perplexity=min(PERPLEXITY, (n - 1) / 3),
        method="exact" if n <= 5_000 else "annoy",
        n_jobs=1,
        random_state=_SEED,
    )
    places = TSNEEmbedding(
        start,
        affinities,
        negative_gradient_method="fft",
        min_num_intervals=_CELLS,
        n_jobs=1,
        random_state=_SEED,
    )
    places = places.optimize(n_iter=EXAGGERATED, exaggeration=12, momentum=0.5)
    places = places.optimize(n_iter=SETTLING, momentum=0.8)
    return _in_square(np.asarray(places, np.float64)), "t-SNE"


def _principal(vectors: NDArray[np.float64], components: int) -> NDArray[np.float64]:
    """Return the first principal components, each signed so that its largest weight is positive."""
    centred = vectors - vectors.mean(axis=0)
    if not np.isfinite(centred).all():
        centred = np.nan_to_num(centred, nan=0.0, posinf=0.0, neginf=0.0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :components]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    return np.asarray(centred @ axes)


def _in_square(places: NDArray[np.float64]) -> NDArray[np.float64]:
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    low = places.min(axis=0)
    span = float(np.ptp(places, axis=0).max()) or 1.0
    # One scale for both directions: distances would lie otherwise.
    margin = (1 - np.ptp(places, axis=0) / span) / 2
    return np.asarray(np.round((places - low) / span + margin, 4), np.float64)
