"""The verdict says what is worst first, and never that all is well where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.data import Funnel, HarvestCount, ReportData, Round
from visionloop.monitoring.report.data_funnel import Account, Part, Step
from visionloop.monitoring.report.data_health import FailedStage, StandingAct, StandingFlag
from visionloop.monitoring.report.data_models import Difference, ModelRow, SliceRow
from visionloop.monitoring.report.failing import reasons_to_fail
from visionloop.monitoring.report.summary import summary
from visionloop.monitoring.report.verdict import verdict
from visionloop.monitoring.report.verdict_models import Limits

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
GATED = Limits(min_accuracy=0.9, now=NOW)


def healthy() -> ReportData:
    """Return a loop in which nothing is odd."""
    done = Round(
        "0003",
        state="done",
        outcome="published",
        funnel=Funnel(found=1000, ok=990, flagged=9, unreadable=1),
        model_id="m3",
        gate="passed",
        accuracy=wilson(930, 1000),
        opened_at=NOW - timedelta(days=1),
    )
    return ReportData(
        loop="clothes",
        as_of=NOW,
        rounds=(done,),
        in_service="m3",
        in_service_name="model of round 3",
        in_service_accuracy=wilson(930, 1000),
        n_samples=5000,
        n_holdout=1000,
        models=(ModelRow("m3", "model of round 3", "0003", "loop", labels=400),),
    )


def keys(data: ReportData, limits: Limits | None = None) -> list[tuple[str, str]]:
    found = verdict(data, limits or GATED)
    return [(one.severity, one.key) for one in found.findings]


def test_nothing_odd_is_healthy_and_says_how_good() -> None:
    found = verdict(healthy(), GATED)
    assert (found.state, found.findings) == ("healthy", ())
    assert "93.0% accurate (91.2 to 94.4 on 1,000 holdout pictures)" in found.because


@pytest.mark.parametrize(
    ("least", "why"),
    [
        (None, "No gate has judged a model by a least accuracy. "),
        (0.0, "The last gate had no least accuracy: a model of any accuracy passed it. "),
    ],
)
def test_where_no_gate_says_what_will_do_nothing_is_called_healthy(
    least: float | None, why: str
) -> None:
    data = replace(healthy(), in_service_accuracy=wilson(190, 1000))
    found = verdict(data, Limits(min_accuracy=least, now=NOW))
    assert found.state == "cannot tell"
    assert found.title == "Cannot tell: no gate says what will do"
    (one,) = found.findings
    assert (one.severity, one.key, one.unknown) == ("info", "no_gate", True)
    assert "19.0% accurate (16.7 to 21.5 on 1,000 holdout pictures)" in one.text
    assert "19.0% accurate (16.7 to 21.5" in found.because
    # It stays until the next model is judged, whoever has set a gate meanwhile.
    assert one.text.startswith(why)
    assert "`gates.min_accuracy`: the next `evaluate` judges by it" in one.remedy
    told = summary(replace(data, verdict=found))
    assert told["verdict"] == "cannot tell"
    assert reasons_to_fail(told, ["cannot-tell"]) and not reasons_to_fail(told, ["look"])
    odd = verdict(replace(data, flag_counts={"label_suspect": 2}), Limits(now=NOW))
    assert odd.state == "look"
    assert [one.key for one in odd.findings] == ["flags.label_suspect", "no_gate"]


def test_where_drift_was_not_compared_healthy_says_so() -> None:
    data = replace(healthy(), drift_note="Nothing was compared yet: drift cannot be told.")
    found = verdict(data, GATED)
    assert found.state == "healthy"
    assert "as far as can be told: nothing was compared yet" in found.because
    assert found.findings[0].unknown


def test_an_empty_lake_is_nothing_yet_and_a_lake_without_a_model_cannot_be_told() -> None:
    assert verdict(ReportData(), Limits()).state == "nothing yet"
    waiting = Round("0000", state="waiting", missing_labels=20, opened_at=NOW)
    found = verdict(ReportData(rounds=(waiting,), n_samples=50, as_of=NOW), GATED)
    assert found.state == "cannot tell"
    assert "Round 0 waits for 20 labels." in found.because


@pytest.mark.parametrize(("right", "severity"), [(930, None), (890, "warning"), (800, "error")])
def test_an_accuracy_below_its_gate_is_an_error_only_where_it_is_no_chance(
    right: int, severity: str | None
) -> None:
    data = replace(healthy(), in_service_accuracy=wilson(right, 1000))
    found = keys(data, GATED)
    assert found == ([(severity, "accuracy_below_gate")] if severity else [])


def test_a_model_is_behind_the_best_only_where_it_is_no_chance() -> None:
    best = ModelRow("m1", "model of round 1", "0001", "loop", accuracy=wilson(960, 1000))
    for high, told in ((-0.01, True), (0.01, False)):
        limits = replace(GATED, best=best, behind_best=Difference(-0.03, -0.05, high, 1000))
        found = keys(healthy(), limits)
        assert found == ([("warning", "accuracy_below_best")] if told else [])


def test_a_failed_stage_and_a_block_ask_for_an_act_before_all_else() -> None:
    data = replace(
        healthy(),
        failed=(FailedStage("train", "0003", NOW, "no space left", remedy="Free some"),),
        acts=(StandingAct("block", "Nothing is published: drift.", NOW),),
        flag_counts={"label_suspect": 4},
    )
    found = verdict(data, GATED)
    assert found.state == "act"
    assert found.because.startswith("2 things need action.")
    assert [one.severity for one in found.findings] == ["error", "error", "warning"]
    assert {one.key for one in found.findings[:2]} == {"failed_stage", "publication_blocked"}


def test_standing_flags_are_named_with_how_much_and_informing_ones_are_not_told() -> None:
    flag = StandingFlag("pixel_drift", "t", "warning", "gate-north", "source", 0.31, 0.15, "share")
    data = replace(healthy(), standing=(flag,), flag_counts={"pixel_drift": 1, "dark": 30})
    (found,) = verdict(data, GATED).findings
    assert found.section == "drift"
    assert "gate-north (31.0%, threshold 15.0%)" in found.text


def test_what_is_so_now_is_told_before_what_was_found_once_and_most_of_it_first() -> None:
    data = replace(
        healthy(),
        flag_counts={"bad_sidecar": 1, "label_suspect": 122, "pool_exhausted": 1, "gps_jump": 9},
        new_flags={"bad_sidecar": 1, "gps_jump": 9},
    )
    found = verdict(data, GATED)
    assert [one.key.partition(".")[2] for one in found.findings] == [
        "label_suspect",
        "pool_exhausted",
        "gps_jump",
        "bad_sidecar",
    ]
    assert found.because.startswith("4 things are odd. The first: Labels in doubt: 122 now")
    alone = verdict(replace(data, flag_counts={"label_suspect": 2}), GATED)
    assert alone.because == "1 thing is odd: Labels in doubt: 2 now."


def test_flags_found_for_good_count_in_the_round_that_found_them() -> None:
    old = replace(healthy(), flag_counts={"label_conflict": 3})
    assert keys(old) == []
    new = replace(old, new_flags={"label_conflict": 2})
    assert keys(new) == [("warning", "flags.label_conflict")]


def test_notes_and_sidecars_left_behind_are_no_pictures_that_cannot_be_read() -> None:
    def told(funnel: Funnel) -> list[str]:
        assert funnel.adds_up
        data = replace(healthy(), rounds=(replace(healthy().rounds[0], funnel=funnel),))
        found = verdict(data, GATED).findings
        return [one.text for one in found if one.key == "unreadable_share"]

    assert told(Funnel(found=54, ok=14, no_picture=40)) == []
    (text,) = told(Funnel(found=80, ok=30, unreadable=30, no_picture=20))
    assert "50.0%" in text and "(30 of 60, 20 files that are no pictures left aside;" in text


@pytest.mark.parametrize(
    ("unreadable", "found", "severity"),
    [(1, 3, "warning"), (1, 10, None), (40, 1000, "warning"), (300, 1000, "error")],
)
def test_a_few_files_raise_no_alarm_about_their_share(
    unreadable: int, found: int, severity: str | None
) -> None:
    funnel = Funnel(found=found, ok=found - unreadable, unreadable=unreadable)
    data = replace(healthy(), rounds=(replace(healthy().rounds[0], funnel=funnel),))
    told = [one for one in keys(data) if one[1] == "unreadable_share"]
    assert told == ([(severity, "unreadable_share")] if severity else [])


@pytest.mark.parametrize(
    ("opened", "deadline", "key"),
    [
        (timedelta(days=2), None, "labels_awaited"),
        (timedelta(days=9), None, "labels_overdue"),
        (timedelta(days=9), timedelta(days=1), "labels_awaited"),
        (timedelta(days=2), -timedelta(hours=1), "labels_overdue"),
    ],
)
def test_labels_are_overdue_after_their_deadline_or_a_week(
    opened: timedelta, deadline: timedelta | None, key: str
) -> None:
    waiting = Round("0004", state="waiting", missing_labels=7, opened_at=NOW - opened)
    data = replace(healthy(), rounds=(*healthy().rounds, waiting))
    limits = replace(GATED, deadline=NOW + deadline if deadline else None)
    assert [one[1] for one in keys(data, limits)] == [key]


def test_lost_events_are_told_by_a_share_that_is_no_chance() -> None:
    total = Account("", (), (Step("logged", "Events logged", "events", 1000),))
    for lost, told in ((30, True), (12, False)):
        data = replace(
            healthy(), total=total, harvest=(HarvestCount("orphan", "never came", lost),)
        )
        assert keys(data) == ([("warning", "events_lost")] if told else [])


def test_counts_that_do_not_add_up_are_an_error() -> None:
    step = Step("samples", "Pictures", "pictures", 7, 10, "found", rest=(Part("copies", 1),))
    data = replace(healthy(), total=Account("", (step,)))
    (found,) = verdict(data, GATED).findings
    assert (found.severity, found.key) == ("error", "counts_do_not_add_up")
    assert "2 pictures are unaccounted for" in found.text


def test_a_gate_that_was_failed_last_is_worth_a_look() -> None:
    rejected = Round("0004", state="done", outcome="kept", model_id="m4", gate="rejected")
    model = ModelRow(
        "m4", "model of round 4", "0004", "loop", gate="rejected", gate_reason="0.80 is below"
    )
    data = replace(
        healthy(),
        rounds=(*healthy().rounds, rejected),
        models=(*healthy().models, model),
    )
    (found,) = verdict(data, GATED).findings
    assert found.text == "The model of round 4 did not pass its gate: 0.80 is below"


def test_slices_that_are_worse_beyond_chance_are_named_and_alarm_nobody() -> None:
    slices = (
        SliceRow("camera", "dock", wilson(30, 60), worse=True),
        SliceRow("camera", "gate", wilson(900, 940)),
    )
    data = replace(healthy(), models=(replace(healthy().models[0], slices=slices),))
    found = verdict(data, GATED)
    assert found.state == "healthy"
    assert "camera dock: 50.0% (37.7% to 62.3%, n = 60)" in found.findings[0].text


def test_where_no_round_was_ever_opened_nothing_is_told_to_be_before_one() -> None:
    funnel = Funnel(found=100, ok=50, unreadable=50)
    data = replace(
        healthy(),
        rounds=(Round("0000", funnel=funnel),),
        upcoming="0000",
        flag_counts={"impossible_place": 2},
        new_flags={"impossible_place": 2},
        failed=(FailedStage("ingest", "0000", NOW, "the disk is gone"),),
    )
    told = {one.key: one.text for one in verdict(data, GATED).findings}
    assert told["flags.impossible_place"] == "A place that is none: 2 since the beginning."
    assert told["unreadable_share"].startswith("50.0% of the files found cannot be read (50 of 100")
    assert told["failed_stage"].startswith("The stage ingest failed on 2026-03-08 12:00 UTC")
    later = replace(
        data, rounds=(healthy().rounds[0], Round("0004", funnel=funnel)), upcoming="0004"
    )
    told = {one.key: one.text for one in verdict(later, GATED).findings}
    assert told["flags.impossible_place"] == "A place that is none: 2 after round 3."
    assert "of the files found after round 3 cannot be read" in told["unreadable_share"]
