"""A budget of answers over rounds: all for new samples, or some for asking again.

Four people answer, who are wrong in half the given rate, the rate twice, and one and a half times
the rate. A round has 40 answers. New samples are those that the model is least sure of (the
engine's `uncertainty`, the same for all); who is asked about a sample has not answered it before. A
sample with several answers is trained on with what a loop makes of them by default; in a conflict
it is not trained on, and asked about again first. The model is logistic regression on the
embeddings, judged on clean labels of samples that nobody is asked about.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._label_noise import draw, mistaken
from visionloop.config import LoopConfig
from visionloop.labeling.deciding import decide_requests
from visionloop.labeling.provider import DONE
from visionloop.labeling.requests import TRAINING
from visionloop.labeling.trust.activelab import active_scores
from visionloop.labeling.trust.out_of_sample import cross_validate, fit_linear
from visionloop.labeling.trust.relabel import asked_again

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ARMS = ("all new", "ActiveLab", "random relabelling")
FIRST, BUDGET = 100, 40
SHARE = 0.5  # the most that asking again may take: the default of a loop
_PEOPLE = (0.5, 1.0, 1.0, 1.5)
_TEST = 0.33
_STRENGTH = 3.0


@dataclass
class World:
    """Samples, and people who take some for something else.

    Attributes:
        x: float32 [n, d].
        truth: int64 [n].
        test: Rows that accuracy is measured on; nobody is asked about them.
        said: What was answered: person by class, by row.
    """

    x: NDArray[np.float32]
    truth: Ints
    test: NDArray[np.intp]
    rate: float
    kind: str
    rng: np.random.Generator
    said: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [str(k) for k in range(int(self.truth.max()) + 1)]

    def ask(self, row: int) -> bool:
        """Ask somebody about a sample who has not answered it; return whether anybody is left."""
        own = self.said.setdefault(row, {})
        left = [i for i in range(len(_PEOPLE)) if f"p{i}" not in own]
        if not left:
            return False
        person = int(self.rng.choice(left))
        label = self.truth[row : row + 1]
        if self.rng.random() < self.rate * _PEOPLE[person]:
            label = mistaken(label, len(self.classes), self.kind, self.rng)
        own[f"p{person}"] = str(int(label[0]))
        return True


def accuracies(
    name: str, rate: float, kind: str, rounds: int, seed: int
) -> tuple[dict[str, list[float]], float]:
    """Return the accuracy after each round by arm, and the share that ActiveLab asked again.

    Args:
        name: The set of samples.
        rate: Share of the answers that are wrong.
        kind: Of the errors, see `benchmarks._label_noise.with_errors`.
        rounds: After the first labels.
        seed: Of all that is drawn.
    """
    curves, again = {}, [0] * rounds
    for arm in ARMS:
        world = _world(name, rate, kind, seed)
        curves[arm], asked = _curve(world, arm, rounds, again)
        if arm == "ActiveLab":
            again = asked
    return curves, sum(again) / (rounds * BUDGET)


def _world(name: str, rate: float, kind: str, seed: int) -> World:
    x, y = draw(name, seed)
    rng = np.random.default_rng([seed, 3])
    test = np.arange(len(y) - int(_TEST * len(y)), len(y))
    world = World(x, y, test, rate, kind, rng)
    for row in rng.choice(test[0], FIRST, replace=False):
        world.ask(int(row))
    return world


def _curve(world: World, arm: str, rounds: int, share: list[int]) -> tuple[list[float], list[int]]:
    accuracy, again = [], []
    for number in range(rounds + 1):
        rows, labels, conflicts = _labels(world)
        model = fit_linear(world.x[rows], labels, len(world.classes), _STRENGTH)
        right = model.probabilities(world.x[world.test]).argmax(axis=1) == world.truth[world.test]
        accuracy.append(float(right.mean()))
        if number == rounds:
            break
        left = BUDGET
        for row in conflicts[: int(SHARE * BUDGET)]:
            left -= world.ask(row)
        if arm == "ActiveLab":
            chosen = _by_activelab(world, rows, labels, left)
        elif arm == "random relabelling":
            number_again = min(max(share[number] - (BUDGET - left), 0), left)
            chosen = [int(r) for r in world.rng.choice(rows, number_again, replace=False)]
        else:
            chosen = []
        left -= sum(world.ask(row) for row in chosen)
        again.append(BUDGET - left)
        new = _uncertain(world, model.probabilities(world.x), left)
        for row in new:
            world.ask(row)
    return accuracy, again


def _labels(world: World) -> tuple[Ints, Ints, list[int]]:
    """Return the rows with a label, their labels, and the rows that people disagree about."""
    rows = sorted(world.said)
    requests = [
        {"sample_id": str(r), "purpose": TRAINING, "answers": len(world.said[r])} for r in rows
    ]
    answers = [
        {"sample_id": str(r), "annotator": name, "external_id": "", "state": DONE, "label": label}
        | {"boxes": None, "seconds": None, "updated_at": number}
        for r in rows
        for number, (name, label) in enumerate(world.said[r].items())
    ]
    loop = LoopConfig.model_validate({"lake": "lake"})
    found = decide_requests(requests, answers, loop, classes=world.classes)
    labels = {r: found[str(r)].label for r in rows}
    known = [r for r in rows if labels[r] is not None]
    conflicts = [r for r in rows if labels[r] is None and len(world.said[r]) < len(_PEOPLE)]
    given = np.array([int(labels[r] or 0) for r in known], dtype=np.int64)
    return np.array(known, dtype=np.int64), given, conflicts


def _by_activelab(world: World, rows: Ints, labels: Ints, budget: int) -> list[int]:
    told = cross_validate(world.x[rows], labels, len(world.classes))
    votes: list[Mapping[str, str]] = [world.said[int(r)] for r in rows]
    scores, scale = active_scores(votes, world.classes, told.linear)
    asked = np.array(sorted({*world.said, *world.test.tolist()}))
    others = np.setdiff1d(np.arange(len(world.x)), asked)
    new = np.sort(scale.unlabelled(told.predict(world.x[others])))
    chosen = asked_again(scores, new, budget, max(int(SHARE * BUDGET) - (BUDGET - budget), 0))
    return [int(r) for r in rows[chosen]]


def _uncertain(world: World, probabilities: Floats, number: int) -> list[int]:
    from visionloop.selection.config import parse_selection_config
    from visionloop.selection.engine import select
    from visionloop.selection.pool import Pool, Reference

    if number < 1:
        return []
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(world.x))]
    place = {name: i for i, name in enumerate(names)}
    gone = {*world.said, *world.test.tolist()}
    config: dict[str, Any] = {
        "strategy": "uncertainty",
        "random_share": 0.0,
        "duplicate_distance": 0.0,
        "space": "base",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picked = select(
            Pool.build(
                names,
                embeddings={"base": world.x},
                probabilities=probabilities.astype(np.float32),
                classes=world.classes,
            ),
            parse_selection_config(config, where="benchmark"),
            number,
            labelled=Reference(),
            taken={names[i] for i in gone},
            n_classes=len(world.classes),
            seed=0,
            at_most=True,
        )
    return [place[name] for name in picked.sample_ids]
