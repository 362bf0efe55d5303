"""Accuracy from confidences: calibrated, with an honest interval, and refused off the holdout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from visionloop.monitoring.calibrating import fit_calibration, isotonic
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.energy import energy_test
from visionloop.monitoring.estimation import Answers, Estimate, estimate_accuracy
from visionloop.monitoring.region import place_probabilities

THRESHOLDS = MonitoringConfig()
CLASSES = tuple("0123456789")
Pixels = NDArray[np.float32]


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def once(window: NDArray[Any]) -> NDArray[np.intp]:
    return np.ones(len(window), np.intp)


def drawn(seed: int, n: int, *, sharpness: float = 1.0) -> tuple[Any, NDArray[np.int64]]:
    """Return probabilities [n, 4] of a model, and classes that they are calibrated for at 1."""
    draw = rng(seed)
    p = draw.dirichlet(np.full(4, 0.25), n)
    truth = np.array([draw.choice(4, p=row) for row in p])
    said = np.maximum(p, 1e-6) ** sharpness
    return (said / said.sum(axis=1, keepdims=True)).astype(np.float32), truth


def test_an_overconfident_model_is_cooled_to_what_it_is_worth() -> None:
    said, truth = drawn(0, 1500, sharpness=3.0)
    fitted = fit_calibration(said, truth)
    assert fitted.method == "temperature"
    assert fitted.temperature == pytest.approx(3.0, rel=0.2)
    assert fitted.brier["temperature"] < fitted.brier["none"] - 0.01
    fresh, answers = drawn(1, 4000, sharpness=3.0)
    right = (fresh.argmax(axis=1) == answers).mean()
    assert fitted.confidences(fresh).mean() == pytest.approx(right, abs=0.03)
    assert fresh.max(axis=1).mean() > right + 0.06


def test_confidences_that_no_temperature_mends_are_stepped() -> None:
    draw = rng(3)
    top = draw.uniform(0.5, 1, 3000)
    right = draw.random(3000) < np.where(top < 0.8, 0.9, 0.97)
    said = np.column_stack([top, 1 - top]).astype(np.float32)
    fitted = fit_calibration(said, np.where(right, 0, 1))
    assert fitted.method == "isotonic"
    assert fitted.confidences(said).mean() == pytest.approx(right.mean(), abs=0.01)


def test_a_calibrated_model_is_left_nearly_as_it_is() -> None:
    said, truth = drawn(5, 1500)
    fitted = fit_calibration(said, truth)
    fresh, _ = drawn(6, 1000)
    assert fitted.confidences(fresh) == pytest.approx(fresh.max(axis=1), abs=0.06)


def test_the_isotonic_curve_is_that_of_scikit_learn() -> None:
    peer = pytest.importorskip("sklearn.isotonic")
    for seed in range(5):
        draw = rng(seed)
        x = draw.uniform(0, 1, 200).round(2)
        y = draw.random(200) < x
        knots, values = isotonic(x, y)
        theirs = peer.IsotonicRegression(out_of_bounds="clip").fit(x, y)
        at = np.linspace(0, 1, 501)
        assert np.interp(at, knots, values) == pytest.approx(theirs.predict(at), abs=1e-9)


def test_the_interval_holds_what_comes_true() -> None:
    inside, n = 0, 25
    for seed in range(n):
        known, truth = drawn(2 * seed, 300, sharpness=2.0)
        window, answers = drawn(2 * seed + 1, 300, sharpness=2.0)
        found = estimate_accuracy(Answers(known), truth, Answers(window), list("abcd"), THRESHOLDS)
        said = found[""]
        right = (window.argmax(axis=1) == answers).mean()
        inside += said.low <= right <= said.high
    # 95% are meant; fewer than 21 of 25 come with a probability of 0.007.
    assert inside >= 21


def test_each_predicted_class_has_its_own_accuracy() -> None:
    known, truth = drawn(1, 2000, sharpness=2.0)
    window, answers = drawn(2, 2000, sharpness=2.0)
    found = estimate_accuracy(Answers(known), truth, Answers(window), list("abcd"), THRESHOLDS)
    predicted = window.argmax(axis=1)
    for number, name in enumerate("abcd"):
        mine = predicted == number
        assert found[name].n == mine.sum()
        assert found[name].value == pytest.approx((answers[mine] == number).mean(), abs=0.06)
    weighted = sum(found[name].value * found[name].n for name in "abcd") / len(window)
    assert weighted == pytest.approx(found[""].value)


def test_a_class_that_the_model_does_not_know_counts_as_wrong() -> None:
    known, truth = drawn(1, 600)
    truth[:200] = -1
    window, _ = drawn(2, 600)
    plain = estimate_accuracy(Answers(known), truth, Answers(window), list("abcd"), THRESHOLDS)
    right = (known.argmax(axis=1) == truth).mean()
    assert plain[""].value == pytest.approx(right, abs=0.05)


@pytest.mark.parametrize(
    ("n_window", "n_holdout", "why"),
    [(99, 500, "99 inferences, 100 are needed"), (500, 99, "99 labelled samples of the holdout")],
)
def test_too_few_to_say_is_refused(n_window: int, n_holdout: int, why: str) -> None:
    known, truth = drawn(1, n_holdout)
    window, _ = drawn(2, n_window)
    found = estimate_accuracy(Answers(known), truth, Answers(window), list("abcd"), THRESHOLDS)
    assert list(found) == [""]
    assert found[""].state == "refused" and why in found[""].reason
    assert np.isnan(found[""].value)


@cache
def digits() -> tuple[Any, ...]:
    """Return a model of the digits, its holdout, and what nobody has shown it yet."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    order = rng(0).permutation(len(y))
    learn, held, rest = order[:400], order[400:900], order[900:]
    model = LogisticRegression(C=10, max_iter=1000).fit(x[learn], y[learn])
    return model, (x[held], y[held]), (x[rest], y[rest])


