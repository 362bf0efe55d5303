"""Consensus: what answers come to, and that no conflict is resolved in silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from cleanlab.multiannotator import get_label_quality_multiannotator

from visionloop.errors import InputError
from visionloop.labeling.config import TrustConfig
from visionloop.labeling.provider import Box
from visionloop.labeling.trust.consensus import Answered, decide
from visionloop.labeling.trust.crowdlab import ENOUGH

CLASSES = ["cat", "dog", "owl"]


def trust(consensus: str = "majority", **more: float) -> TrustConfig:
    return TrustConfig.model_validate({"consensus": consensus, **more})


def said(sample: str, *labels: str | None) -> list[Answered]:
    return [Answered(sample, f"person{i}", label) for i, label in enumerate(labels)]


def drew(sample: str, *boxes: Sequence[Box]) -> list[Answered]:
    return [Answered(sample, f"person{i}", None, tuple(own)) for i, own in enumerate(boxes)]


def box(x: float, label: str = "cat", y: float = 0.0) -> Box:
    return Box(x, y, x + 10, y + 10, label)


def test_one_answer_is_taken_as_it_is() -> None:
    found = decide(said("s", "cat"), CLASSES, config=trust("crowdlab", min_quality=1.0))["s"]
    assert (found.label, found.conflict, found.quality, found.method) == (
        "cat",
        False,
        None,
        "single",
    )


def test_the_majority_wins_and_tells_its_share() -> None:
    found = decide(said("s", "cat", "dog", "cat"), CLASSES, config=trust())["s"]
    assert found.label == "cat" and not found.conflict
    assert found.quality == found.agreement == pytest.approx(2 / 3)
    assert found.votes == {"person0": "cat", "person1": "dog", "person2": "cat"}
    assert found.n_annotators == 3 and found.method == "majority"


@pytest.mark.parametrize(
    "labels", [("cat", "dog"), ("cat", "dog", "owl"), ("cat", "cat", "dog", "dog")]
)
@pytest.mark.parametrize("method", ["majority", "agreement", "crowdlab"])
def test_a_tie_is_a_conflict(labels: tuple[str, ...], method: str) -> None:
    found = decide(said("s", *labels), CLASSES, config=trust(method, min_quality=0.0))["s"]
    assert found.conflict and found.label is None and found.note
    assert found.evidence()["votes"]["person0"] == "cat"


def test_agreement_takes_only_what_all_say() -> None:
    answers = said("a", "cat", "cat", "dog") + said("b", "cat", "cat")
    found = decide(answers, CLASSES, config=trust("agreement"))
    assert found["a"].conflict and found["b"].label == "cat"


def test_less_quality_than_configured_is_a_conflict() -> None:
    answers = said("s", "cat", "cat", "dog")
    assert decide(answers, CLASSES, config=trust(min_quality=0.6))["s"].label == "cat"
    found = decide(answers, CLASSES, config=trust(min_quality=0.7))["s"]
    assert found.conflict and "min_quality 0.7" in found.note


def test_a_later_answer_of_the_same_person_takes_the_place_of_the_earlier() -> None:
    answers = [Answered("s", "a", "cat"), Answered("s", "b", "dog"), Answered("s", "a", "dog")]
    found = decide(answers, CLASSES, config=trust())["s"]
    assert found.label == "dog" and found.n_annotators == 2


def test_earlier_answers_to_a_sample_count_and_other_samples_are_not_decided_again() -> None:
    history = [Answered("s", "a", "cat"), Answered("other", "a", "owl")]
    found = decide([Answered("s", "b", "dog")], CLASSES, config=trust(), history=history)
    assert list(found) == ["s"] and found["s"].conflict
    assert found["s"].votes == {"a": "cat", "b": "dog"}


def test_a_class_that_the_loop_lacks_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"`cst` \(did you mean `cat`"):
        decide(said("s", "cst"), CLASSES, config=trust())
    assert decide(said("s", "cst"), [], config=trust())["s"].label == "cst"


def crowd(seed: int = 0, n: int = 80) -> tuple[list[Answered], np.ndarray, dict[str, np.ndarray]]:
    """Two good annotators, a bad one, and a model that is right four times of five."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    answers = []
    for name, wrong in (("good", 0.05), ("fair", 0.1), ("bad", 0.5)):
        answered = np.where(rng.random(n) < wrong, rng.integers(0, 3, n), truth)
        for i in range(n):
            if rng.random() < 0.8:
                answers.append(Answered(f"s{i:03d}", name, CLASSES[answered[i]]))
    seen = np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), truth)
    p = np.full((n, 3), 0.1) + 0.7 * np.eye(3)[seen]
    return answers, truth, {f"s{i:03d}": row.astype(np.float32) for i, row in enumerate(p)}


