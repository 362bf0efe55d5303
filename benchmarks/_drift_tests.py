"""Plain tests of drift that know of no earlier look: each answers by a p value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def kolmogorov(reference: Values, look: Values, level: float) -> bool:
    """Test each column by Kolmogorov-Smirnov, with Bonferroni's correction for their number."""
    from scipy.stats import ks_2samp

    columns = reference.shape[1]
    return any(
        ks_2samp(reference[:, j], look[:, j]).pvalue < level / columns for j in range(columns)
    )


def chi_square(reference: Values, look: Values, level: float) -> bool:
    """Test the counts of class numbers, the only column."""
    from scipy.stats import chi2_contingency

    classes = int(max(reference.max(), look.max())) + 1
    table = np.stack(
        [np.bincount(rows[:, 0].astype(int), minlength=classes) for rows in (reference, look)]
    )
    return bool(chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue < level)


def kernel(reference: Values, look: Values, level: float) -> bool:
    """Test by the maximum mean discrepancy (Gretton et al., JMLR 2012).

    A Gaussian kernel of the median distance. So many permutations that five are expected below the
    level: 100 at a level of .05, as many as alibi-detect's MMDDrift takes, which needs PyTorch.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    shuffles = round(5 / level)
    rows = np.concatenate([reference, look])
    n, m = len(reference), len(look)
    squares = (rows**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    near = np.exp(-apart / (2 * np.median(apart[apart > 0])))
    np.fill_diagonal(near, 0)

    # A column a split: the first as it came, the others dealt anew.
    inside = np.zeros((n + m, shuffles + 1))
    inside[:n, 0] = 1
    for column in range(1, shuffles + 1):
        inside[rng.permutation(n + m)[:n], column] = 1
    reach = near @ inside
    within, between = (inside * reach).sum(axis=0), ((1 - inside) * reach).sum(axis=0)
    others = near.sum() - within - 2 * between
    distances = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * between / (n * m)
    return int((distances[1:] >= distances[0]).sum()) / shuffles < level
