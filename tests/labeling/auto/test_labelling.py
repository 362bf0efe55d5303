"""A model labels where the holdout proves that it may, and people have the last word."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.labeling.auto.lakes import CLASSES, Labelled
from visionloop.labeling.auto.earlier import nth_model
from visionloop.labeling.auto.proof import miss_of
from visionloop.labeling.auto.share import drawn, within_share
from visionloop.lake import Lake


def sure_when_high(number: int, confidence: float) -> bool:
    """Return what a model says that is right from .8 on, and else every second time."""
    return confidence > 0.8 or number % 2 == 0


@pytest.fixture
def loop(lake: Lake) -> Labelled:
    return Labelled(lake, sure_when_high)


def test_without_the_setting_nothing_is_labelled_and_nothing_noted(loop: Labelled) -> None:
    loop.auto = {}
    loop.request()
    assert not loop.automatic() and not loop.audits()
    assert not loop.lake.read("decisions").num_rows


def test_a_proven_model_labels_what_it_is_sure_of_and_says_whose_and_how_sure(
    loop: Labelled,
) -> None:
    loop.auto["max_share"] = 1.0
    loop.request()
    found, told = loop.automatic(), loop.decision()
    threshold = told["inputs"]["proof"]["threshold"]
    assert 0.75 < threshold < 0.9
    rest = set(loop.pool) - set(loop.people)
    assert found.keys() == {s for s in rest if loop.confidence[s] >= threshold}
    for sample, row in found.items():
        assert row["model_id"] == "m1" and row["n_annotations"] is None
        assert row["quality"] == pytest.approx(loop.confidence[sample])
    wrong = [s for s, row in found.items() if row["label"] != loop.truth[s]]
    # Each is right with .95 at least; of so many, two standard deviations more may be wrong.
    assert len(wrong) <= 0.05 * len(found) + 2 * (0.05 * 0.95 * len(found)) ** 0.5
    assert told["outcome"] == "labelled" and told["subject"] == "m1"
    assert told["inputs"]["labelled"] == len(found)
    assert told["inputs"]["proof"]["low"] >= 0.95
    assert told["inputs"]["audit_propensity"] == 0.1


def test_asking_again_changes_nothing(loop: Labelled) -> None:
    loop.request()
    before = loop.automatic(), loop.audits(), loop.lake.read("labels").num_rows
    loop.request()
    assert (loop.automatic(), loop.audits(), loop.lake.read("labels").num_rows) == before
    assert loop.lake.read("decisions", where="decision == 'auto_labels'").num_rows == 1


def test_an_unproven_model_labels_nothing_and_says_why(lake: Lake) -> None:
    loop = Labelled(lake, lambda number, confidence: number % 3 > 0)
    loop.request()
    assert not loop.automatic()
    assert "is not shown" in loop.decision()["reason"]


def test_too_few_labels_of_people_in_the_holdout_are_too_few_to_say(lake: Lake) -> None:
    loop = Labelled(lake, lambda number, confidence: True, holdout=40)
    loop.request()
    assert not loop.automatic()
    assert "too few to say: 40 samples" in loop.decision()["reason"]


def test_labels_that_a_model_gave_the_holdout_prove_nothing(lake: Lake) -> None:
    loop = Labelled(lake, lambda number, confidence: True, holdout=40)
    more = [s for s in loop.pool if s not in loop.people][:100]
    # As if somebody moved samples with automatic labels into the holdout.
    loop.say(more, "model", annotator="model", model_id="m0")
    samples = loop.lake.read("samples").to_pylist()
    for row in samples:
        row["split"] = "holdout" if row["sample_id"] in more else row["split"]
    import pyarrow as pa

    with loop.lake.run(stage="test", round_id="0000") as run:
        run.replace("samples", pa.Table.from_pylist(samples), "sample_id != ''")
        run.commit()
    loop.request()
    assert not loop.automatic().keys() - set(more)
    assert "40 samples of the holdout have a person's answer" in loop.decision()["reason"]


def test_who_is_doubtful_asked_about_or_a_copy_never_gets_one(loop: Labelled) -> None:
    loop.auto["max_share"] = 1.0
    rest = [s for s in loop.pool if s not in loop.people and loop.confidence[s] > 0.97]
    flagged, reserved, picked, skipped, torn, asked, copy, twin = rest[:8]
    now = datetime.now(UTC)
    loop.write("flags", [{"subject": flagged, "subject_type": "sample", "kind": "outlier",
                          "stage": "monitor", "evidence": "{}", "flagged_at": now}])  # fmt: skip
    loop.write("selections", [{"sample_id": picked, "rank": 0}])
    loop.say([skipped], "skipped", label=None)
    loop.say([torn], "conflict", label=None)
    loop.write("label_requests", [{"sample_id": asked, "purpose": "training", "provider": "x",
                                   "requested_at": now}])  # fmt: skip
    import pyarrow as pa

    rows = loop.lake.read("samples").to_pylist()
    prints = {row["sample_id"]: row["fingerprint"] for row in rows}
    for row in rows:
        if row["sample_id"] == reserved:
            row["split"] = "reserved"
        elif row["sample_id"] == copy:
            row["fingerprint"] = prints[loop.holdout[0]]
        elif row["sample_id"] == twin:
            row["fingerprint"] = prints[loop.people[0]]
    with loop.lake.run(stage="test", round_id="0000") as run:
        run.replace("samples", pa.Table.from_pylist(rows), "sample_id != ''")
        run.commit()
    loop.request()
    found = loop.automatic()
    assert found and not found.keys() & {*rest[:8], *loop.holdout, *loop.people}
    assert set(rest[8:]) <= found.keys()


def test_a_persons_label_wins_whenever_it_was_given(loop: Labelled) -> None:
    loop.request()
    sample = next(iter(loop.automatic()))
    loop.say([sample], created_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert sample not in loop.automatic()
    loop.request()
    assert sample not in loop.automatic()


def test_no_more_than_the_stated_share_is_automatic(loop: Labelled) -> None:
    loop.auto["max_share"] = 0.2
    loop.request()
    assert len(loop.automatic()) == 15  # of 75, 60 being people's
    loop.auto["max_share"] = 0.5
    loop.request()
    assert len(loop.automatic()) == 60
    loop.auto["max_share"] = 0.0
    loop.request()
    assert not loop.automatic()


def test_the_share_is_a_random_draw_that_grows_with_peoples_labels() -> None:
    samples = [f"s{number}" for number in range(1000)]
    few, more = within_share(samples, 50, 0.5), within_share(reversed(samples), 100, 0.5)
    assert len(few) == 50 and len(more) == 100 and few < more
    assert within_share(samples, 0, 0.5) == set() and within_share(samples, 0, 1) == set(samples)
    assert 0.4 < sum(drawn("x", s) for s in samples) / 1000 < 0.6


def test_a_new_model_labels_anew_and_what_the_old_one_said_is_taken_back(loop: Labelled) -> None:
    loop.request()
    loop.serve("m2", lambda number, confidence: confidence > 0.7 or number % 2 == 0)
    loop.request()
    assert {row["model_id"] for row in loop.automatic().values()} == {"m2"}
    loop.serve("m3", lambda number, confidence: number % 2 == 0)
    loop.request()
    assert not loop.automatic()
    assert loop.decision()["outcome"] == "none"


def test_a_model_gives_no_label_to_what_it_has_trained_on_and_the_first_ones_stay(
    loop: Labelled,
) -> None:
    loop.auto["max_share"] = 1.0
    loop.request()
    first = loop.automatic()
    taught = sorted(first)[:-5]
    # It repeats what it was taught, and would be as sure of the opposite.
    loop.serve("m2", lambda number, confidence: True, [*loop.people, *taught])
    loop.request()
    now = loop.automatic()
    assert {sample: now[sample] for sample in taught} == {s: first[s] for s in taught}
    others = {now[sample]["model_id"] for sample in now.keys() - set(taught)}
    assert others == {"m2"}
    # It labels from .6 on what no model had been sure of.
    assert len(now) > len(first) + 20
    before = loop.lake.read("labels").num_rows
    loop.request()
    assert loop.automatic() == now and loop.lake.read("labels").num_rows == before
    # More is stated than the first one has proved, and nobody else can vouch for these.
    loop.auto["precision"] = 0.96
    loop.request()
    assert not set(taught) & loop.automatic().keys()


def test_labels_of_a_model_that_audits_refute_do_not_stay_with_its_successor(
    loop: Labelled,
) -> None:
    loop.auto["max_share"] = 1.0
    loop.request()
    taught = sorted(loop.automatic())
    loop.serve("m2", lambda number, confidence: True, [*loop.people, *taught])
    loop.write("flags", [{"subject": "m1", "subject_type": "model", "evidence": "{}",
                          "kind": "auto_labels_withdrawn", "stage": "collect_labels",
                          "flagged_at": datetime.now(UTC)}])  # fmt: skip
    loop.request()
    assert loop.automatic() and not set(taught) & loop.automatic().keys()


def test_what_an_earlier_model_took_out_of_the_pool_proves_nothing_about_the_rest(
    loop: Labelled,
) -> None:
    loop.auto["max_share"] = 1.0
    loop.request()
    taught = sorted(loop.automatic())
    threshold = loop.decision()["inputs"]["proof"]["threshold"]
    sure = [s for s in loop.holdout if loop.confidence[s] >= threshold]

    # Right of nearly all that the first has labelled, and of the rest as often as a coin.
    def second(number: int, confidence: float) -> bool:
        return confidence >= threshold or number % 2 == 0

    loop.serve("m2", second, [*loop.people, *taught])
    loop.request()
    proof = loop.decision()["inputs"]["proof"]
    assert proof["n_holdout"] == len(loop.holdout) - len(sure)
    assert loop.automatic().keys() == set(taught)


def test_a_loops_second_model_is_proved_with_less_error_and_the_same_model_with_as_much(
    loop: Labelled,
) -> None:
    for model, nth in (("m1", 1), ("m2", 2), ("m3", 3), ("m2", 2)):
        loop.serve(model, lambda number, confidence: True)
        loop.request()
        assert loop.decision()["subject"] == model
        assert 0 < loop.decision()["inputs"]["proof"]["miss"] <= miss_of(nth)
        decisions = loop.lake.read("decisions").to_pylist()
        assert nth_model(decisions, model) == nth


def test_holdout_samples_that_nobody_can_label_are_wrong_as_they_are_in_audits(
    loop: Labelled,
) -> None:
    loop.request()
    assert loop.automatic()
    threshold = loop.decision()["inputs"]["proof"]["threshold"]
    sure = [s for s in loop.holdout if loop.confidence[s] >= threshold]
    loop.say(sure[: len(sure) // 5], "skipped", label=None)
    loop.request()
    told = loop.decision()["inputs"]["proof"]
    assert told["n_holdout"] == len(loop.holdout) and told["threshold"] is None
    assert not loop.automatic()


def test_second_opinions_that_models_asked_for_prove_nothing(lake: Lake) -> None:
    """A model that is asked to doubt only what it does not share looks better each time."""
    loop = Labelled(lake, lambda number, confidence: number % 5 > 0)
    wrong = [s for s in loop.holdout if loop.number[s] % 5 == 0]
    now = datetime.now(UTC)
    loop.write("label_requests", [{"sample_id": s, "purpose": "relabel", "provider": "x",
                                   "requested_at": now} for s in wrong])  # fmt: skip
    for sample in wrong:
        other = CLASSES[1 - CLASSES.index(loop.truth[sample])]
        loop.say([sample], "label_studio", label=other, n_annotations=1)
    loop.request()
    assert not loop.automatic() and "is not shown" in loop.decision()["reason"]


def test_switched_off_again_all_are_taken_back(loop: Labelled) -> None:
    loop.request()
    assert loop.automatic()
    loop.auto = {}
    loop.request()
    assert not loop.automatic()
    assert "is 0" in loop.decision()["reason"]


def test_audits_are_a_random_share_asked_as_everything_else(loop: Labelled) -> None:
    loop.auto |= {"audit": 0.3, "max_share": 0.7}
    loop.request()
    audits, found = loop.audits(), loop.automatic()
    assert set(audits) == {s for s in found if drawn("audit m1", s) < 0.3}
    assert 0.15 < len(audits) / len(found) < 0.45
    shown = loop.desk.tasks[audits[0]]["shown"]
    # Neither that it is an audit's nor what the model said is to be seen.
    assert shown["label"] is None and "random" in shown["reason"].lower()


def test_good_audits_leave_the_labels_and_become_peoples(loop: Labelled) -> None:
    loop.auto |= {"audit": 0.3, "max_share": 0.7}
    loop.request()
    found = loop.automatic()
    for sample in loop.audits():
        loop.desk.answer(sample, found[sample]["label"])
    assert loop.collect().trainable_version
    assert loop.automatic().keys() == found.keys() - set(loop.audits())
    assert not loop.lake.read("flags").num_rows


def test_bad_audits_take_every_label_of_the_model_back_and_flag_it(loop: Labelled) -> None:
    loop.auto |= {"audit": 0.3, "max_share": 0.7}
    loop.request()
    found = loop.automatic()
    audits = loop.audits()
    for number, sample in enumerate(audits):
        label = found[sample]["label"]
        other = CLASSES[1 - CLASSES.index(label)]
        # Of two wrong ones one is a picture that nobody can label.
        if number == 0:
            loop.desk.answer(sample, None, state="skipped")
        else:
            loop.desk.answer(sample, other if number % 3 == 0 else label)
    loop.collect()
    assert not loop.automatic()
    (flag,) = loop.lake.read("flags").to_pylist()
    assert (flag["kind"], flag["subject"], flag["subject_type"]) == (
        "auto_labels_withdrawn", "m1", "model",
    )  # fmt: skip
    assert flag["threshold"] == 0.95 and flag["score"] < 0.8
    rows = loop.lake.read("labels").num_rows
    loop.collect()
    assert loop.lake.read("labels").num_rows == rows
    # Nothing more of this model; another one has to prove itself anew.
    loop.request()
    assert not loop.automatic()
    assert "more errors" in loop.decision()["reason"]
    loop.serve("m2", lambda number, confidence: True)
    loop.request()
    assert {row["model_id"] for row in loop.automatic().values()} == {"m2"}


def test_audits_are_asked_once_and_count_in_later_rounds(loop: Labelled) -> None:
    loop.auto |= {"audit": 0.3, "max_share": 0.7}
    loop.request()
    first = loop.audits()
    for sample in first:
        loop.desk.answer(sample, loop.automatic()[sample]["label"])
    loop.collect()
    with loop.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done")
        run.commit()
    assert loop.lake.rounds.open("run").round_id == "0001"
    loop.request()
    rows = loop.lake.read("label_requests", where="round_id == '0001'").to_pylist()
    assert not {row["sample_id"] for row in rows} & set(first)
    assert loop.automatic()
    # A label of round 0000 is taken back in round 0001.
    loop.serve("m2", lambda number, confidence: number % 2 == 0)
    loop.request()
    assert not loop.automatic()
