"""Labels saved are told where the curves tell them, and the random share is no second model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.monitoring.report.lakes import START, Rows, sample_id
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.data_models import ArmPoint, Difference
from visionloop.monitoring.report.efficiency import saved, shares
from visionloop.monitoring.report.reading import Reader


def arm(*points: tuple[int, int]) -> tuple[ArmPoint, ...]:
    return tuple(ArmPoint(f"{i:04d}", n, wilson(right, 200)) for i, (n, right) in enumerate(points))


def test_labels_saved_lie_between_two_rounds_in_a_straight_line() -> None:
    found = saved(arm((20, 100), (40, 160)), arm((20, 90), (40, 130)))
    assert found is not None
    assert found.loop_labels == pytest.approx(30)
    assert (found.least, found.saved, found.most) == (6, 10, 14)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 30 < found.high


def test_what_the_loop_has_not_reached_cannot_be_told() -> None:
    found = saved(arm((20, 100), (40, 120)), arm((20, 90), (40, 130)))
    assert found is not None
    assert (found.least, found.saved, found.most) == (None, None, None)
    assert "has not reached 65.0% yet" in found.reason
    assert saved(arm((20, 100)), ()) is None
    single = saved(arm((20, 140)), arm((20, 130)))
    assert single is not None
    assert single.saved is None


def test_a_first_model_that_is_good_enough_tells_a_bound() -> None:
    found = saved(arm((20, 150), (40, 160)), arm((20, 90), (60, 130)))
    assert found is not None
    assert (found.saved, "may have taken fewer" in found.reason) == (40, True)


@given(st.lists(st.integers(0, 200), min_size=2, max_size=6), st.integers(0, 200))
def test_the_bounds_hold_the_labels_between_them(rights: list[int], target: int) -> None:
    points = arm(*((20 * (i + 1), right) for i, right in enumerate(rights)))
    found = saved(points, arm((20, 0), (500, target)))
    assert found is not None
    if found.loop_labels is not None:
        assert found.low is not None
        assert found.low <= found.loop_labels
        assert found.high is None or found.loop_labels <= found.high


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
