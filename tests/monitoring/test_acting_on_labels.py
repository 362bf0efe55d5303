"""What doubted labels have blocked ends once they are judged and good, and not before."""

from __future__ import annotations

from tests.monitoring.hourly_watch import DRIFTED, Watch, service, verdict
from visionloop.monitoring.acting_seen import StandingFlags, Suspects


def test_a_block_is_not_lifted_where_its_labels_may_only_be_judged_no_more() -> None:
    watch = Watch()
    watch.look(service(suspects=Suspects(400, 140, n_unchecked=5)))
    lost = service(suspects=Suspects(200, 0, n_unchecked=205))
    found = watch.look(lost)
    assert found.acts == () and verdict(found, "label_suspects") == "unknown"
    (rule,) = [one for one in found.rules if one.name == "label_suspects"]
    assert "200 more labels could not be checked than when the rule was met" in rule.told
    # Where a few more are not judged, no more than the threshold can be doubted all the same.
    few = service(suspects=Suspects(400, 10, n_unchecked=25))
    assert watch.did(few) == [("unblock", "lifted")]


def test_a_block_of_flags_ends_only_where_every_label_was_judged_that_was_when_it_began() -> None:
    watch = Watch(block_publication={"max_label_suspects": 0, "flags": ["label_suspect"]})
    doubted = StandingFlags("label_suspect", "", "", 3)
    began = service(suspects=Suspects(400, 3, n_unchecked=5), flags=(doubted,))
    assert watch.did(began) == [("block", "blocked")]
    for seen in (None, Suspects(0, 0, n_unchecked=405), Suspects(399, 0, n_unchecked=6)):
        found = watch.look(service(suspects=seen))
        assert found.acts == () and verdict(found, "flags_block") == "unknown"
    assert watch.did(service(suspects=Suspects(400, 0, n_unchecked=5))) == [("unblock", "lifted")]


def test_labels_that_nobody_judged_do_not_hold_a_block_of_other_flags() -> None:
    flags = ["label_suspect", "confidence_drift"]
    watch = Watch(block_publication={"flags": flags}, raise_random_share={"to": 0})
    assert watch.did(service(flags=(DRIFTED,))) == [("block", "blocked")]
    assert watch.did(service()) == [("unblock", "lifted")]


def test_an_excuse_of_a_doubted_label_holds_while_labels_cannot_be_judged() -> None:
    watch = Watch(block_publication={"max_label_suspects": 0, "flags": ["label_suspect"]})
    doubted = StandingFlags("label_suspect", "", "", 3)
    bad = service(suspects=Suspects(400, 3), flags=(doubted,))
    watch.look(bad)
    (ground,) = watch.acts.block.grounds if watch.acts.block else ()
    watch.word("unblock", "by_hand", excused=[ground])
    assert watch.did(service(suspects=Suspects(0, 0, n_unchecked=400))) == []
    assert watch.did(bad) == []
    assert watch.did(service(suspects=Suspects(400, 0))) == []
    assert watch.did(bad) == [("block", "blocked")]
