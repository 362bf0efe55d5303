"""What answers come to: who is one person, what was said when, and which models are listened to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.labeling.file_tool import PROVIDER
from tests.labeling.trust.test_consensus import CLASSES, crowd
from visionloop.config import LoopConfig
from visionloop.labeling.deciding import Decision, decide_requests

START = datetime(2026, 1, 1, tzinfo=UTC)


def loop(**trust: Any) -> LoopConfig:
    labeling = {"provider": PROVIDER, "trust": trust}
    return LoopConfig.model_validate({"lake": "/data/lake", "labeling": labeling})


def asked(sample: str = "s", purpose: str = "training", answers: int = 1) -> dict[str, Any]:
    return {"sample_id": sample, "purpose": purpose, "answers": answers}


def said(who: str, label: str | None, day: int, sample: str = "s") -> dict[str, Any]:
    at = START + timedelta(days=day)
    told = {"sample_id": sample, "annotator": who, "external_id": "t", "label": label}
    told |= {"state": "done" if label else "skipped", "boxes": None, "seconds": 1.0}
    return told | {"created_at": at, "updated_at": at}


def decided(request: dict[str, Any], *answers: dict[str, Any], **more: Any) -> Decision:
    trust = more.pop("trust", {})
    found = decide_requests([request], answers, loop(**trust), classes=CLASSES, **more)
    return found["s"]


AGAIN = asked(purpose="relabel")


def test_whoever_contradicts_themselves_is_no_second_opinion() -> None:
    before = [said("anna", "cat", 1)]
    found = decided(AGAIN, said("anna", "dog", 9), earlier=before)
    assert found.outcome == "conflict"
    assert found.evidence["votes"] == {"anna, earlier": "cat", "anna": "dog"}
    both = (said("anna", "dog", 9), said("bob", "dog", 10))
    found = decided({**AGAIN, "answers": 2}, *both, earlier=before)
    assert (found.outcome, found.label, found.annotators) == ("labelled", "dog", ("anna", "bob"))


def test_whoever_says_the_same_again_is_one_person() -> None:
    found = decided(AGAIN, said("anna", "cat", 9), earlier=[said("anna", "cat", 1)])
    assert (found.outcome, found.label) == ("labelled", "cat")
    assert found.annotators == ("anna",) and found.quality is None


def test_a_label_that_is_doubted_is_known_by_who_gave_it() -> None:
    label = {"sample_id": "s", "annotator": "anna", "label": "cat", "boxes": None, "origin": "x"}
    found = decided(AGAIN, said("anna", "dog", 9), labels={"s": label})
    assert found.outcome == "conflict"


@pytest.mark.parametrize("order", [1, -1])
def test_what_was_said_last_counts_in_whatever_order_rows_lie(order: int) -> None:
    before = [said("anna", "cat", 1), said("anna", "dog", 5)][::order]
    found = decided(AGAIN, said("bob", "dog", 9), earlier=before)
    assert (found.outcome, found.label) == ("labelled", "dog")


def test_agreement_is_of_all_who_were_asked_and_a_skip_is_none() -> None:
    answers = [said("anna", "cat", 1), said("bob", "cat", 2), said("carl", None, 3)]
    request = asked(answers=3)
    assert decided(request, *answers, trust={"consensus": "agreement"}).outcome == "conflict"
    skips = [said(who, None, 1) for who in ("anna", "bob", "carl")]
    assert decided(request, *skips, trust={"consensus": "agreement"}).outcome == "skipped"


def test_who_is_outvoted_by_skipping_lowers_the_quality() -> None:
    answers = [said("anna", "cat", 1), said("bob", "cat", 2), said("carl", None, 3)]
    found = decided(asked(answers=3), *answers)
    assert found.outcome == "labelled" and found.quality == pytest.approx(2 / 3)
    assert found.evidence["skipped"] == ["carl"] and found.annotators == ("anna", "bob")
    found = decided(asked(answers=3), *answers, trust={"min_quality": 0.7})
    assert found.outcome == "conflict" and "min_quality 0.7" in found.evidence["note"]


def test_crowdlab_learns_from_earlier_rounds_what_models_say_of_them() -> None:
    answers, _, p = crowd()
    now = [a for a in answers if a.sample_id < "s005"]
    requests = [asked(sample, answers=2) for sample in sorted({a.sample_id for a in now})]
    rows = [said(a.annotator, a.label, 9, a.sample_id) for a in now]
    before = [said(a.annotator, a.label, 1, a.sample_id) for a in answers if a not in now]
    wanted: set[str] = set()

    def told(samples: Collection[str]) -> Mapping[str, np.ndarray]:
        wanted.update(samples)
        return {sample: p[sample] for sample in samples}

    config = loop(consensus="crowdlab")
    found = decide_requests(
        requests, rows, config, classes=CLASSES, earlier=before, probabilities=told
    )
    methods = {one.evidence["method"] for one in found.values() if one.evidence}
    assert methods == {"crowdlab"}
    people = {s: {a.annotator for a in answers if a.sample_id == s} for s in p}
    assert wanted == {s for s, own in people.items() if len(own) > 1}


def test_the_default_weighs_no_model() -> None:
    def never(samples: Collection[str]) -> Mapping[str, np.ndarray]:
        raise AssertionError(samples)

    answers = [said("anna", "cat", 1), said("bob", "cat", 2)]
    found = decided(asked(answers=2), *answers, probabilities=never)
    assert found.evidence["method"] == "majority" and found.evidence["note"] == ""
