"""The control arm: as many labels, drawn at random from what selection may choose from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from visionloop.selection.neighbours import copies_of
from visionloop.selection.pool import fingerprint_words
from visionloop.training.calibration import SINGLE_FIT_LABELS
from visionloop.training.parameters import TrainingConfig


def random_picks(
    eligible: Iterable[str],
    n: int,
    *,
    previous: Sequence[str],
    seed: int,
    fingerprints: Mapping[str, bytes | None] | None = None,
    copy_distance: int = -1,
) -> list[str]:
    """Draw the control arm's samples: those of the round before, and as many more as are needed.

    Selection picks no copy of what is labelled, so neither does the draw: otherwise a part of its
    lead would be no more than that.

    Args:
        eligible: Sample ids that may be drawn.
        n: How many in all.
        previous: What the round before had, in its order; kept, so that the sets are nested.
        seed: Seed of the draw. The order in which ids are drawn depends on nothing else.
        fingerprints: 32 bytes by sample id.
        copy_distance: Differing bits up to which two pictures are copies; -1: none are.

    Returns:
        At most n distinct sample ids, previous first.
    """
    allowed = set(eligible)
    kept = [sample_id for sample_id in dict.fromkeys(previous) if sample_id in allowed][:n]

    def ticket(sample_id: str) -> bytes:
        return hashlib.sha256(f"{seed} {sample_id}".encode()).digest()

    known = fingerprints or {}

    def is_copy(sample_id: str) -> bool:
        one = fingerprint_words([known.get(sample_id)])
        who, _ = copies_of(one, fingerprint_words([known.get(s) for s in kept]), copy_distance)
        return bool(who[0] >= 0)

    for sample_id in sorted(allowed - set(kept), key=ticket):
        if len(kept) == n:
            break
        if copy_distance < 0 or known.get(sample_id) is None or not is_copy(sample_id):
            kept.append(sample_id)
    return kept


def control_parameters(parameters: TrainingConfig, n: int) -> TrainingConfig:
    """Return the parameters by which the control arm fits as many rows as the loop's model does.

    Only accuracy is compared, and a temperature does not change it. Calibrating does change what
    the network learns from where one fit has to do: then the held-out rows are never fitted, in
    either arm. Below, the last fit is on all rows, and the first one can be spared.

    Args:
        parameters: The loop's.
        n: Rows of either arm's training set.
    """
    if n >= SINGLE_FIT_LABELS:
        return parameters
    return parameters.model_copy(update={"calibrate": False})
