"""Labels in doubt as flags: the state of all labels at one version of the lake."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from visionloop.labeling.trust.labelled import Labelled, read_labelled
from visionloop.monitoring.findings import rows_table

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.labeling.trust.suspects import Suspects
    from visionloop.lake import Lake

KIND = "label_suspect"
TOO_WEAK = "judged by models that know too little to doubt a label"
TOO_FEW = "of a class that too few labels of the pool teach"
# Labels of the pool that must have taught a class before a label is doubted for it or against it.
# Of a class that was learned from a handful, models are surely wrong about whole kinds of pictures.
LEAST_TAUGHT = 15
# Rival classes that a flag's evidence names.
_SHOWN = 3


@dataclass(frozen=True)
class LabelChecks:
    """What became of each label: in = ok + flagged + unchecked.

    Attributes:
        ok: Labels that nothing speaks against.
        flagged: Labels that another class is likelier than.
        unchecked: How many could not be judged, by reason.
        flags: Rows of `flags`, the worst first.
        told_by: What judged, for a person.
        doubt: How far it can be believed and between which shares of the labels are wrong, see
            `visionloop.labeling.trust.doubting`; null where nothing judged.
    """

    ok: int
    flagged: int
    unchecked: dict[str, int]
    flags: pa.Table
    told_by: dict[str, Any] = field(default_factory=dict)
    doubt: dict[str, Any] | None = None

    def counts(self) -> dict[str, int]:
        """Return what adds up: in = ok + flagged + unchecked."""
        unchecked = sum(self.unchecked.values())
        total = self.ok + self.flagged + unchecked
        return {"in": total, "ok": self.ok, "flagged": self.flagged, "unchecked": unchecked}


def judge_labels(
    lake: Lake, loop: LoopConfig, space: str, version: str, now: datetime
) -> LabelChecks:
    """Judge every label of a lake; see `visionloop.labeling.trust.labelled` for by what.

    Where the models know too little, no label is doubted: all are unchecked. So are the labels of
    a class that too few labels taught, and those that would be doubted in favour of such a class.

    Args:
        lake: The lake.
        loop: The loop's configuration.
        space: The embedding space; empty where there is none.
        version: Lake version.
        now: Written as ``flagged_at``.
    """
    labelled = read_labelled(lake, loop, space, version)
    if not len(labelled):
        return LabelChecks(0, 0, labelled.unchecked, rows_table("flags", []))
    from visionloop.labeling.trust.doubting import doubt
    from visionloop.labeling.trust.suspects import find_suspects

    found = find_suspects(labelled.labels, labelled.probabilities, labelled.counts())
    believed = doubt(labelled.labels, labelled.probabilities, found)
    told = believed.plain()
    if not believed.enough:
        unchecked = {**labelled.unchecked, TOO_WEAK: len(labelled)}
        return LabelChecks(0, 0, unchecked, rows_table("flags", []), labelled.told_by, told)
    pool = labelled.labels[~labelled.holdout]
    taught = np.bincount(pool, minlength=len(labelled.classes)) >= LEAST_TAUGHT
    known = taught[labelled.labels] & taught[found.suggested]
    doubted = found.flagged & known
    rows = [
        _flag(labelled, found, int(i), now)
        for i in found.quality.argsort(kind="stable")
        if doubted[i]
    ]
    too_few = {TOO_FEW: int((~known).sum())} if not known.all() else {}
    return LabelChecks(
        ok=int(known.sum()) - len(rows),
        flagged=len(rows),
        unchecked=labelled.unchecked | too_few,
        flags=rows_table("flags", rows),
        told_by=labelled.told_by,
        doubt=told,
    )


def _flag(labelled: Labelled, found: Suspects, i: int, now: datetime) -> dict[str, Any]:
    p, posterior = labelled.probabilities[i], found.noise.posterior[i]
    likeliest = sorted(range(len(p)), key=lambda k: -float(posterior[k]))[:_SHOWN]
    given = int(labelled.labels[i])
    named = dict.fromkeys([*likeliest, given])
    evidence = {
        "reference": f"{len(labelled)} labels, by models that did not train on this sample",
        "unit": "probability",
        "measure": "probability of the label",
        "rule": "another class is likelier: the threshold is the probability of that class",
        "images": [labelled.sample_ids[i]],
        "label": labelled.classes[given],
        "suggested": labelled.classes[int(found.suggested[i])],
        "probabilities": {labelled.classes[k]: round(float(p[k]), 4) for k in named},
        "posterior": {labelled.classes[k]: round(float(posterior[k]), 4) for k in named},
        "votes": dict(labelled.votes[i]),
        "holdout": bool(labelled.holdout[i]),
        "confident_learning": bool(found.confident_learning[i]),
        "told_by": labelled.told_by,
    }
    return {
        "subject": labelled.sample_ids[i],
        "subject_type": "sample",
        "stage": "monitor",
        "kind": KIND,
        "score": float(found.quality[i]),
        "threshold": float(found.rival[i]),
        "evidence": json.dumps(evidence, sort_keys=True, ensure_ascii=False),
        "flagged_at": now,
    }
