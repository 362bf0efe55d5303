"""k-center in PyTorch, for a machine with an accelerator.

An accelerator reads its memory some fifty times faster than a processor's core, so that plain
greedy, one product of all rows with each pick, beats every way to leave some out. Its products
are rounded in yet another way; as in `visionloop.vectors.exact` they only say which distances can
have become shorter, and those are computed anew in float64. So the picks are the processor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from visionloop.errors import InputError
from visionloop.inference.session import gpu_is_there
from visionloop.selection.lazy import NEVER, Score
from visionloop.vectors.exact import Floats, product_error, squared_norms
from visionloop.vectors.gathered import Matrix

if TYPE_CHECKING:
    import torch

_PAIRS = 1 << 16  # rows whose distances are computed anew at a time


def device_of(wanted: str) -> str:
    """Return what `selection.device` means on this machine.

    Args:
        wanted: Empty, ``auto``, ``cuda`` or ``cuda:N``.

    Returns:
        PyTorch's name of the device; empty for the processor.

    Raises:
        InputError: A GPU was named and this process has none, or PyTorch does not know it.
    """
    if not wanted or (wanted == "auto" and not gpu_is_there()):
        return ""
    if find_spec("torch") is None:
        why, number = "PyTorch is not installed", 0
    else:
        import torch

        number = torch.cuda.device_count()
        why = f"PyTorch {torch.__version__} finds {number} GPUs"
    if wanted == "auto":
        return "cuda" if number else ""
    if int(wanted.partition(":")[2] or 0) >= number:
        raise InputError(
            f"{why}, and {wanted} was asked for",
            where="selection.device",
            remedy="Leave `device` empty for the processor: the picks are the same",
        )
    return wanted


def device_greedy(
    x: Matrix,
    already: Floats,
    k: int,
    *,
    score: Score,
    accept: Callable[[int], bool],
    device: str,
) -> Iterator[tuple[int, float]]:
    """Pick up to k rows as `visionloop.selection.lazy.lazy_greedy` does, on a device.

    Args:
        x: float32 [m, d].
        already: float32 [L, d], what was chosen before.
        k: How many.
        score: As there.
        accept: As there.
        device: PyTorch's name of it, ``cuda`` or ``cpu``.

    Yields:
        The row and its squared distance at the step of its pick (infinite when nothing was chosen).

    Cost O(k·m·d). Memory of the device: x and about 24 bytes a row.
    """
    import torch

    state = _Device(np.asarray(x), device)
    for centre in already:
        state.shorten(torch.from_numpy(centre).to(device), score=None)
    state.score_all(score)
    picked = 0
    while picked < k:
        best = state.best()
        if best is None:
            return
        row, squared = best
        state.remove(row)
        if accept(row):
            yield row, squared
            picked += 1
            if picked < k:
                state.shorten(state.rows[row], score)


class _Device:
    def __init__(self, x: Floats, device: str) -> None:
        import torch

        norms = squared_norms(x)
        self.rows = torch.from_numpy(x).to(device)
        self._norms = torch.from_numpy(norms).to(device)
        self._error = product_error(x.shape[1], 2 * float(norms.max(initial=0.0)))
        self._squared = torch.full((len(x),), float("inf"), dtype=torch.float32, device=device)
        self._totals = torch.full((len(x),), NEVER, dtype=torch.float64, device=device)

    def score_all(self, score: Score) -> None:
        """Let every row have its total."""
        import torch

        totals = score(np.arange(len(self.rows)), self._squared.cpu().numpy())
        self._totals = torch.from_numpy(totals).to(self._totals.device)

    def best(self) -> tuple[int, float] | None:
        """Return the row of the largest total and its squared distance; None when none is left."""
        if not len(self._totals):
            return None
        largest = self._totals.max()
        if float(largest) == NEVER:
            return None
        row = int((self._totals == largest).nonzero()[0, 0])  # argmax may return any of equals
        return row, float(self._squared[row])

    def remove(self, row: int) -> None:
        """Take a row out of the question."""
        self._totals[row] = NEVER

    def shorten(self, centre: torch.Tensor, score: Score | None) -> None:
        """Shorten the distances to a centre's, and bring the totals of those rows up to date."""
        import torch

        fresh = self.rows @ centre
        fresh.mul_(-2.0).add_(self._norms).add_((centre * centre).sum() - self._error)
        maybe = (fresh < self._squared).nonzero()[:, 0]
        exact = torch.cat(
            [
                (self.rows[part].double() - centre.double()).square_().sum(dim=1).float()
                for part in torch.split(maybe, _PAIRS)
            ]
        )
        closer = exact < self._squared[maybe]
        maybe, exact = maybe[closer], exact[closer]
        self._squared[maybe] = exact
        if score is None or not len(maybe):
            return
        open_rows = self._totals[maybe] > NEVER
        maybe, exact = maybe[open_rows], exact[open_rows]
        totals = score(maybe.cpu().numpy(), exact.cpu().numpy())
        self._totals[maybe] = torch.from_numpy(totals).to(self._totals.device)
