"""Names the answers of a round that cannot be used, so that people find and mend them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionloop.labeling.merging import REJECTED

# So many are named where people read; programs get all of them.
SHOWN = 20
_LONGEST = 160
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Unusable:
    """An answer that cannot be used.

    Attributes:
        task: What the tool calls the request; empty where the round has none for it.
        external_id: What the tool calls the answer.
        sample_id: The sample; empty where it is not one that the round asked for.
        annotator: Who gave it; empty where the tool does not say.
        reason: As in `visionloop.labeling.provider.Rejected`.
        detail: What exactly, for people.
        holds: Whether its request is open: it stays so until the answer is corrected or deleted.
    """

    task: str
    external_id: str
    sample_id: str
    annotator: str
    reason: str
    detail: str
    holds: bool

    @property
    def why(self) -> str:
        """Return reason and detail in one line, however long and odd the detail is."""
        shown = "".join(c if c.isprintable() else " " for c in self.detail)
        shown = " ".join(shown.split())
        shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
        reason = self.reason.replace("_", " ")
        return f"{reason}: {shown}" if shown else reason

    @property
    def line(self) -> str:
        """Return it in one line."""
        places = [f"task {self.task}"] if self.task else []
        places += [f"answer {self.external_id}"]
        places += [f"sample {self.sample_id[:12]}"] if self.sample_id else []
        return f"{', '.join(places)}, by {self.annotator or 'nobody named'}: {self.why}"


def unusable_answers(
    annotations: Iterable[Row], requests: Iterable[Row], still_open: Collection[str]
) -> list[Unusable]:
    """Return the answers of a round that cannot be used, in the order of its requests.

    Args:
        annotations: Rows of `annotations` of the round.
        requests: Rows of `label_requests` of it.
        still_open: The samples whose requests are open.
    """
    asked = {row["sample_id"]: row for row in requests}
    found = []
    for row in annotations:
        if row["state"] != REJECTED:
            continue
        sample = row["sample_id"] or ""
        request = asked.get(sample, {})
        one = Unusable(
            task=request.get("external_id") or "",
            external_id=row["external_id"] or "",
            sample_id=sample,
            annotator=row["annotator"] or "",
            reason=row["reason"] or "",
            detail=row["detail"] or "",
            holds=sample in still_open,
        )
        rank = request.get("rank")
        found.append(((rank is None, rank or 0, one.external_id), one))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def more_than_shown(answers: Sequence[Any]) -> str:
    """Return ``and 3 more`` where not all are named; else nothing."""
    more = len(answers) - SHOWN
    return f"and {more:,} more" if more > 0 else ""
