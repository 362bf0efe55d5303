"""The rules of `watch`, as claims about what was seen and what is decided."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.deployed import Deployed
from visionloop.monitoring.falling import Fall, confidence_falls
from visionloop.monitoring.watch_config import WatchConfig
from visionloop.monitoring.watching import Decision, Drifted, Rule, Sight, decide

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
QUIET = Sight(
    now=NOW,
    round_id="0004",
    n_selectable=500,
    n_samples=20,
    last_ended=NOW - timedelta(days=1),
)
DRIFT = Drifted("digits", "m1", "confidence_drift", "holdout", 0.31, 0.15)


def fall(before: float, now: float, state: str = "real") -> Fall:
    return Fall("digits", "m1", "holdout", before, now, 400, 300, state)


def judged(config: dict[str, Any] | None = None, **seen: Any) -> Decision:
    return decide(replace(QUIET, **seen), WatchConfig(**(config or {})))


def rule(decision: Decision, name: str) -> Rule:
    (found,) = [rule for rule in decision.rules if rule.name == name]
    return found


def test_when_nothing_happened_nothing_starts_and_each_rule_says_so() -> None:
    decision = judged()
    assert decision.outcome == "wait"
    assert decision.reason.startswith("Nothing calls for round 4: 0 new images, 50 start a round")
    assert not [r for r in decision.rules if r.verdict == "yes"]


@pytest.mark.parametrize(
    ("files", "samples", "outcome"), [(49, 0, "wait"), (50, 0, "start"), (20, 30, "start")]
)
def test_new_images_start_a_round_from_the_threshold_on(
    files: int, samples: int, outcome: str
) -> None:
    decision = judged(n_new_files=files, n_new_samples=samples)
    assert decision.outcome == outcome
    assert f"{files} new files at the sources, {samples} new samples in the lake" in decision.reason


@pytest.mark.parametrize(("days", "outcome"), [(29.999, "wait"), (30, "start"), (31, "start")])
def test_time_starts_a_round_from_the_threshold_on(days: float, outcome: str) -> None:
    assert judged(last_ended=NOW - timedelta(days=days)).outcome == outcome


@pytest.mark.parametrize(
    ("before", "now", "state", "outcome"),
    [
        (0.70, 0.65, "real", "start"),  # 0.05 in decimals is a hair less in floats
        (0.70, 0.651, "real", "wait"),
        (0.70, 0.40, "chance", "wait"),
        (0.70, 0.40, "too few to say", "wait"),
        (0.40, 0.70, "real", "wait"),
    ],
)
def test_a_fall_of_confidence_starts_a_round_when_it_is_large_and_real(
    before: float, now: float, state: str, outcome: str
) -> None:
    decision = judged(falls=(fall(before, now, state),))
    assert decision.outcome == outcome
    if state == "too few to say":
        assert rule(decision, "falling_confidence").verdict == "unknown"
    if (state, outcome) == ("chance", "wait"):
        assert "may be chance" in decision.reason


def test_drift_starts_a_round_and_is_named_with_its_score() -> None:
    decision = judged(drifted=(DRIFT,))
    assert decision.outcome == "start"
    assert decision.reason == (
        "Round 4 starts: confidence drift of digits against holdout (0.31, threshold 0.15)."
    )


@pytest.mark.parametrize(
    ("off", "seen"),
    [
        ({"min_new_samples": 0}, {"n_new_files": 10_000}),
        ({"on_drift": False}, {"drifted": (DRIFT,)}),
        ({"min_confidence_drop": 0}, {"falls": (fall(0.9, 0.1),)}),
        ({"max_days": 0}, {"last_ended": NOW - timedelta(days=10_000)}),
    ],
)
def test_each_rule_can_be_switched_off(off: dict[str, Any], seen: dict[str, Any]) -> None:
    assert judged(**seen).outcome == "start"
    assert judged(off, **seen).outcome == "wait"


def test_every_met_rule_is_in_the_reason() -> None:
    reason = judged(n_new_files=60, drifted=(DRIFT,)).reason
    assert "60 new images" in reason and "confidence drift" in reason


@pytest.mark.parametrize(("asked", "outcome"), [(80, "start"), (81, "wait")])
def test_the_label_budget_holds_a_round_back_when_it_would_be_passed(
    asked: int, outcome: str
) -> None:
    decision = judged({"max_labels": 100}, n_new_files=60, n_asked=asked)
    assert decision.outcome == outcome
    if outcome == "wait":
        assert decision.reason == (
            "Round 4 does not start: 81 labels were asked for in the last 30 days, and 20 more "
            "make 101 of at most 100. What called for it: 60 new images, 50 start a round "
            "(60 new files at the sources, 0 new samples in the lake)."
        )


@pytest.mark.parametrize(("hours", "outcome"), [(5.99, "wait"), (6, "start")])
def test_a_pause_between_rounds_is_kept(hours: float, outcome: str) -> None:
    seen = {"n_new_files": 60, "last_ended": NOW - timedelta(hours=hours)}
    assert judged({"min_hours": 6}, **seen).outcome == outcome


def test_a_round_that_could_ask_about_nothing_does_not_start() -> None:
    decision = judged(drifted=(DRIFT,), n_selectable=0)
    assert decision.outcome == "wait" and "no image is left to ask" in decision.reason


def test_a_clock_that_was_set_back_neither_starts_a_round_nor_stops_one() -> None:
    future = {"last_ended": NOW + timedelta(days=400)}
    limits = {"min_hours": 6}
    waiting = judged(limits, **future)
    assert waiting.outcome == "wait" and "ended in the future (2027-04-06" in waiting.reason
    assert judged(limits, n_new_files=60, **future).outcome == "start"


def test_before_the_first_round_time_says_nothing() -> None:
    decision = judged(last_ended=None)
    assert decision.outcome == "wait"
    assert rule(decision, "time").verdict == "unknown"


EVERYTHING = {"n_new_files": 999, "drifted": (DRIFT,), "falls": (fall(0.9, 0.1),)}


@pytest.mark.parametrize(
    ("seen", "outcome", "says"),
    [
        (
            {"state": "running", "held_by": "process 7 of this machine"},
            "wait",
            "it is being run by process 7",
        ),
        ({"state": "running"}, "resume", "it was interrupted"),
        (
            {"state": "waiting", "n_requested": 20, "n_missing": 3, "answers_at": "a.csv"},
            "wait",
            "17 of 20 requests are answered; 3 missing in a.csv",
        ),
        ({"state": "waiting", "n_requested": 20}, "resume", "20 of 20 requests are answered"),
    ],
)
def test_an_open_round_comes_first_whatever_else_was_seen(
    seen: dict[str, Any], outcome: str, says: str
) -> None:
    for more in ({}, EVERYTHING):
        decision = judged({"max_labels": 1, "min_hours": 1000}, **seen, **more)
        assert decision.outcome == outcome
        assert says in decision.reason


def test_finished_labels_resume_nothing_when_a_person_wants_to() -> None:
    decision = judged({"on_labels_finished": False}, state="waiting", n_requested=20)
    assert decision.outcome == "wait"
    assert "`watch.on_labels_finished` is off" in decision.reason


counts = st.integers(0, 200)
sights = st.builds(
    Sight,
    now=st.just(NOW),
    round_id=st.just("0004"),
    state=st.sampled_from(["", "running", "waiting"]),
    held_by=st.sampled_from(["", "process 7 of this machine"]),
    n_requested=counts.map(lambda n: n + 200),
    n_missing=counts,
    n_new_files=counts,
    n_new_samples=counts,
    n_selectable=counts,
    drifted=st.sampled_from([(), (DRIFT,)]),
    falls=st.sampled_from([(), (fall(0.9, 0.7),), (fall(0.9, 0.89),), (fall(0.9, 0.1, "chance"),)]),
    last_ended=st.none() | st.integers(-50, 50).map(lambda days: NOW - timedelta(days=days)),
    n_asked=counts,
    n_samples=counts,
)
configs = st.builds(
    WatchConfig,
    min_new_samples=counts,
    on_labels_finished=st.booleans(),
    on_drift=st.booleans(),
    min_confidence_drop=st.floats(0, 1),
    max_days=st.floats(0, 60),
    min_hours=st.floats(0, 60),
    max_labels=counts,
)


@given(sights, configs)
def test_every_decision_follows_from_the_verdicts_that_it_shows(
    sight: Sight, config: WatchConfig
) -> None:
    decision = decide(sight, config)
    verdicts = {(r.effect, r.name): r.verdict for r in decision.rules}
    met = {effect for (effect, _), verdict in verdicts.items() if verdict == "yes"}
    if decision.outcome == "start":
        assert not sight.state and "start" in met and "wait" not in met
    elif decision.outcome == "resume":
        assert sight.state and "resume" in met
    elif not sight.state:
        assert "start" not in met or "wait" in met
    assert decision.reason.endswith(".") and "  " not in decision.reason
    seen = json.loads(decision.inputs())
    assert seen["seen"]["n_new_files"] == sight.n_new_files
    assert len(seen["rules"]) == len(decision.rules)


@given(sights, configs, counts)
def test_more_new_images_never_turn_a_start_into_a_wait(
    sight: Sight, config: WatchConfig, more: int
) -> None:
    if decide(sight, config).outcome == "start":
        richer = replace(sight, n_new_files=sight.n_new_files + more)
        assert decide(richer, config).outcome == "start"


def window(round_id: str, mean: float, n: int, *, spread: float = 0.05, model: str = "m1") -> Any:
    rng = np.random.Generator(np.random.PCG64(n))
    values = np.clip(rng.normal(mean, spread, n), 0, 1)
    return Deployed(round_id, "digits", model, values, ["1"] * n, np.arange(n))


@pytest.mark.parametrize(
    ("now", "n", "spread", "state"),
    [
        (0.70, 300, 0.05, "real"),
        (0.899, 300, 0.05, "chance"),
        (0.90, 300, 0.05, "chance"),
        (0.70, 99, 0.05, "too few to say"),
        (0.70, 100, 0.05, "real"),
    ],
)
def test_a_fall_is_real_when_chance_does_not_explain_it(
    now: float, n: int, spread: float, state: str
) -> None:
    before, current = window("0003", 0.9, 400), window("0004", now, n, spread=spread)
    (found,) = confidence_falls(current, [before, current], {}, MonitoringConfig())
    assert (found.state, found.reference, found.n_before, found.n_now) == (
        state,
        "round 3",
        400,
        n,
    )
    assert found.drop == pytest.approx(before.confidences.mean() - current.confidences.mean())


def test_a_window_is_held_against_its_own_holdout_and_its_last_window_and_no_other_model() -> None:
    windows = [
        window("0001", 0.95, 200),
        window("0002", 0.9, 200),
        window("0003", 0.2, 200, model="m0"),
        window("0004", 0.7, 200),
    ]
    references = {"m1": (np.full(150, 0.8), ["1"] * 150), "m0": (np.full(150, 0.1), ["1"] * 150)}
    found = confidence_falls(windows[-1], windows, references, MonitoringConfig())
    assert [(f.reference, round(f.before, 1)) for f in found] == [
        ("holdout", 0.8),
        ("round 2", 0.9),
    ]
