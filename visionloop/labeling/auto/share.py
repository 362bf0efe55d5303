"""How much of a training set may be automatic, and which of the labels then are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable


def drawn(purpose: str, sample_id: str) -> float:
    """Return a number in [0, 1) for a sample: the same each time, and evenly spread over samples.

    Args:
        purpose: What is drawn; other purposes draw independently.
        sample_id: The sample.
    """
    digest = hashlib.sha256(f"{purpose} {sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def within_share(automatic: Iterable[str], n_people: int, max_share: float) -> set[str]:
    """Return as many samples with an automatic label as a training set may have.

    They are a random draw: of all that the model may label the stated precision holds, and not of
    those that it is surest of.

    Args:
        automatic: The samples.
        n_people: Samples that people labelled, in the same training set.
        max_share: Largest share of the set that may be automatic.
    """
    found = sorted(set(automatic), key=lambda sample: drawn("automatic", sample))
    if max_share >= 1:
        return set(found)
    return set(found[: math.floor(n_people * max_share / (1 - max_share) + 1e-9)])
