"""Which objects several people's boxes come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from visionloop.labeling.config import TrustConfig
from visionloop.labeling.provider import Box
from visionloop.labeling.trust.matching import objects


@dataclass(frozen=True)
class Marked:
    """What the boxes of a sample come to.

    Attributes:
        boxes: The objects; null in a conflict.
        quality: Mean over the objects of the share of people who agree on what became of each.
        agreement: Mean over the objects of the share who drew it with its class.
        method: ``agreement`` or ``majority``.
        note: What conflicts.
    """

    boxes: tuple[Box, ...] | None
    quality: float
    agreement: float
    method: str
    note: str


def boxes_of_all(drawn: Mapping[str, Sequence[Box]], config: TrustConfig) -> Marked:
    """Return the objects that people agree on.

    Args:
        drawn: The boxes of each person.
        config: How much overlap is one object, and whether all have to agree.
    """
    people = list(drawn)
    strict = config.consensus == "agreement"
    method = "agreement" if strict else "majority"
    if len(people) == 1:
        return Marked(tuple(drawn[people[0]]), 1.0, 1.0, method, "")
    kept: list[Box] = []
    notes: Counter[str] = Counter()
    agreed, drew = [], []
    for group in objects([drawn[name] for name in people], config.min_iou):
        share = len(group) / len(people)
        counts = Counter(box.label for _, box in group).most_common()
        label, most = counts[0]
        drew.append(most / len(people))
        if strict and (share < 1 or len(counts) > 1):
            agreed.append(most / len(people))
            notes["not all agree"] += 1
        elif share == 0.5:
            agreed.append(0.5)
            notes["half of the annotators drew it"] += 1
        elif share < 0.5:
            agreed.append(1 - share)
        elif len(counts) > 1 and counts[1][1] == most:
            agreed.append(most / len(people))
            notes["a tie of classes"] += 1
        else:
            agreed.append(most / len(people))
            kept.append(_median([box for _, box in group], label))
    text = ", ".join(f"{n} boxes: {why}" for why, n in sorted(notes.items()))
    quality = fmean(agreed) if agreed else 1.0
    agreement = fmean(drew) if drew else 1.0
    return Marked(None if notes else tuple(kept), quality, agreement, method, text)


def _median(boxes: Sequence[Box], label: str) -> Box:
    return Box(
        median(box.x_min for box in boxes),
        median(box.y_min for box in boxes),
        median(box.x_max for box in boxes),
        median(box.y_max for box in boxes),
        label,
    )
