"""An image that is asked about again is no further witness: intervals and tests know that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.test_estimation import drawn, rng
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.deployed import (
    Deployed,
    asked_images,
    compare_window,
    judged_windows,
    look_of,
)
from visionloop.monitoring.estimation import Answers, estimate_accuracy
from visionloop.monitoring.falling import confidence_falls
from visionloop.monitoring.region import place_embeddings

THRESHOLDS = MonitoringConfig()


def test_an_image_is_known_by_its_sample_its_tensor_or_its_place_in_a_request() -> None:
    rows = {
        "sample_id": ["a", "a", "b", None, None, None, None, None, None, None],
        "tensor_sha256": [None, "t", None, "t", "t", None, None, None, None, None],
        "request_sha256": ["q", "r", "q", "q", "r", "s", "s", "s", None, None],
        "row": [0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
    }
    table = pa.table(rows, schema=pa.schema([
        *((name, pa.string()) for name in ("sample_id", "tensor_sha256", "request_sha256")),
        ("row", pa.int32()),
    ]))  # fmt: skip
    a, a_again, b, t, t_again, s0, s1, s0_again, nobody, nobody_else = asked_images(table)
    assert (a, t, s0) == (a_again, t_again, s0_again)
    assert len({a, b, t, s0, s1, nobody, nobody_else}) == 7


def window(round_id: str, draw: np.random.Generator, *, known: bool) -> Deployed:
    """Return 1,000 inferences of 100 images, the same for all rounds but for chance."""
    asked = np.repeat(np.arange(100), 10)
    sure, said = draw.beta(4, 1, 100), draw.integers(0, 10, 100).astype(str)
    images = asked if known else np.arange(1000)
    return Deployed(round_id, "e", "m", sure[asked], list(said[asked]), images)


def flagged(*, known: bool) -> tuple[int, int]:
    """Return of how many of 40 pairs of windows alike a drift was flagged, and a fall."""
    drifts = falls = 0
    for seed in range(40):
        draw = rng(seed)
        windows = [window(f"000{i}", draw, known=known) for i in range(2)]
        found = compare_window(windows[1], windows, {}, THRESHOLDS)
        drifts += any(one.drift.state == "drift" for one in found)
        (fall,) = confidence_falls(windows[1], windows, {}, THRESHOLDS)
        falls += fall.state == "real"
    return drifts, falls


def test_windows_alike_raise_no_alarm_though_each_image_is_asked_ten_times() -> None:
    assert flagged(known=True) == (0, 0)
    # Where nothing tells the images they do.
    drifts, falls = flagged(known=False)
    assert drifts >= 10 and falls >= 1


def test_a_model_that_is_harvested_again_and_again_is_seldom_wrongly_accused() -> None:
    """60 lives of a model, each of ten harvests beside one holdout, at a level of .15."""
    small = {"confidence_drift_above": 1e-9, "class_mix_drift_above": 1e-9}
    lax = THRESHOLDS.model_copy(update={**small, "drift_significance": 0.15})
    accused = 0
    for seed in range(60):
        draw = rng(seed)
        windows = [window(f"{i:04d}", draw, known=True) for i in range(10)]
        answers = draw.beta(4, 1, 150), list(draw.integers(0, 10, 150).astype(str))
        found = [
            one
            for current in windows
            for one in compare_window(current, windows, {"m": answers}, lax)
            if one.reference == "holdout"
        ]
        assert [one.drift.look for one in found[::2]] == list(range(1, 11))
        accused += any(one.drift.state == "drift" for one in found)
    # 9 are meant at most; 16 or more come with a probability of 0.014.
    assert accused <= 15


def test_each_harvest_of_a_round_is_a_look_of_its_own() -> None:
    draw = rng(0)
    windows = [replace(window(f"000{i}", draw, known=True), looks=3) for i in range(2)]
    other = replace(windows[0], model_id="m2")
    assert look_of(windows[1], [*windows, other]) == 6
    assert look_of(other, [*windows, other]) == 3


def test_a_harvest_too_small_to_judge_takes_nothing_back() -> None:
    draw = rng(0)
    first, full = (window(f"000{i}", draw, known=True) for i in range(2))
    small = replace(
        full,
        round_id="0002",
        confidences=full.confidences[:5],
        labels=full.labels[:5],
        images=full.images[:5],
    )
    assert judged_windows([first, full, small], THRESHOLDS) == [small, full]
    assert judged_windows([first, full], THRESHOLDS) == [full]
    assert judged_windows([small], THRESHOLDS) == [small]


def test_the_interval_holds_what_comes_true_though_each_image_is_asked_ten_times() -> None:
    inside, runs = 0, 25
    asked = np.repeat(np.arange(150), 10)
    for seed in range(runs):
        known, truth = drawn(2 * seed, 300, sharpness=2.0)
        some, right = drawn(2 * seed + 1, 150, sharpness=2.0)
        window = Answers(some[asked], None, asked)
        said = estimate_accuracy(Answers(known), truth, window, "abcd", THRESHOLDS)[""]
        assert (said.state, said.n) == ("answered", 1500)
        inside += said.low <= (some.argmax(axis=1) == right).mean() <= said.high
    # 95% are meant; fewer than 21 of 25 come with a probability of 0.007.
    assert inside >= 21
    blind = estimate_accuracy(Answers(known), truth, Answers(some[asked]), "abcd", THRESHOLDS)[""]
    assert blind.value == said.value
    assert blind.high - blind.low < 0.8 * (said.high - said.low)


@pytest.mark.parametrize(("n_images", "state"), [(99, "refused"), (100, "answered")])
def test_many_inferences_of_few_images_are_too_few_to_say(n_images: int, state: str) -> None:
    known, truth = drawn(0, 400)
    some, _ = drawn(1, n_images)
    asked = np.repeat(np.arange(n_images), 10)
    found = estimate_accuracy(
        Answers(known), truth, Answers(some[asked], None, asked), "abcd", THRESHOLDS
    )
    assert found[""].state == state
    if state == "refused":
        assert found[""].reason == "99 images in 990 inferences, 100 are needed"


def test_a_class_answered_for_few_images_has_no_accuracy_of_its_own() -> None:
    known, truth = drawn(0, 400)
    some, _ = drawn(1, 400)
    few = np.flatnonzero(some.argmax(axis=1) == 0)[:19]
    rows = np.concatenate([np.flatnonzero(some.argmax(axis=1) != 0), np.repeat(few, 5)])
    found = estimate_accuracy(
        Answers(known), truth, Answers(some[rows], None, rows), "abcd", THRESHOLDS
    )
    assert found["a"].reason == "predicted for 19 images in 95 inferences, 20 are needed"
    assert found["b"].state == "answered"


@pytest.mark.parametrize(("times", "inside"), [(1, True), (100, False)])
def test_an_image_outside_counts_as_often_as_it_is_asked(times: int, inside: bool) -> None:
    draw = rng(0)
    holdout, some = (draw.normal(size=(200, 4)).astype(np.float32) for _ in range(2))
    some[0] += 20
    often: Any = np.ones(200, np.intp)
    often[0] = times
    placed = place_embeddings(holdout, some, often, THRESHOLDS)
    assert (placed.inside, placed.n) == (inside, 200)
    assert placed.score >= times / (199 + times)
