"""Anomalies that were put in are found, and little else: the benchmark's cases in short."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._injected import among_digits, journeys, new_digits
from benchmarks._label_noise import draw, with_errors
from benchmarks._monitoring_found import (
    CONTRADICTIONS,
    Found,
    metadata_rows,
    our_outliers,
    silence_rows,
)
from benchmarks._monitoring_streams import BEGINS, CASES, Case, Stream, stream_of
from benchmarks._photographs import data_folder
from visionloop.labeling.trust.out_of_sample import cross_validate
from visionloop.labeling.trust.suspects import find_suspects


@pytest.mark.skipif(data_folder() is None, reason="the photographs of ../shared are not there")
@pytest.mark.parametrize("kind", ["clothing", "bccd"])
def test_foreign_pictures_among_digits_are_outliers(kind: str) -> None:
    found = Found()
    for seed in range(2):
        pool = among_digits(kind, seed)
        found.add(our_outliers(pool), pool.odd)
    assert found.precision > 0.9 and found.recall > 0.4, found


def test_hardly_a_sound_digit_is_an_outlier() -> None:
    flagged = sound = 0
    for seed in range(3):
        pool = new_digits(seed)
        flagged += int((our_outliers(pool) & ~pool.odd).sum())
        sound += int((pool.new & ~pool.odd).sum())
    assert flagged <= 0.01 * sound


def test_wrong_labels_are_doubted_and_right_ones_are_not() -> None:
    x, y = draw("digits", 0)
    given = with_errors(y, 0.1, "uniform", 0)
    told = cross_validate(x, given, int(given.max()) + 1)
    found = Found()
    found.add(np.asarray(find_suspects(given, told.probabilities).flagged), given != y)
    assert found.precision > 0.95 and found.recall > 0.95, found


def test_clocks_and_places_that_cannot_be_are_named_for_what_they_are() -> None:
    assert len(journeys(0).wrong) > 50
    rows = {row.case: row.ours for row in metadata_rows(quick=True)}
    for kind in CONTRADICTIONS:
        mine = [value for case, value in rows.items() if case.startswith(kind)]
        assert len(mine) == 3 and min(mine) >= 0.95, rows


def test_the_camera_that_stopped_is_the_one_that_is_called_silent() -> None:
    false, found, hours = (row.ours for row in silence_rows(quick=True))
    assert false == 0 and found == 1.0 and hours < 72


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_stream_without_drift_raises_no_alarm_and_a_strong_drift_does(case: Case) -> None:
    around = slice(BEGINS - 2, BEGINS + 3)
    calm = stream_of(case, 0.0, 0)
    assert not any(case.ours(Stream(calm.reference, calm.looks[around])))
    drifting = stream_of(case, max(case.strengths.values()), 0)
    alarms = case.ours(Stream(drifting.reference, drifting.looks[around]))
    assert not any(alarms[:2]) and any(alarms[2:])
