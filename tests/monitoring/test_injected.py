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
)
from benchmarks._monitoring_streams import (
    BEGINS,
    CASES,
    SETTINGS,
    Case,
    Stream,
    alarms_of,
    plain_alarms,
    reach_rows,
    stream_of,
    told_rows,
)
from benchmarks._photographs import data_folder
from benchmarks._silent_cameras import life_rows, stopped_rows
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
    false, found, hours = (row.ours for row in stopped_rows(10))
    assert false == 0 and found == 1.0 and hours < 72


def test_a_camera_that_keeps_its_pace_is_accused_in_hardly_any_life() -> None:
    accused = [row.ours for row in life_rows(2) if row.case.endswith("accused")]
    until = {row.case: row.ours for row in life_rows(2) if "heard every night" in row.case}
    assert len(accused) == 7 and sum(accused) <= 1.0
    (hours,) = (value for case, value in until.items() if "until" in case)
    assert 24 < hours < 48


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_stream_without_drift_raises_no_alarm_and_a_strong_drift_does(case: Case) -> None:
    around = slice(BEGINS - 2, BEGINS + 3)
    by_default = SETTINGS[0]
    calm = stream_of(case, 0.0, 0)
    assert not any(alarms_of(case.ours, Stream(calm.reference, calm.looks[around]), by_default))
    drifting = stream_of(case, max(case.strengths.values()), 0)
    alarms = alarms_of(case.ours, Stream(drifting.reference, drifting.looks[around]), by_default)
    assert not any(alarms[:2]) and any(alarms[2:])


def test_at_one_level_over_all_looks_plain_tests_accuse_as_seldom_as_ours() -> None:
    case = CASES[0]
    streams = [stream_of(case, 0.0, seed) for seed in range(20)]
    accused = {}
    for setting in SETTINGS:
        (plain,) = case.plain.values()
        accused[setting.name] = [
            sum(any(alarms_of(case.ours, one, setting)) for one in streams),
            sum(any(plain_alarms(plain, one, setting.level)) for one in streams),
        ]
    # At .05 in all looks 1 of 20 is meant; 5 or more come with a probability of 0.003.
    by_default, one_level = accused.values()
    assert max(one_level) <= 4 and by_default[0] <= 1 and by_default[1] >= 5, accused


def test_a_drift_that_is_not_found_counts_as_all_the_looks_that_there_were() -> None:
    before = [False] * BEGINS
    ours = [[*before, False, True], [*before, False, False]]
    found, looks = told_rows("c", "d", True, {"ours": ours, "them": [[*before, True]] * 2})
    assert (found.ours, found.peer, looks.ours, looks.peer) == (0.5, 1.0, 6.0, 1.0)
    (false,) = told_rows("c", "none", False, {"ours": ours, "them": [before] * 2})
    assert (false.ours, false.peer) == (0.5, 0.0)


def test_late_looks_ask_for_little_more_than_the_first() -> None:
    ours = [row.ours for row in reach_rows()]
    theirs = [row.peer for row in reach_rows()]
    assert ours == sorted(ours) and ours[0] == 0.138 and ours[-1] == 0.2
    # Beside the usual series: a little more at first, less from then on.
    assert ours[0] >= theirs[0] and ours[-1] < theirs[-1]
