"""What the watch does besides starting rounds: the rules, and what stands of what was done."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitoring.hourly_watch import DRIFTED, Watch, service, verdict
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.monitoring.acting import Act
from visionloop.monitoring.acting_seen import (
    Pairs,
    Requests,
    Suspects,
)
from visionloop.monitoring.falling import Fall
from visionloop.monitoring.watch_config import WatchConfig

BACK = {"enabled": True, "min_hours": 24}


def test_drift_raises_the_random_share_once_and_its_end_restores_it() -> None:
    watch = Watch()
    assert watch.did(service()) == []
    found = watch.look(service(flags=(DRIFTED,)))
    (act,) = found.acts
    assert act.reason.startswith("The random share is raised from 0.1 to 0.3: drift stands: ")
    assert "(cameras)" in act.reason
    assert watch.acts.random_share == 0.3
    assert watch.did(service(flags=(DRIFTED,))) == []
    assert watch.did(service()) == [("random_share", "restored")]
    assert watch.acts.random_share is None


def test_what_cannot_be_told_takes_nothing_back() -> None:
    watch = Watch()
    watch.look(service(flags=(DRIFTED,)))
    found = watch.look(service(n_comparisons=0))
    assert verdict(found, "drift_stands") == "unknown"
    assert watch.acts.random_share == 0.3
    # Another model has other scores.
    assert watch.did(service(in_service="m3", n_comparisons=0)) == [("random_share", "restored")]


@pytest.mark.parametrize("chosen", [False, True])
def test_a_raised_share_holds_for_as_many_rounds_as_configured_also_from_an_open_one_on(
    chosen: bool,
) -> None:
    watch = Watch(raise_random_share={"max_rounds": 2})
    drawn = []
    for watch.round in range(5):
        # A round that waits for labels has chosen already.
        if not chosen:
            watch.look(service(flags=(DRIFTED,)))
        drawn.append(watch.acts.random_share)
        watch.look(service(flags=(DRIFTED,)), chosen=True)
    raised = [i for i, share in enumerate(drawn) if share == 0.3]
    assert raised == ([1, 2] if chosen else [0, 1])


def test_a_raised_share_ends_with_its_rounds_and_the_same_drift_does_not_raise_it_again() -> None:
    watch = Watch(raise_random_share={"max_rounds": 2})
    for watch.round in range(2):
        watch.look(service(flags=(DRIFTED,)))
        assert watch.acts.random_share == 0.3
    watch.round = 2
    assert watch.did(service(flags=(DRIFTED,))) == [("random_share", "restored")]
    found = watch.look(service(flags=(DRIFTED,)))
    assert found.acts == ()
    assert "it was excused" in next(r.told for r in found.rules if r.name == "drift_stands")
    other = replace(DRIFTED, kind="class_mix_drift")
    assert watch.did(service(flags=(DRIFTED, other))) == [("random_share", "raised")]


def test_drift_that_was_excused_stays_so_while_it_cannot_be_told() -> None:
    watch = Watch(raise_random_share={"max_rounds": 1})
    watch.look(service(flags=(DRIFTED,)))
    watch.round = 1
    assert watch.did(service(flags=(DRIFTED,))) == [("random_share", "restored")]
    assert verdict(watch.look(service(n_comparisons=0)), "drift_stands") == "unknown"
    assert watch.did(service(flags=(DRIFTED,))) == []
    # What no endpoint answered tells no start of a round, and yet that the inputs drift no more.
    gone = watch.look(service(n_comparisons=0, n_judged=3))
    assert (verdict(gone, "drift_stands"), verdict(gone, "drift")) == ("no", "unknown")
    assert watch.did(service(flags=(DRIFTED,))) == [("random_share", "raised")]


def test_drift_that_went_and_came_again_raises_it_again() -> None:
    watch = Watch(raise_random_share={"max_rounds": 1})
    watch.look(service(flags=(DRIFTED,)))
    watch.round = 1
    assert watch.did(service(flags=(DRIFTED,))) == [("random_share", "restored")]
    assert watch.did(service()) == []
    assert watch.did(service(flags=(DRIFTED,))) == [("random_share", "raised")]


@pytest.mark.parametrize(
    ("state", "drop", "raised"),
    [("real", 0.1, True), ("chance", 0.1, False), ("real", 0.01, False)],
)
def test_confidence_raises_it_when_it_fell_by_much_and_not_by_chance(
    state: str, drop: float, raised: bool
) -> None:
    fall = Fall("cameras", "m2", "holdout", 0.9, 0.9 - drop, 500, 400, state)
    assert bool(Watch().did(service(), falls=(fall,))) is raised
    off = Watch(raise_random_share={"min_confidence_drop": 0})
    assert off.did(service(), falls=(fall,)) == []


def test_a_share_that_is_high_already_is_not_raised() -> None:
    found = Watch().look(service(flags=(DRIFTED,), random_share=0.5))
    assert found.acts == () and verdict(found, "drift_stands") == "off"


@pytest.mark.parametrize(
    ("suspects", "said", "blocked"),
    [
        (None, "unknown", False),
        (Suspects(99, 60), "unknown", False),  # too few to say
        (Suspects(200, 30), "no", False),
        (Suspects(100, 22), "unknown", False),  # more than a fifth, which may be chance
        (Suspects(400, 140), "yes", True),
    ],
)
def test_doubted_labels_block_publication_when_they_are_many_and_not_by_chance(
    suspects: Suspects | None, said: str, blocked: bool
) -> None:
    watch = Watch()
    found = watch.look(service(suspects=suspects))
    assert verdict(found, "label_suspects") == said
    assert [act.outcome for act in found.acts] == (["blocked"] if blocked else [])
    assert (watch.acts.blocked is not None) is blocked


def test_a_block_is_lifted_when_labels_are_good_again_and_not_before_that_can_be_told() -> None:
    watch = Watch()
    watch.look(service(suspects=Suspects(400, 140)))
    why = watch.acts.blocked
    assert why is not None
    assert why.startswith("blocked since 2026-03-01 13:00 UTC: 140 of 400 checked labels are")
    assert watch.did(service(suspects=None)) == []
    assert watch.did(service(suspects=Suspects(400, 84))) == []  # 21%: it may be chance
    assert watch.did(service(suspects=Suspects(400, 40))) == [("unblock", "lifted")]
    assert watch.acts.blocked is None


def test_a_rule_that_is_switched_off_lifts_its_block() -> None:
    watch = Watch()
    watch.look(service(suspects=Suspects(400, 140)))
    watch.config = WatchConfig.model_validate({"block_publication": {"max_label_suspects": 0}})
    assert watch.did(service(suspects=Suspects(400, 140))) == [("unblock", "lifted")]


def test_a_persons_word_holds_until_the_condition_is_gone_and_comes_again() -> None:
    watch = Watch()
    bad, good = service(suspects=Suspects(400, 140)), service(suspects=Suspects(400, 40))
    watch.look(bad)
    watch.word("unblock", "by_hand", excused=["label_suspects: block"])
    assert watch.did(bad) == watch.did(service(suspects=None)) == watch.did(bad) == []
    assert watch.acts.blocked is None
    assert watch.did(good) == []
    assert watch.did(bad) == [("block", "blocked")]


def test_flags_of_a_named_kind_block_as_long_as_they_stand() -> None:
    watch = Watch(block_publication={"flags": ["confidence_drift"]}, raise_random_share={"to": 0})
    assert watch.did(service(flags=(DRIFTED,))) == [("block", "blocked")]
    assert watch.did(service()) == [("unblock", "lifted")]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"block_publication": {"flags": ["confidence_drif"]}}, "did you mean `confidence_drift`"),
        ({"raise_random_share": {"flags": ["blurred"]}}, "for good"),
        ({"roll_back": {"enable": True}}, "did you mean `enabled`"),
        ({"roll_backs": {}}, "did you mean `watch.roll_back`|did you mean `roll_back`"),
    ],
)
def test_a_rule_that_nobody_knows_is_refused_with_the_nearest_name(
    section: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        load_config(json.dumps({"name": "test", "lake": "lake", "watch": section}))


WORSE = Pairs(200, 4, 40, 1)


def test_a_model_is_rolled_back_only_where_that_is_enabled() -> None:
    found = Watch().look(service(pairs=WORSE))
    assert found.acts == ()
    assert {verdict(found, n) for n in ("worse_accuracy", "more_errors", "stay_in_service")} == {
        "off"
    }
    assert not any("0 of" in rule.told for rule in found.rules if rule.effect == "roll back")
    (act,) = Watch(roll_back=BACK).look(service(pairs=WORSE)).acts
    assert (act.decision, act.outcome, act.subject) == ("rollback", "called_for", "m1")
    assert act.reason.startswith("Model m1 comes back in the place of m2: of 200 random picks")
    assert (act.inputs["before"], act.inputs["uri"]) == ("m2", "file:///m1")


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (None, "unknown"),
        (Pairs(0, 0, 0, 0), "unknown"),
        (Pairs(49, 0, 30, 1), "unknown"),  # too few to say
        (Pairs(60, 3, 8, 1), "unknown"),  # worse by 8%, which may be chance
        (Pairs(200, 10, 12, 1), "no"),
        (WORSE, "yes"),
    ],
)
def test_accuracy_is_compared_on_the_same_images_and_with_enough_of_them(
    pairs: Pairs | None, said: str
) -> None:
    found = Watch(roll_back=BACK).look(service(pairs=pairs))
    assert verdict(found, "worse_accuracy") == said
    assert bool(found.acts) is (said == "yes")


def held_back(watch: Watch, **seen: Any) -> str:
    found = watch.look(service(pairs=WORSE, **seen))
    assert found.acts == () and verdict(found, "worse_accuracy") == "yes"
    return next(rule.told for rule in found.rules if rule.name == "stay_in_service")


def test_no_model_goes_back_to_nothing_twice_too_soon_or_beside_a_round() -> None:
    assert "no model was in service before it" in held_back(Watch(roll_back=BACK), before="")
    watch = Watch(roll_back=BACK)
    watch.word("rollback", "published", "m1", before="m2")
    assert "rolled back once, and somebody put it back" in held_back(watch)
    watch.hour += 48
    assert "the model before was rolled back itself" in held_back(
        watch, in_service="m3", before="m2"
    )
    watch = Watch(roll_back=BACK)
    watch.word("rollback", "published", "m7", before="m8")
    assert "hours ago, and `min_hours` is 24" in held_back(watch)
    watch = Watch(roll_back=BACK)
    watch.word("rollback", "failed", "m1", before="m2")
    assert "could not be brought back" in held_back(watch)
    watch = Watch(roll_back=BACK)
    assert watch.did(service(pairs=WORSE), held="run r7") == []
    assert watch.did(service(pairs=WORSE)) == [("rollback", "called_for")]


def test_a_canary_that_is_ended_takes_no_decided_rollback_back() -> None:
    watch = Watch(roll_back=BACK)
    assert watch.did(service(pairs=WORSE)) == [("rollback", "called_for")]
    watch.word("rollback", "rolled_back", "m3", in_service="m2")
    assert watch.acts.called_for is not None and watch.acts.called_for.model_id == "m1"
    assert watch.did(service(pairs=WORSE)) == []


def test_errors_need_the_model_before_to_be_told_worse() -> None:
    def said(**seen: Any) -> str:
        requests = Requests("m2", looks=1, **seen)
        return verdict(Watch(roll_back=BACK).look(service(requests=requests)), "more_errors")

    assert said(requests=400, errors=60, before=(5000, 10)) == "yes"
    assert said(requests=400, errors=60, before=(20, 0)) == "unknown"
    assert said(requests=400, errors=60, before=(400, 58)) == "no"
    assert said(requests=100, errors=60, before=(5000, 10)) == "unknown"
    assert said(requests=400, errors=2, before=(5000, 10)) == "no"
    assert said(requests=400, errors=60, problem="it does not answer") == "unknown"


def test_an_error_rate_that_is_looked_at_for_ever_hardly_ever_blocks_by_chance() -> None:
    rng = np.random.default_rng(5)
    config = {"block_publication": {"max_error_rate": 0.02}, "act_significance": 0.05}
    blocked = 0
    for _ in range(60):
        watch = Watch(**config)
        for look in range(1, 61):
            errors = int(rng.binomial(400, 0.02))
            requests = Requests("m2", 400, errors, look)
            watch.rows.clear()
            if watch.did(service(requests=requests)):
                blocked += 1
                break
    assert blocked <= 8  # of 60 at 5%: more happens once in 100


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, Suspects(50, 40), Suspects(400, 10), Suspects(400, 200)]),
            st.booleans(),
            st.booleans(),
            st.integers(0, 1),
        ),
        max_size=12,
    )
)
def test_whatever_is_seen_each_act_is_done_once_until_it_is_taken_back(
    looks: list[tuple[Suspects | None, bool, bool, int]],
) -> None:
    watch = Watch()
    for suspects, drifts, told, rounds in looks:
        watch.round += rounds
        flags = (DRIFTED,) if drifts else ()
        seen = service(suspects=suspects, flags=flags, n_comparisons=4 if told else 0)
        before = watch.acts
        acts: list[Act] = list(watch.look(seen).acts)
        for act in acts:
            stood = before.share if act.decision == "random_share" else before.block
            assert (stood is None) is (act.outcome in ("raised", "blocked"))
        # Looked at again at once, nothing is done but what the clock alone does.
        assert watch.look(seen).acts == ()
