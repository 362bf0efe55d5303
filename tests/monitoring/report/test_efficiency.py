"""Labels saved are told where the curves tell them, and the random share is no second model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitoring.report.lakes import START, Rows, sample_id
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.charts.reading import chance
from visionloop.monitoring.report.data_models import ArmPoint, Difference
from visionloop.monitoring.report.efficiency import saved, shares
from visionloop.monitoring.report.reading import Reader


def arm(*points: tuple[int, int]) -> tuple[ArmPoint, ...]:
    return tuple(ArmPoint(f"{i:04d}", n, wilson(right, 200)) for i, (n, right) in enumerate(points))


def test_labels_saved_lie_between_two_rounds_in_a_straight_line() -> None:
    found = saved(arm((20, 100), (40, 160)), arm((20, 90), (40, 130)))
    assert found is not None
    assert (found.level, found.random_labels) == (pytest.approx(0.65), 40)
    assert (found.loop_labels, found.saved) == (pytest.approx(30), 10)
    assert found.least is not None and found.most is not None
    assert 0 < found.least < 10 < found.most < 20


def test_an_arm_that_is_behind_took_more_labels_and_says_how_many() -> None:
    found = saved(arm((20, 100), (40, 120)), arm((20, 90), (40, 130)))
    assert found is not None
    assert (found.level, found.saved) == (pytest.approx(0.6), -5)
    assert found.least is not None and found.least < -5
    assert saved(arm((20, 100)), ()) is None
    single = saved(arm((20, 140)), arm((20, 130)))
    assert single is not None
    assert (single.saved, single.least, single.most) == (None, None, None)
    assert "too few models" in single.reason


def test_a_first_model_that_is_good_enough_tells_a_bound() -> None:
    found = saved(arm((20, 150), (40, 160)), arm((20, 90), (60, 130)))
    assert found is not None
    assert (found.saved, found.most, "may have taken fewer" in found.reason) == (40, None, True)
    other = saved(arm((20, 90), (60, 130)), arm((20, 150), (40, 160)))
    assert other is not None
    assert (other.saved, other.least, "may have taken fewer" in other.reason) == (-40, None, True)


def test_a_lucky_model_in_the_middle_saves_no_label() -> None:
    # The second model of the loop is better than the two after it: it was lucky.
    lucky = arm((20, 100), (40, 150), (60, 120), (80, 150))
    steady = arm((20, 100), (40, 120), (60, 140), (80, 150))
    found = saved(lucky, steady)
    assert found is not None
    # The curve that never falls has 135 right of 200 in the middle, and ends at 150.
    assert (found.loop_labels, found.saved) == (80, 0)


def test_where_the_loop_is_random_choice_nothing_is_saved_on_average_and_by_interval() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    truth = np.array([0.55, 0.68, 0.75, 0.8])
    told, covered, n = [], 0, 60
    for _ in range(n):
        loop, random = (
            arm(*((20 * (i + 1), int(k)) for i, k in enumerate(rng.binomial(200, truth))))
            for _ in range(2)
        )
        found = saved(loop, random)
        assert found is not None and found.saved is not None
        told.append(found.saved)
        covered += (found.least is None or found.least <= 0) and (
            found.most is None or found.most >= 0
        )
    error = np.std(told) / np.sqrt(n)
    assert abs(np.mean(told)) < 3 * error and error < 5
    assert covered >= 0.9 * n


def test_the_numbers_of_the_arms_change_their_sign_with_the_arms() -> None:
    loop, random = arm((20, 90), (40, 140), (60, 150)), arm((20, 80), (40, 110), (60, 145))
    one, other = saved(loop, random), saved(random, loop)
    assert one is not None and other is not None and one.saved is not None
    assert other.saved == -one.saved and one.level == other.level


@given(st.lists(st.integers(0, 200), min_size=2, max_size=6), st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_the_bounds_hold_in_order_whatever_the_curves_are(rights: list[int], target: int) -> None:
    points = arm(*((20 * (i + 1), right) for i, right in enumerate(rights)))
    found = saved(points, arm((20, 0), (500, target)))
    assert found is not None
    if found.least is not None and found.most is not None:
        assert found.least <= found.most
    if found.saved is not None:
        assert found.random_labels is not None and 20 <= found.random_labels <= 500


def test_where_interval_and_exact_test_disagree_the_words_say_why() -> None:
    assert chance(Difference(0.02, -0.01, 0.05, 273, p=0.2)) == "may be chance (p = 0.2)"
    apart = chance(Difference(0.026, 0.002, 0.055, 273, p=0.065))
    assert "exact test gives p = 0.065" in apart and "approximate" in apart
    assert "interval holds 0" in chance(Difference(0.02, -0.001, 0.05, 273, p=0.03))
    assert chance(Difference(0.02, -0.001, 0.05, 273)) == "may be chance"


def test_an_exact_test_that_sees_nothing_has_the_last_word() -> None:
    assert Difference(0.02, 0.001, 0.05, 273, p=0.065).says == "cannot tell"
    assert Difference(0.02, 0.001, 0.05, 273, p=0.03).says == "ahead"
    assert Difference(-0.02, -0.05, -0.001, 273).says == "behind"
    assert Difference(-0.02, -0.05, 0.001, 273).says == "cannot tell"


def test_errors_among_the_chosen_and_the_random_share_are_told_with_their_difference(
    tmp_path: Path,
) -> None:
    rows = Rows(tmp_path)
    numbers = range(40)
    rows.pictures(numbers)
    rows.write(
        "infer",
        predictions=[
            {"sample_id": sample_id(n), "model_id": "m", "label": "cat", "confidence": 0.6}
            for n in numbers
        ],
    )
    rows.write(
        "select",
        selections=[
            {
                "sample_id": sample_id(n),
                "rank": n,
                "objectives": json.dumps({"margin": 0.9}),
                "arm": "random" if n >= 20 else "selected",
                "model_id": "m",
                "selected_at": START,
            }
            for n in numbers
        ],
    )
    # The model is wrong about 12 of the 20 chosen, and about 2 of the 20 drawn at random.
    wrong = {*range(12), 20, 21}
    rows.write(
        "collect_labels",
        labels=[
            {
                "sample_id": sample_id(n),
                "label": "dog" if n in wrong else "cat",
                "origin": "csv",
                "annotator": "a",
                "created_at": START,
                "n_annotations": 1,
            }
            for n in numbers
        ],
    )
    one, every = shares(Reader(rows.lake, rows.lake.version()))
    assert (one.round_id, every.round_id) == ("0000", "")
    assert (one.chosen.value, one.random.value) == (0.6, 0.1)
    assert one.difference is not None
    assert one.difference.says == "ahead"
