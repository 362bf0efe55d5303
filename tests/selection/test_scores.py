"""Uncertainty scores: hand-computed cases, and what must hold for every distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from visionloop.errors import InputError
from visionloop.selection.scores import entropy, least_confidence, margin, uncertainties

SCORES = [least_confidence, margin, entropy]
Score = Callable[[np.ndarray], np.ndarray]


@st.composite
def distributions(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 12)))
    raw = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1)))
    raw = raw + 1e-9
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


def test_scores_equal_hand_computed_cases() -> None:
    p = np.array([[0.7, 0.2, 0.1]])
    assert least_confidence(p)[0] == pytest.approx(0.3 * 3 / 2)
    assert margin(p)[0] == pytest.approx(0.5)
    nats = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    assert entropy(p)[0] == pytest.approx(nats / np.log(3))


@pytest.mark.parametrize("score", SCORES)
@given(p=distributions())
def test_every_score_lies_in_the_unit_interval_and_keeps_the_number_of_images(
    score: Score, p: np.ndarray
) -> None:
    values = score(p)
    assert values.shape == (len(p),)
    assert values.dtype == np.float64
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("score", SCORES)
@given(p=distributions(), seed=st.integers(0, 100))
def test_the_order_of_the_classes_does_not_matter(score: Score, p: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(p.shape[1])
    np.testing.assert_allclose(score(p), score(p[:, shuffled]), atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_uniform_is_one_and_certain_is_zero(score: Score, classes: int) -> None:
    uniform = np.full((1, classes), 1 / classes, dtype=np.float32)
    certain = np.eye(classes, dtype=np.float32)[:1]
    assert score(uniform)[0] == pytest.approx(1.0, abs=1e-5)
    assert score(certain)[0] == 0.0


@pytest.mark.parametrize("score", SCORES)
def test_one_class_is_always_certain(score: Score) -> None:
    assert score(np.ones((3, 1))).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("score", SCORES)
def test_an_image_without_probabilities_is_unknown_and_not_certain(score: Score) -> None:
    values = score(np.array([[np.nan, np.nan], [0.5, 0.5]]))
    assert np.isnan(values[0])
    assert values[1] == pytest.approx(1.0)


@pytest.mark.parametrize("score", SCORES)
def test_two_classes_rank_alike_under_every_score(score: Score) -> None:
    p1 = np.linspace(0.5, 1.0, 20)
    values = score(np.stack([p1, 1 - p1], axis=1))
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("score", SCORES)
@given(n=st.integers(0, 0), classes=st.integers(1, 5))
def test_no_images_give_no_scores(score: Score, n: int, classes: int) -> None:
    assert score(np.zeros((n, classes))).shape == (0,)


@pytest.mark.parametrize("score", SCORES)
def test_a_vector_instead_of_a_matrix_is_refused(score: Score) -> None:
    with pytest.raises(InputError, match="shape"):
        score(np.array([0.5, 0.5]))


@pytest.mark.parametrize(("n", "classes"), [(0, 3), (1, 2), (5000, 10), (40, 1000), (3, 40_000)])
def test_all_scores_at_once_are_those_one_by_one(n: int, classes: int) -> None:
    p = np.random.default_rng(0).dirichlet(np.full(classes, 0.1), n).astype(np.float32)
    if n:
        p[0] = np.eye(classes)[1]
        p[-1] = 1 / classes
        p[n // 2, 1] = np.nan
    found = uncertainties(p)
    for name, score in {
        "least_confidence": least_confidence, "margin": margin, "entropy": entropy
    }.items():  # fmt: skip
        assert np.allclose(found[name], score(p), rtol=0, atol=1e-12, equal_nan=True), name


def test_scores_at_once_need_a_matrix_of_two_classes() -> None:
    for wrong in (np.full(3, 1 / 3), np.ones((3, 1))):
        with pytest.raises(InputError, match="two classes"):
            uncertainties(wrong)
