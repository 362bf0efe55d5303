"""Suspects: errors are found, sound labels are left alone, by models that did not see them."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from tests.labeling.trust.blobs import blobs
from visionloop.demo.pictures import load_digits
from visionloop.labeling.trust.noise import noise_of
from visionloop.labeling.trust.out_of_sample import cross_validate, neighbour_labels
from visionloop.labeling.trust.suspects import find_suspects


def f1(flagged: np.ndarray, wrong: np.ndarray) -> float:
    return float(2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum()))


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_most_errors_are_found_and_little_else(rate: float) -> None:
    made = blobs(300, rate)
    told = cross_validate(made.x, made.given, 3)
    found = find_suspects(made.given, told.probabilities)
    assert f1(found.flagged, made.wrong) > 0.8
    right = found.suggested[found.flagged & made.wrong] == made.truth[found.flagged & made.wrong]
    assert right.mean() > 0.9
    assert found.noise.rate == pytest.approx(rate, abs=0.05)


def test_of_digits_more_errors_are_found_than_by_cleanlabs_defaults() -> None:
    # A short form of `python -m benchmarks.labels`, on the pixels.
    pixels, truth = load_digits()
    x = pixels[:600].reshape(600, 64).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    given = truth[:600].copy()
    flipped = rng.choice(600, 90, replace=False)
    given[flipped] = (given[flipped] + rng.integers(1, 10, 90)) % 10
    wrong = given != truth[:600]
    told = cross_validate(x, given, 10)
    folds = cross_val_predict(LogisticRegression(), x, given, cv=5, method="predict_proba")
    ours = f1(find_suspects(given, told.probabilities).flagged, wrong)
    assert ours > 0.9
    assert ours > f1(find_label_issues(given, folds), wrong)


def test_where_nothing_is_wrong_next_to_nothing_is_flagged() -> None:
    made = blobs(300, 0.0, spread=0.2)
    told = cross_validate(made.x, made.given, 3)
    assert find_suspects(made.given, told.probabilities).flagged.sum() <= 2


def test_a_flag_says_by_how_much_another_class_is_likelier() -> None:
    made = blobs()
    told = cross_validate(made.x, made.given, 3)
    found = find_suspects(made.given, told.probabilities)
    assert ((found.quality < found.rival) == found.flagged).all()
    assert ((found.quality >= 0) & (found.rival <= 1)).all()


def test_no_sample_is_judged_by_what_trained_on_it() -> None:
    # Labels of noise cannot be told by models that did not see them; in sample they could.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 200)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = rng.integers(0, 2, 80)
    told = cross_validate(x, y, 2)
    assert (told.probabilities.argmax(axis=1) == y).mean() < 0.7


def test_a_group_is_never_on_both_sides() -> None:
    # Pairs of equal pictures with a label of noise: whoever sees one knows the other.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(60, 50)), 2, axis=0).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.repeat(rng.integers(0, 2, 60), 2)
    groups = [str(i // 2) for i in range(120)]
    apart, together = (cross_validate(x, y, 2, groups=g) for g in (groups, None))
    assert (together.probabilities.argmax(axis=1) == y).mean() > 0.9
    assert (apart.probabilities.argmax(axis=1) == y).mean() < 0.7


def test_neighbours_of_the_same_group_are_not_asked() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    nearest = neighbour_labels(x, y, 2, [str(i // 2) for i in range(8)])
    assert nearest[0][0] == pytest.approx([2 / 5, 3 / 5], abs=0.21)  # 2 and 3, or of the others
    alone = neighbour_labels(x, y, 2, ["one"] * 8)
    assert (alone[0] == 0.5).all()


def test_classes_that_a_fold_hardly_saw_are_told() -> None:
    made = blobs()
    y = made.given.copy()
    y[y == 2] = 0
    y[:3] = 2  # three labels in all: no fold trains on four of them
    told = cross_validate(made.x, y, 3)
    assert not told.seen[:3].any() and told.seen[3:].all()


def test_the_same_labels_are_judged_the_same() -> None:
    made = blobs()
    one, other = (cross_validate(made.x, made.given, 3) for _ in range(2))
    assert (one.probabilities == other.probabilities).all()


def test_the_folds_models_predict_what_lies_outside() -> None:
    made = blobs(300, 0.1)
    told = cross_validate(made.x[:200], made.given[:200], 3)
    p = told.predict(made.x[200:])
    assert p.sum(axis=1) == pytest.approx(1)
    assert (p.argmax(axis=1) == made.truth[200:]).mean() > 0.9


def test_two_classes_are_judged_too() -> None:
    made = blobs(200, 0.1)
    keep = (made.truth < 2) & (made.given < 2)
    told = cross_validate(made.x[keep], made.given[keep], 2)
    found = find_suspects(made.given[keep], told.probabilities)
    assert f1(found.flagged, made.wrong[keep]) > 0.8


def test_the_channel_learns_who_is_mistaken_for_whom() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    given = np.where((truth == 0) & (rng.random(600) < 0.3), 1, truth)
    p = np.full((600, 3), 0.1) + 0.7 * np.eye(3)[truth]
    found = noise_of(p, np.eye(3, dtype=int)[given])
    assert found.channel[0, 1] == pytest.approx(0.3, abs=0.05)
    assert found.channel[1, 0] < 0.05 and found.channel[2, 2] > 0.95


def test_a_label_that_several_people_gave_is_doubted_less() -> None:
    made = blobs()
    told = cross_validate(made.x, made.given, 3)
    votes = np.eye(3, dtype=np.int64)[made.given]
    once = find_suspects(made.given, told.probabilities, votes)
    doubted = int(np.flatnonzero(once.flagged)[0])
    votes[doubted] *= 4
    again = find_suspects(made.given, told.probabilities, votes)
    assert again.quality[doubted] > once.quality[doubted]
