"""The labelled holdout that models are judged on, and what was measured on the same before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Holdout:
    """The holdout at one version of the lake.

    Attributes:
        n: Its samples, labelled or not.
        media: URI by sample id of those with a label.
        labels: Their labels.
    """

    n: int
    media: dict[str, str]
    labels: dict[str, str]

    def digest(self, sample_ids: Iterable[str]) -> str:
        """Return the SHA-256, in hex, of some samples with their labels: what accuracy is of."""
        rows = [[sample_id, self.labels[sample_id]] for sample_id in sorted(sample_ids)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def measured_before(decisions: Iterable[Mapping[str, Any]], digest: str) -> dict[str, float]:
    """Return the accuracies that earlier gates measured on the same samples and labels.

    Args:
        decisions: Rows of the table `decisions`.
        digest: `Holdout.digest` of the samples.

    Returns:
        Accuracy by model id.
    """
    known: dict[str, float] = {}
    for row in decisions:
        inputs = json.loads(row["inputs"] or "{}") if row["decision"] == "gate" else {}
        if inputs.get("holdout") == digest:
            known |= inputs.get("measured", {})
    return known