def noisy(amount: float) -> Callable[[Pixels, NDArray[np.int64]], Pixels]:
    def change(x: Pixels, y: NDArray[np.int64]) -> Pixels:
        return np.clip(x + rng(1).normal(0, amount, x.shape), 0, 1).astype(np.float32)

    return change


def few_classes(x: Pixels, y: NDArray[np.int64]) -> Pixels:
    return np.asarray(x[np.isin(y, [1, 8, 9]) | (rng(2).random(len(y)) < 0.2)])


def deployed(change: Callable[..., Pixels], *, embedded: bool) -> Estimate:
    model, (x, y), (fresh, truth) = digits()

    def answers(pixels: Pixels) -> Answers:
        lengths = np.linalg.norm(pixels, axis=1, keepdims=True)
        vectors = (pixels / lengths).astype(np.float32) if embedded else None
        return Answers(model.predict_proba(pixels).astype(np.float32), vectors)

    return estimate_accuracy(answers(x), y, answers(change(fresh, truth)), CLASSES, THRESHOLDS)[""]


@pytest.mark.parametrize("embedded", [True, False])
def test_traffic_like_the_holdout_is_answered(embedded: bool) -> None:
    model, _, (fresh, truth) = digits()
    said = deployed(lambda x, y: x, embedded=embedded)
    accuracy = model.score(fresh, truth)
    assert said.state == "answered"
    assert said.low <= accuracy <= said.high
    assert said.evidence["judged_by"] == ("embeddings" if embedded else "probabilities")
    assert abs(said.value - accuracy) < abs(said.evidence["uncalibrated"] - accuracy)


@pytest.mark.parametrize("embedded", [True, False])
def test_another_mix_of_classes_is_answered(embedded: bool) -> None:
    assert deployed(few_classes, embedded=embedded).state == "answered"


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize(
    "change", [noisy(0.6), lambda x, y: 1 - x, lambda x, y: np.roll(x, 1, axis=1)]
)
def test_traffic_that_the_holdout_knows_nothing_of_is_refused(
    change: Callable[..., Pixels], embedded: bool
) -> None:
    said = deployed(change, embedded=embedded)
    assert said.state == "refused"
    assert np.isnan(said.value)
    assert ("outside" if embedded else "no embeddings are known") in said.reason


def test_images_without_an_embedding_are_judged_by_their_probabilities() -> None:
    model, (x, y), (fresh, _) = digits()
    window = np.concatenate([fresh[:400], noisy(0.8)(fresh[400:750], y)])
    vectors = (window / np.linalg.norm(window, axis=1, keepdims=True)).astype(np.float32)
    vectors[400:] = np.nan
    own = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    said = estimate_accuracy(
        Answers(model.predict_proba(x).astype(np.float32), own),
        y,
        Answers(model.predict_proba(window).astype(np.float32), vectors),
        CLASSES,
        THRESHOLDS,
    )[""]
    assert (said.state, said.evidence["judged_by"]) == ("refused", "probabilities")


def test_a_class_that_the_holdout_never_saw_predicted_is_refused() -> None:
    known, _ = drawn(0, 400)
    window, _ = drawn(1, 400)
    only = known[known.argmax(axis=1) != 2]
    placed = place_probabilities(only, window, once(window), THRESHOLDS)
    assert not placed.inside


def test_many_classes_are_no_reason_to_refuse_and_lost_confidence_is() -> None:
    draw = rng(2)
    sure = draw.uniform(0.3, 1, 3000)
    p = draw.dirichlet(np.full(400, 0.05), 3000) * (1 - sure[:, None])
    p[np.arange(3000), draw.integers(0, 400, 3000)] += sure
    said = p.astype(np.float32)
    assert place_probabilities(said[:2000], said[2000:], once(said[2000:]), THRESHOLDS).inside
    flat = (0.4 * said[2000:] + 0.6 / 400).astype(np.float32)
    assert not place_probabilities(said[:2000], flat, once(flat), THRESHOLDS).inside


def test_windows_alike_are_told_apart_no_more_often_than_the_level_says() -> None:
    alarms, n = 0, 150
    for seed in range(n):
        draw = rng(seed)
        a, b = draw.normal(size=(40, 4)), draw.normal(size=(40, 4))
        p = energy_test(a.astype(np.float32), b.astype(np.float32), significance=0.05, seed=seed)
        alarms += p.p_value < 0.05
    # 7.5 are expected; 15 or more come with a probability of 0.01.
    assert alarms <= 14


def test_a_shift_is_seen_and_a_mix_of_strata_is_not() -> None:
    draw = rng(4)
    centres = np.array([[0.0, 0.0], [5.0, 5.0]])
    of_a, of_b = draw.integers(0, 2, 300), (draw.random(300) < 0.9).astype(np.int64)
    a, b = ((centres[of] + draw.normal(size=(300, 2))).astype(np.float32) for of in (of_a, of_b))
    assert energy_test(a, b, significance=0.01).p_value < 0.01
    given = energy_test(a, b, significance=0.01, strata=(of_a, of_b))
    assert given.p_value > 0.05 and given.coefficient < 0.02
    moved = energy_test(a, b + np.float32(1.0), significance=0.01, strata=(of_a, of_b))
    assert moved.p_value < 0.01 and moved.coefficient > 0.05