def test_crowdlab_is_cleanlabs() -> None:
    answers, _, probabilities = crowd()
    samples = sorted({a.sample_id for a in answers})
    given = np.full((len(samples), 3), np.nan)
    for a in answers:
        column = ["bad", "fair", "good"].index(a.annotator)
        given[samples.index(a.sample_id), column] = CLASSES.index(str(a.label))
    p = np.array([probabilities[s] for s in samples], dtype=float)
    peer = get_label_quality_multiannotator(given, p / p.sum(1, keepdims=True), verbose=False)
    found = decide(answers, CLASSES, config=trust("crowdlab"), probabilities=probabilities)
    of_peer = peer["label_quality"]
    compared = 0
    for i, sample in enumerate(samples):
        one = found[sample]
        if one.n_annotators == 1:
            assert one.method == "single" and one.quality is None
            continue
        assert one.quality == pytest.approx(of_peer["consensus_quality_score"][i], abs=1e-6)
        if not one.conflict:
            assert one.label == CLASSES[of_peer["consensus_label"][i]]
            compared += 1
    assert compared > 50
    for j, name in enumerate(["bad", "fair", "good"]):
        expected = peer["annotator_stats"]["annotator_quality"][j]
        told = next(f for f in found.values() if f.method == "crowdlab" and name in f.votes)
        assert told.annotator_quality[name] == pytest.approx(expected, abs=1e-6)


def test_crowdlab_is_more_often_right_than_the_majority() -> None:
    right = {"crowdlab": 0, "majority": 0}
    for seed in range(10):
        answers, truth, probabilities = crowd(seed)
        for method in right:
            config = trust(method, min_quality=0.0)
            found = decide(answers, CLASSES, config=config, probabilities=probabilities)
            right[method] += sum(
                one.label == CLASSES[truth[int(sample[1:])]]
                for sample, one in found.items()
                if one.n_annotators > 1
            )
    assert right["crowdlab"] > right["majority"]


def test_crowdlab_says_when_it_cannot_weigh_and_takes_the_majority() -> None:
    answers, _, probabilities = crowd()
    few = [a for a in answers if a.sample_id < f"s{ENOUGH - 5:03d}"]
    found = decide(few, CLASSES, config=trust("crowdlab"), probabilities=probabilities)
    several = [one for one in found.values() if one.n_annotators > 1]
    assert several
    assert all(one.method == "majority" and "crowdlab needs" in one.note for one in several)
    without = dict(probabilities)
    del without[next(s for s, one in found.items() if one.n_annotators > 1)]
    found = decide(answers, CLASSES, config=trust("crowdlab"), probabilities=without)
    assert {one.method for one in found.values()} == {"single", "majority", "crowdlab"}


def test_history_is_what_crowdlab_learns_its_weights_from() -> None:
    answers, _, probabilities = crowd()
    now = [a for a in answers if a.sample_id < "s005"]
    before = [a for a in answers if a.sample_id >= "s005"]
    alone = decide(now, CLASSES, config=trust("crowdlab"), probabilities=probabilities)
    learned = decide(
        now, CLASSES, config=trust("crowdlab"), probabilities=probabilities, history=before
    )
    assert "crowdlab" not in {one.method for one in alone.values()}
    assert "crowdlab" in {one.method for one in learned.values()}
    assert learned.keys() == alone.keys()


def test_what_the_model_alone_says_is_a_conflict() -> None:
    answers, _, _ = crowd()
    # A model that agrees with most and is very sure of another class where two people differ.
    votes: dict[str, list[str]] = {}
    for a in answers:
        votes.setdefault(a.sample_id, []).append(str(a.label))
    p = {}
    for sample, own in votes.items():
        top = max(set(own), key=own.count)
        p[sample] = np.where(np.array(CLASSES) == top, 0.98, 0.01)
    p["odd"] = np.array([0.0, 0.0, 1.0])
    answers += [Answered("odd", "bad", "cat"), Answered("odd", "good", "dog")]
    config = trust("crowdlab", min_quality=0.0)
    found = decide(answers, CLASSES, config=config, probabilities=p)["odd"]
    assert found.conflict and "nobody said" in found.note


def test_the_boxes_of_most_are_taken_at_the_median() -> None:
    answers = drew("s", [box(0), box(50)], [box(1), box(80)], [box(3, "dog"), box(50.5)])
    found = decide(answers, CLASSES, config=trust())["s"]
    assert found.boxes == (Box(1, 0, 11, 10, "cat"), Box(50.25, 0, 60.25, 10, "cat"))
    assert found.label is None and not found.conflict
    assert found.quality == pytest.approx((2 / 3 + 2 / 3 + 2 / 3) / 3)


def test_boxes_that_half_drew_are_a_conflict() -> None:
    found = decide(drew("s", [box(0)], []), CLASSES, config=trust())["s"]
    assert found.conflict and found.boxes is None and "half" in found.note


def test_a_tie_of_classes_of_a_box_is_a_conflict() -> None:
    found = decide(drew("s", [box(0)], [box(0, "dog")]), CLASSES, config=trust())["s"]
    assert found.conflict and "tie of classes" in found.note


def test_people_who_all_see_no_object_agree_that_there_is_none() -> None:
    found = decide(drew("s", [], []), CLASSES, config=trust("agreement"))["s"]
    assert found.boxes == () and not found.conflict and found.quality == 1


def test_two_boxes_of_one_person_are_never_one_object() -> None:
    answers = drew("s", [box(0), box(2)], [box(0), box(2)], [box(1)])
    found = decide(answers, CLASSES, config=trust(min_quality=0.0))["s"]
    assert found.boxes is not None and len(found.boxes) == 2


def test_a_conflict_in_the_boxes_keeps_the_class_back_too() -> None:
    answers = [
        Answered("s", "a", "cat", (box(0),)),
        Answered("s", "b", "cat", ()),
    ]
    found = decide(answers, CLASSES, config=trust())["s"]
    assert found.conflict and found.label is None and found.boxes is None
    assert found.votes == {"a": "cat, 1 boxes", "b": "cat, 0 boxes"}
