"""ActiveLab: the closed form is cleanlab's, and a million samples cost seconds."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from cleanlab.multiannotator import get_active_learning_scores

from visionloop.labeling.trust.activelab import active_scores
from visionloop.labeling.trust.crowdlab import ENOUGH

CLASSES = ["a", "b", "c", "d"]


def drawn(
    n: int, people: int, answers: float, seed: int = 0
) -> tuple[list[dict[str, str]], np.ndarray, np.ndarray]:
    """Return answers of people who are right four times of five, and a model's probabilities."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    votes: list[dict[str, str]] = []
    given = np.full((n, people), np.nan)
    for i in range(n):
        own = [j for j in range(people) if rng.random() < answers] or [int(rng.integers(people))]
        for j in own:
            given[i, j] = truth[i] if rng.random() < 0.8 else rng.integers(4)
        votes.append({f"p{j}": CLASSES[int(given[i, j])] for j in own})
    p = np.clip(0.6 * np.eye(4)[truth] + rng.dirichlet(np.ones(4), n) * 0.6, 1e-3, None)
    return votes, given, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("people,answers", [(3, 0.6), (5, 0.3), (1, 1.0), (4, 0.0)])
def test_scores_are_cleanlabs(people: int, answers: float) -> None:
    votes, given, p = drawn(150, people, answers)
    _, _, unlabelled = drawn(400, people, answers, seed=9)
    wanted, wanted_new = get_active_learning_scores(given, p, unlabelled)
    scores, scale = active_scores(votes, CLASSES, p)
    assert scores == pytest.approx(wanted, abs=1e-6)
    assert scale.unlabelled(unlabelled) == pytest.approx(wanted_new, abs=1e-6)


def test_few_second_answers_do_not_move_the_scale() -> None:
    votes, _, p = drawn(300, 1, 1.0)
    alone, scale = active_scores(votes, CLASSES, p)
    first = votes[0]["p0"]
    for label in CLASSES:
        more = [{**votes[0], "p1": label}, *votes[1:]]
        scores, moved = active_scores(more, CLASSES, p)
        assert moved == scale
        assert scores[1:] == pytest.approx(alone[1:])
        if label == first:
            assert scores[0] > alone[0]  # a second one agrees: it is less worth asking about
    twice = [own | {"p1": own["p0"]} for own in votes[: ENOUGH - 1]]
    assert active_scores([*twice, *votes[ENOUGH - 1 :]], CLASSES, p)[1] == scale
    twice.append(votes[ENOUGH - 1] | {"p1": "a"})
    assert active_scores([*twice, *votes[ENOUGH:]], CLASSES, p)[1] != scale


def test_nothing_is_printed_of_annotators_without_company(
    capsys: pytest.CaptureFixture[str],
) -> None:
    votes, _, p = drawn(60, 3, 0.6)
    active_scores([*votes[:-1], {"alone": "a"}], CLASSES, p)
    assert capsys.readouterr() == ("", "")


def test_probabilities_of_zero_and_one_are_scored() -> None:
    votes, given, p = drawn(100, 3, 0.6)
    sure = np.eye(4)
    _, wanted = get_active_learning_scores(given, p, sure)
    assert active_scores(votes, CLASSES, p)[1].unlabelled(sure) == pytest.approx(wanted, abs=1e-6)


def test_a_million_unlabelled_are_scored_in_seconds_and_a_block_at_a_time() -> None:
    votes, _, p = drawn(500, 3, 0.6)
    _, scale = active_scores(votes, CLASSES, p)
    block = np.random.default_rng(0).dirichlet(np.ones(10), 50_000)
    tracemalloc.start()
    began = time.process_time()
    for _ in range(20):
        scale.unlabelled(block)
    took = time.process_time() - began
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 10
    assert most < 50 * 2**20
