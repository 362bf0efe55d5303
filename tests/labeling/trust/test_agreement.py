"""Agreement: against scikit-learn, Fleiss' own example, and what intervals promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from visionloop.labeling.provider import Box
from visionloop.labeling.trust.agreement import (
    ENOUGH,
    Agreement,
    agreement_of,
    box_agreement,
    cohen_kappa,
    fleiss_kappa,
)

# Fleiss 1971 as worked through in Wikipedia's article on the kappa: 10 subjects, 14 raters.
PUBLISHED = [
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
]


def value(found: Agreement) -> float:
    assert found.value is not None
    assert found.low is not None and found.high is not None
    assert found.low <= found.value <= found.high
    return found.value


def rated(counts: list[tuple[int, ...]]) -> list[list[str]]:
    return [[str(k) for k, n in enumerate(row) for _ in range(n)] for row in counts]


def noisy(rng: np.random.Generator, truth: np.ndarray, wrong: float) -> list[str]:
    drawn = np.where(rng.random(len(truth)) < wrong, rng.integers(0, 4, len(truth)), truth)
    return [str(x) for x in drawn]


@pytest.mark.parametrize("seed", range(5))
def test_cohens_kappa_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 60)
    one, other = noisy(rng, truth, 0.3), noisy(rng, truth, 0.5)
    found = cohen_kappa(list(zip(one, other, strict=True)))
    assert value(found) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
    assert found.enough and found.n == 60


def test_the_interval_of_cohens_kappa_holds_the_truth_in_95_of_100_draws() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 200_000)
    whole = cohen_kappa_score(noisy(rng, truth, 0.3), noisy(rng, truth, 0.5))
    held = 0
    for _ in range(400):
        t = rng.integers(0, 4, 150)
        found = cohen_kappa(list(zip(noisy(rng, t, 0.3), noisy(rng, t, 0.5), strict=True)))
        held += value(found) > -1 and found.low <= whole <= found.high  # type: ignore[operator]
    assert 0.92 <= held / 400 <= 0.98


def test_fleiss_kappa_is_the_published_one() -> None:
    assert value(fleiss_kappa(rated(PUBLISHED))) == pytest.approx(0.20993, abs=1e-4)


def test_fleiss_kappa_takes_answers_that_are_missing() -> None:
    whole = rated(PUBLISHED)
    with_gaps = [row if i % 2 else row[:-3] for i, row in enumerate(whole)] + [["1"], []]
    found = fleiss_kappa(with_gaps)
    assert found.n == 10  # samples that nobody or one person answered tell nothing of agreement
    assert value(found) == pytest.approx(value(fleiss_kappa(whole)), abs=0.1)
    # By hand: pairs agree in 1, 1/3 and 0; the mean share of one class is (1 + 1/3 + 1/2) / 3.
    found = fleiss_kappa([["a", "a", "a"], ["a", "b", "b"], ["a", "b"]])
    chance = (11 / 18) ** 2 + (7 / 18) ** 2
    assert value(found) == pytest.approx(((1 + 1 / 3 + 0) / 3 - chance) / (1 - chance))


def test_few_samples_are_said_to_be_too_few() -> None:
    found = cohen_kappa([("a", "b"), ("a", "a"), ("b", "b")])
    assert not found.enough and found.n == 3 < ENOUGH
    assert not fleiss_kappa(rated(PUBLISHED)).enough


@pytest.mark.parametrize("pairs", [[], [("a", "a")] * 30])
def test_agreement_on_one_class_alone_is_not_defined(pairs: list[tuple[str, str]]) -> None:
    assert cohen_kappa(pairs).value is None
    assert fleiss_kappa([list(pair) for pair in pairs]).value is None


def test_people_who_agree_fully_have_a_kappa_of_one() -> None:
    pairs = [("a", "a"), ("b", "b")] * 20
    assert value(cohen_kappa(pairs)) == 1
    assert value(fleiss_kappa(pairs)) == 1


@pytest.mark.parametrize("n", [20, 200])
def test_full_agreement_on_a_sample_is_no_certainty(n: int) -> None:
    pairs = [("a", "a"), ("b", "b")] * (n // 2)
    # Clopper and Pearson: of n equal answers out of n; chance makes half of the pairs equal.
    share = stats.beta.ppf(0.025, n, 1)
    for found in (cohen_kappa(pairs), fleiss_kappa(pairs)):
        assert found.high == 1 and found.low == pytest.approx((share - 0.5) / 0.5)
    for found in box_agreement([((box(0),), (box(0),))] * n, 0.5):
        assert found.high == found.value == 1 and found.low == pytest.approx(share)


def box(x: float, label: str = "cat", size: float = 10) -> Box:
    return Box(x, 0, x + size, 10, label)


def test_boxes_agree_by_their_overlap_and_class() -> None:
    # Overlaps 1 and 9/11; a class that differs; a box that one alone has.
    one = [box(0), box(50), box(100)]
    other = [box(0), box(51), box(100, "dog"), box(200)]
    iou, f1 = box_agreement([(one, other)], 0.5)
    assert value(iou) == pytest.approx((1 + 9 / 11 + 1) / 3)
    assert value(f1) == pytest.approx(2 * 2 / 7)
    assert not iou.enough


def test_boxes_match_by_the_best_assignment_and_not_greedily() -> None:
    # The best single pair (first with second) would leave the others without a partner.
    one, other = [box(0), box(4)], [box(3), box(7.5)]
    iou, _ = box_agreement([(one, other)], 0.3)
    assert value(iou) == pytest.approx(((7 / 13) + (6.5 / 13.5)) / 2)


def test_two_people_who_see_nothing_agree() -> None:
    iou, f1 = box_agreement([((), ())] * 25, 0.5)
    assert iou.value is None
    assert value(f1) == 1 and f1.enough


def test_all_measures_are_told_together_and_each_pair_of_people_has_its_own() -> None:
    labels = {
        "a": {"ann": "cat", "bob": "cat", "eve": "dog"},
        "b": {"ann": "dog", "bob": "dog"},
        "alone": {"ann": "dog"},
    }
    boxes = {"a": {"ann": (box(0),), "bob": (box(0),)}, "alone": {"eve": ()}}
    told = json.loads(json.dumps(agreement_of(labels, boxes, 0.5), allow_nan=False))
    assert [one["annotators"] for one in told["cohen_kappa"]] == [
        ["ann", "bob"],
        ["ann", "eve"],
        ["bob", "eve"],
    ]
    assert told["cohen_kappa"][0]["value"] == 1 and told["cohen_kappa"][0]["n"] == 2
    assert told["fleiss_kappa"]["n"] == 2
    assert told["mean_iou"]["value"] == told["box_f1"]["value"] == 1
