"""Fingerprints as the frames of cameras that stand still have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEVELS = np.array([-0.7739, -0.3446, 0, 0.3446, 0.7739])


def frames(n: int, cameras: int, noise: float, seed: int) -> NDArray[np.uint64]:
    """Return fingerprints of frames of cameras that stand still."""
    rng = np.random.Generator(np.random.PCG64(seed))
    values = rng.standard_normal((cameras, 51))[rng.integers(0, cameras, n)]
    values = values + noise * rng.standard_normal((n, 51))
    bits = (values[:, None, :] > _LEVELS[:, None]).reshape(n, 255)
    return np.packbits(bits, axis=1).view(np.uint64)
