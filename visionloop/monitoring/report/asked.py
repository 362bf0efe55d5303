"""What each round chose, asked people about, and was answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.labeling.answers import MODEL
from visionloop.labeling.overview import outcomes
from visionloop.monitoring.report.data_funnel import Part, Step
from visionloop.monitoring.report.reading import Reader

_PURPOSES = {
    "holdout": "pictures of the holdout",
    "relabel": "labels in doubt that are asked about again",
    "audit": "automatic labels that are checked",
    "training": "chosen by an earlier round",
}
_OUTCOMES = {
    "skipped": "skipped",
    "conflicts": "answered differently by several people",
    "open": "not answered yet",
    "recalled": "taken back",
}


@dataclass
class Asked:
    """A round's picks and requests, or those of several rounds.

    Attributes:
        selected: Samples that were chosen.
        labelled: Samples whose request was answered with a label.
        n_selected: Picks.
        n_requests: Requests.
        entered: Requests of samples that were not chosen, by purpose.
        unasked: Chosen samples without a request, by why.
        outcomes: Requests by what they have come to.
    """

    selected: set[str] = field(default_factory=set)
    labelled: set[str] = field(default_factory=set)
    n_selected: int = 0
    n_requests: int = 0
    entered: Counter[str] = field(default_factory=Counter)
    unasked: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Asked) -> None:
        """Add another round's."""
        self.selected |= other.selected
        self.labelled |= other.labelled
        self.n_selected += other.n_selected
        self.n_requests += other.n_requests
        self.entered += other.entered
        self.unasked += other.unasked
        self.outcomes += other.outcomes

    def steps(self) -> list[Step]:
        """Return the steps from what was chosen to what was answered."""
        if not self.n_requests and not self.n_selected:
            return []
        return [
            Step(
                "requested",
                "Asked about",
                "requests",
                self.n_requests,
                self.n_selected,
                "selected",
                entered=tuple(Part(name, n) for name, n in sorted(self.entered.items())),
                rest=tuple(Part(name, n) for name, n in sorted(self.unasked.items())),
            ),
            Step(
                "answered",
                "Answered with a label",
                "requests",
                self.outcomes["labelled"],
                self.n_requests,
                "requested",
                rest=tuple(
                    Part(words, self.outcomes[name])
                    for name, words in _OUTCOMES.items()
                    if self.outcomes[name]
                ),
            ),
        ]


def asked(reader: Reader) -> dict[str, Asked]:
    """Return what each round chose and asked about, by round.

    Only rows of samples that somebody was asked about become Python objects: they are bought one
    by one, so they are few beside the pictures.
    """
    picks: dict[str, set[str]] = {}
    for round_id, sample in zip(
        reader.selections["round_id"].to_pylist(),
        reader.selections["sample_id"].to_pylist(),
        strict=True,
    ):
        picks.setdefault(round_id or "", set()).add(sample)
    requests: dict[str, list[dict[str, Any]]] = {}
    for row in reader.requests:
        requests.setdefault(row["round_id"] or "", []).append(row)
    wanted = pa.array(
        sorted({row["sample_id"] for row in reader.requests}.union(*picks.values())), pa.string()
    )
    labels: dict[str, list[dict[str, Any]]] = {}
    for batch in reader.lake.batches("labels", version=reader.version or None):
        mine = batch.filter(pc.is_in(batch["sample_id"].cast(pa.string()), value_set=wanted))
        for row in mine.to_pylist():
            labels.setdefault(row["sample_id"], []).append(row)
    came: dict[str, list[dict[str, Any]]] = {}
    columns = ("sample_id", "annotator", "external_id", "state", "round_id")
    for row in reader.read("annotations", *columns).to_pylist():
        came.setdefault(row["round_id"] or "", []).append(row)
    found = {}
    for round_id in sorted({*picks, *requests}):
        chosen, mine = picks.get(round_id, set()), requests.get(round_id, [])
        about = {row["sample_id"] for row in mine}
        rows = [row for sample in sorted(about) for row in labels.get(sample, [])]
        ends = outcomes(mine, rows, came.get(round_id, []), round_id)
        one = Asked(chosen, {s for s, end in ends.items() if end == "labelled"})
        one.n_selected, one.n_requests = len(chosen), len(ends)
        one.outcomes = Counter(ends.values())
        purposes = {row["sample_id"]: row["purpose"] for row in mine}
        one.entered = Counter(
            _PURPOSES.get(purposes[sample] or "training", "asked about for another reason")
            for sample in about - chosen
        )
        one.unasked = Counter(
            _unasked(labels.get(sample, []), round_id, bool(mine)) for sample in chosen - about
        )
        found[round_id] = one
    return found


def _unasked(labels: list[dict[str, Any]], round_id: str, requested: bool) -> str:
    if any(row["origin"] == MODEL and row["round_id"] == round_id for row in labels):
        return "labelled by the model"
    if labels:
        return "labelled already"
    if not requested:
        return "not asked about yet"
    return "could not be shown"
