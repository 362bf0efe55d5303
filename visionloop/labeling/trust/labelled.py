"""People's labels of a lake, and what models that did not train on them say of the samples.

Where such models come from:

- **Embeddings.** Logistic regression and nearest neighbours on the frozen base space,
  cross-validated over the labelled pool by holdout group; see
  `visionloop.labeling.trust.out_of_sample`. There as soon as there are some labels, of every
  embedded sample.
- **Earlier models of the loop.** A sample was predicted by the models of the rounds before it was
  labelled, and those of the table `training_sets` that did not train on it: the newest one is
  asked. It covers part of the samples, and an early model knows little.

The first is always used; the second is mixed in, where it covers a sample, with the weight with
which both together tell the given labels best. The holdout is judged by what was fitted on the
pool alone, so that nothing of it reaches the pool's labels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionloop.labeling.answers import MODEL, is_collected, latest_answers, latest_boxes
from visionloop.labeling.predicted import unseen
from visionloop.labeling.provider import DONE
from visionloop.labeling.trust.out_of_sample import (
    LEAST_LABELS,
    NEAREST,
    SEEN,
    OutOfSample,
    cross_validate,
    neighbour_labels,
)
from visionloop.lake import parts
from visionloop.selection.in_service import model_in_service

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Why a label is not judged, where others ask for the reason.
AUTOMATIC, OBJECTS = "automatic", "objects"
SMALL_POOL = "while the pool has too few labels"
_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
# Samples that earlier models must cover before their word is compared with the embeddings'.
_COMPARABLE = 30


@dataclass(frozen=True)
class Labelled:
    """Labelled samples that can be judged, and those that cannot.

    Attributes:
        sample_ids: n samples, ascending.
        classes: C classes, in the order of the probabilities.
        labels: int64 [n], the labels that count.
        votes: By sample, the label that each person gave; more than one where several answered.
        holdout: bool [n].
        probabilities: float64 [n, C], of models that did not train on the sample.
        linear: float64 [n, C], of the regression alone: comparable with `models.predict`.
        models: What was fitted; null where too little is labelled.
        told_by: For a person: what said it, and how much each expert counts.
        unchecked: How many labelled samples cannot be judged, by reason.
    """

    sample_ids: list[str]
    classes: list[str]
    labels: Ints
    votes: list[Mapping[str, str]]
    holdout: NDArray[np.bool_]
    probabilities: Floats
    linear: Floats
    models: OutOfSample | None
    told_by: dict[str, Any] = field(default_factory=dict)
    unchecked: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def counts(self) -> Ints:
        """Return how many people gave each label, int64 [n, C]."""
        place = {name: k for k, name in enumerate(self.classes)}
        result = np.zeros((len(self), len(self.classes)), dtype=np.int64)
        for i, own in enumerate(self.votes):
            for label in own.values():
                result[i, place[label]] += 1
        return result


def read_labelled(lake: Lake, loop: LoopConfig, space: str, version: str = "") -> Labelled:
    """Read the labels that people gave, and judge the samples without them.

    Automatic labels are audited instead, and objects are not judged here: both are counted as
    unchecked.

    Args:
        lake: The lake.
        loop: The loop's configuration.
        space: The embedding space; empty where there is none.
        version: Lake version; empty for the newest.

    Cost: see `cross_validate`; memory: the embeddings of the labelled samples.
    """
    rows = lake.read("labels", version=version or None).to_pylist()
    answers = {
        sample: row
        for sample, row in latest_answers(rows, loop.task).items()
        if row["label"] is not None
    }
    unchecked: Counter[str] = Counter()
    unchecked[OBJECTS] = len(latest_boxes(rows).keys() - answers.keys())
    people = {sample: row for sample, row in answers.items() if row["origin"] != MODEL}
    unchecked[AUTOMATIC] = len(answers) - len(people)
    models = lake.read("experiments", where="arm == 'loop'", version=version or None).to_pylist()
    classes = _classes(loop, models, people)
    strange = [sample for sample, row in people.items() if row["label"] not in classes]
    unchecked["of a class that the loop lacks"] = len(strange)
    known = people.keys() - set(strange)
    samples = {
        row["sample_id"]: row
        for row in parts.rows_of(
            lake,
            "samples",
            known,
            columns=["sample_id", "split", "group_key"],
            version=version,
        ).to_pylist()
        if row["split"] in ("pool", "holdout")
    }
    unchecked["neither in the pool nor in the holdout"] = len(known) - len(samples)
    ids, x = _embeddings(lake, space, sorted(samples), version)
    unchecked["without an embedding"] = len(samples) - len(ids)
    holdout = np.array([samples[s]["split"] == "holdout" for s in ids], dtype=np.bool_)
    labels = np.array([classes.index(people[s]["label"]) for s in ids], dtype=np.int64)
    pool = labels[~holdout]
    if len(pool) < LEAST_LABELS or (np.bincount(pool, minlength=2) > SEEN).sum() < 2:
        unchecked[SMALL_POOL] = len(ids)
        none = np.zeros((0, len(classes)))
        return Labelled(
            [], classes, labels[:0], [], holdout[:0], none, none, None, {}, _not_zero(unchecked)
        )
    groups = [samples[s]["group_key"] or s for s in ids]
    p, linear, seen, found = _of_embeddings(x, labels, holdout, groups, len(classes))
    told: dict[str, Any] = {
        "embeddings": space,
        "regularisation": found.strength,
        "neighbours": found.neighbours,
        "neighbours_weight": found.share,
    }
    earlier = np.full_like(p, np.nan)
    place = {sample: i for i, sample in enumerate(ids)}
    for sample, said in unseen(lake, ids, classes, version).items():
        earlier[place[sample]] = said
    told |= _mix_in(p, labels, earlier)
    unchecked["of a class with too few labels"] = int((~seen).sum())
    votes = _votes(lake, rows, people, ids, set(classes), version)
    keep = np.flatnonzero(seen)
    return Labelled(
        [ids[i] for i in keep],
        classes,
        labels[keep],
        [votes[i] for i in keep],
        holdout[keep],
        p[keep],
        linear[keep],
        found,
        told,
        _not_zero(unchecked),
    )


def _embeddings(
    lake: Lake, space: str, ids: list[str], version: str
) -> tuple[list[str], NDArray[np.float32]]:
    if not space or not ids:
        return [], np.zeros((0, 1), np.float32)
    found, x = lake.embeddings(space, ids, version=version or None)
    sound = np.isfinite(x).all(axis=1)
    return [s for s, fine in zip(found, sound, strict=True) if fine], x[sound]


def _of_embeddings(
    x: NDArray[np.float32],
    labels: Ints,
    holdout: NDArray[np.bool_],
    groups: Sequence[str],
    classes: int,
) -> tuple[Floats, Floats, NDArray[np.bool_], OutOfSample]:
    """Return what both experts and the regression alone say, which classes they knew, and them."""
    pool, held = np.flatnonzero(~holdout), np.flatnonzero(holdout)
    found = cross_validate(x[pool], labels[pool], classes, groups=[groups[int(i)] for i in pool])
    p, linear = np.zeros((len(x), classes)), np.zeros((len(x), classes))
    seen = np.zeros(len(x), dtype=np.bool_)
    p[pool], linear[pool], seen[pool] = found.probabilities, found.linear, found.seen
    if len(held):
        linear[held] = found.predict(x[held])
        p[held] = linear[held]
        if found.share:
            near = neighbour_labels(x[pool], labels[pool], classes, of=x[held])
            by_labels = near[NEAREST.index(found.neighbours)]
            p[held] = (1 - found.share) * linear[held] + found.share * by_labels
        seen[held] = np.bincount(labels[pool], minlength=classes)[labels[held]] >= SEEN
    return p, linear, seen, found


def _not_zero(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: n for reason, n in counts.items() if n}


def _classes(
    loop: LoopConfig, models: Sequence[dict[str, Any]], people: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    model = model_in_service(models)
    frozen = list(model["classes"] or []) if model else []
    return list(loop.classes) or frozen or sorted({row["label"] for row in people.values()})


def _votes(
    lake: Lake,
    rows: Sequence[Mapping[str, Any]],
    people: Mapping[str, Mapping[str, Any]],
    ids: Sequence[str],
    classes: set[str],
    version: str,
) -> list[Mapping[str, str]]:
    """Return what each person said of each sample: asked, or as an import tells."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    wanted = set(ids)
    # What was not asked for counts as the answer of whoever it comes from.
    for row in sorted(rows, key=lambda row: row["created_at"]):
        plain = row["label"] in classes and row["origin"] != MODEL and not is_collected(row)
        if plain and row["sample_id"] in wanted:
            said[row["sample_id"]][str(row["annotator"] or row["origin"])] = row["label"]
    asked = parts.rows_of(
        lake,
        "annotations",
        wanted,
        columns=["sample_id", "annotator", "external_id", "state", "label", "updated_at"],
        version=version,
    ).to_pylist()
    for row in sorted(asked, key=lambda row: row["updated_at"]):
        if row["state"] == DONE and row["label"] in classes:
            name = str(row["annotator"] or row["external_id"])
            said[row["sample_id"]][name] = row["label"]
    result: list[Mapping[str, str]] = []
    for sample in ids:
        own, row = said[sample], people[sample]
        if row["label"] not in own.values():
            own[str(row["annotator"] or row["origin"])] = row["label"]
        result.append(own)
    return result


def _mix_in(p: Floats, labels: Ints, earlier: Floats) -> dict[str, Any]:
    """Let earlier models have their say in `p`, where they tell the labels better than without."""
    covered = np.flatnonzero(np.isfinite(earlier).all(axis=1))
    if len(covered) < _COMPARABLE:
        return {"earlier_models": len(covered), "earlier_models_weight": 0.0}
    given = labels[covered]

    def loss(mixed: Floats) -> float:
        chosen = mixed[np.arange(len(given)), given]
        return float(-np.log(np.clip(chosen, 1e-3, 1.0)).mean())

    ours, theirs = p[covered], earlier[covered]
    best = (loss(ours), 0.0)
    for weight in _WEIGHTS:
        best = min(best, (loss((1 - weight) * ours + weight * theirs), weight))
    p[covered] = (1 - best[1]) * ours + best[1] * theirs
    return {"earlier_models": len(covered), "earlier_models_weight": best[1]}
