"""BADGE: a batch whose gradients would be large and point in different directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.objectives import FLOOR, Values
from visionloop.vectors.exact import squared_norms
from visionloop.vectors.gathered import Matrix, dots


class Badge:
    """Squared distance of a gradient to the nearest chosen one; picks are drawn by it.

    The gradient of the cross-entropy in the last layer, as if the most probable class were true, is
    `(p - e_argmax) ⊗ h`, h being what the layer sees. The first pick has the longest gradient, each
    later one is drawn with a chance proportional to its squared distance to the nearest pick, the
    seeding of k-means++. The distances need no gradient of C·d numbers:
    `(a ⊗ h)·(b ⊗ g) = (a·b)(h·g)`.

    The draw is an argmax: Gumbel noise on the logarithms makes the largest sum a draw with a chance
    proportional to the product of all objectives, each to the power of its strength. So it combines
    with the others as they do among themselves.

    Source: Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds"
    (2020), algorithm 1 and the authors' code for the first pick; Gumbel (1954) for the draw. Cost
    O(m·(C + d)) a step, on one thread: a sum whose order depended on threads would change a draw.

    Args:
        probabilities: float32 [m, C], NaN rows are unknown.
        x: float32 [m, d], the model's features, or another embedding.
        strength: Multiplies the log-objective.
        seed: Of the draws.

    Attributes:
        informed: Whether any candidate has probabilities.
    """

    def __init__(
        self, probabilities: NDArray[np.float32], x: Matrix, strength: float = 1.0, *, seed: int = 0
    ) -> None:
        self.name = "badge"
        self.strength = strength
        self._known: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
        self.informed = bool(self._known.any())
        self._all_known = bool(self._known.all())
        p = np.where(self._known[:, None], probabilities, 0.0).astype(np.float64)
        p[np.arange(len(p)), p.argmax(axis=1)] -= 1.0
        self._a = p
        self._x = x
        lengths = squared_norms(x)
        self._norms: Values = np.einsum("ij,ij->i", p, p) * lengths
        self._squared: Values | None = None  # lengths count until something is chosen
        self._rng = np.random.Generator(np.random.PCG64([seed, 4]))
        self._noise = np.zeros(len(x))

    def values(self) -> Values:
        """Return float64 [m]: squared distances over the largest; before any pick, lengths."""
        if not self.informed:
            return np.ones(len(self._known))
        now = self._norms if self._squared is None else self._squared
        some = now if self._all_known else now[self._known]
        top = max(float(some.max()), np.finfo(np.float64).tiny)
        if not self._all_known:
            now = np.where(self._known, now, np.median(some))
        return np.clip(now / top, FLOOR, 1.0)

    def noise(self) -> Values:
        """Return float64 [m], what makes the largest total a draw; zeros before the first pick."""
        return self._noise

    def known(self, candidate: int) -> bool:
        """Tell whether the candidate has probabilities."""
        return bool(self._known[candidate])

    def choose(self, candidate: int) -> None:
        """Shorten the distances to the chosen gradient's, and throw the dice anew."""
        self._noise = self._rng.gumbel(size=len(self._known))
        if not self._known[candidate]:
            return
        a, h = self._a[candidate], self._x[candidate]
        # einsum adds in one order; a product by BLAS adds in another for other numbers of threads.
        product = np.einsum("ij,j->i", self._a, a) * dots(self._x, h)
        fresh = np.maximum(self._norms + self._norms[candidate] - 2.0 * product, 0.0)
        self._squared = fresh if self._squared is None else np.minimum(self._squared, fresh)
