"""Annotators: each rate is of what it says, and says when it is of too little."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from visionloop.labeling.trust.agreement import agreement_of
from visionloop.labeling.trust.annotators import (
    AnnotatorRow,
    annotator_table,
    first_answers,
    gold_labels,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(
    sample: str, name: str, label: str | None, state: str = "done", **more: Any
) -> dict[str, Any]:
    fields = {"seconds": None, "updated_at": NOW}
    return {"sample_id": sample, "annotator": name, "label": label, "state": state} | fields | more


def table(rows: list[dict[str, Any]], **more: Any) -> dict[str, AnnotatorRow]:
    arguments = {"compared": rows, "labels": {}, "gold": {}} | more
    return {one.annotator: one for one in annotator_table(rows, **arguments)}


def test_each_state_is_counted_and_skips_have_their_share() -> None:
    rows = [
        row("a", "ann", "cat", seconds=2.0),
        row("b", "ann", "dog", seconds=10.0),
        row("c", "ann", None, "skipped", seconds=3.0),
        row("d", "ann", None, "draft", seconds=99.0),
        row("e", "ann", "cow", "rejected", seconds=99.0),
    ]
    ann = table(rows)["ann"]
    assert (ann.n, ann.skipped, ann.drafts, ann.rejected) == (2, 1, 1, 1)
    assert ann.skipped_share.value == pytest.approx(1 / 3)
    assert ann.median_seconds == 3.0
    assert ann.with_others.value is None and ann.with_others.n == 0


def test_agreement_with_others_leaves_the_own_vote_out_and_with_the_consensus_does_not() -> None:
    rows = [
        *(row("a", name, "cat") for name in ("ann", "bob")),
        row("a", "eve", "dog"),
        row("alone", "eve", "dog"),
        *(row("conflict", name, label) for name, label in (("ann", "cat"), ("eve", "dog"))),
    ]
    compared = [*rows[:2], *rows[3:]]
    found = table(rows, compared=compared, labels={"a": "cat", "alone": "dog"})
    ann = found["ann"].with_others
    assert ann.value == pytest.approx(1 / 2) and ann.n == 2  # bob; not eve
    assert found["ann"].with_consensus == found["bob"].with_consensus
    assert found["ann"].with_consensus.value == 1 and found["ann"].with_consensus.n == 1
    assert found["eve"].with_consensus.value == 0 and found["eve"].with_consensus.n == 1


def test_a_few_answers_are_not_enough_and_their_interval_is_wide() -> None:
    rows = [row(f"s{i}", "ann", "cat") for i in range(25)]
    gold = {f"s{i}": "cat" for i in range(25)}
    whole = table(rows, gold=gold)["ann"].with_gold
    few = table(rows[:3], gold=gold)["ann"].with_gold
    assert whole.enough and not few.enough
    assert whole.value == few.value == 1
    assert few.low < 0.5 < whole.low < whole.high == 1


def test_a_persons_latest_answer_to_a_sample_counts() -> None:
    rows = [
        row("a", "ann", "dog", updated_at=NOW + timedelta(days=1)),
        row("a", "ann", "cat"),
    ]
    assert table(rows, gold={"a": "dog"})["ann"].with_gold.value == 1


def drawn_rounds(n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return requests and answers: all are right four times of five; a third breaks a tie."""
    rng = np.random.default_rng(0)
    requests, rows = [], []
    for i in range(n):
        truth = rng.integers(4)
        own = [int(truth if rng.random() < 0.8 else rng.integers(4)) for _ in range(3)]
        requests.append({"sample_id": f"s{i}", "purpose": "training"})
        people = rng.permutation(4)
        for k, label in enumerate(own if own[0] != own[1] else own[:2]):
            at = NOW + timedelta(hours=k)
            # Who is third is always the same person.
            name = "p3" if k == 2 else f"p{people[people != 3][k]}"
            rows.append(row(f"s{i}", name, str(label), created_at=at, updated_at=at))
    return requests, rows


def test_people_who_are_equally_good_agree_equally_whoever_breaks_ties() -> None:
    requests, rows = drawn_rounds(3000)
    compared = first_answers(requests, rows)
    said: dict[str, dict[str, str]] = {}
    for one in compared:
        said.setdefault(one["sample_id"], {})[one["annotator"]] = one["label"]
    told = agreement_of(said, {}, 0.5)
    # Both right, or wrong alike: .85² + 3 * .05² of all, of which chance makes a quarter.
    expected = (0.85**2 + 3 * 0.05**2 - 0.25) / 0.75
    assert told["fleiss_kappa"]["value"] == pytest.approx(expected, abs=0.03)
    assert len(told["cohen_kappa"]) == 3
    for pair in told["cohen_kappa"]:
        assert pair["value"] == pytest.approx(expected, abs=0.06)
    found = table(rows, compared=compared)
    values = [found[f"p{i}"].with_others.value for i in range(3)]
    assert values == pytest.approx([0.73] * 3, abs=0.03)
    assert found["p3"].with_others.n == 0 and found["p3"].n > 500
    assert found["p0"].with_others.n == found["p0"].n


def test_of_a_sample_that_is_asked_again_nobody_is_compared_and_a_correction_is_no_third() -> None:
    requests = [
        {"sample_id": "a", "purpose": "holdout"},
        {"sample_id": "again", "purpose": "relabel"},
    ]
    late = NOW + timedelta(days=3)
    rows = [
        row("a", "ann", "dog", created_at=NOW, updated_at=late),
        row("a", "bob", "cat", created_at=NOW + timedelta(hours=1)),
        row("a", "eve", "dog", created_at=NOW + timedelta(hours=2)),
        row("again", "ann", "dog", created_at=NOW),
        row("again", "bob", "dog", created_at=NOW),
    ]
    found = first_answers(requests, rows)
    assert [(one["annotator"], one["label"]) for one in found] == [("ann", "dog"), ("bob", "cat")]


def test_gold_is_what_was_known_before_or_comes_of_many() -> None:
    answers = {
        "imported": {"label": "cat", "origin": "import", "n_annotations": None},
        "one": {"label": "cat", "origin": "label_studio", "n_annotations": 1},
        "many": {"label": "dog", "origin": "label_studio", "n_annotations": 3},
        "skipped": {"label": None, "origin": "import", "n_annotations": None},
        "pool": {"label": "cat", "origin": "import", "n_annotations": None},
    }
    assert gold_labels(answers, {"imported", "one", "many", "skipped"}) == {
        "imported": "cat",
        "many": "dog",
    }


def test_rows_come_by_the_number_of_answers_and_fit_json() -> None:
    rows = [row("a", "bob", "cat"), row("a", "ann", "cat"), row("b", "bob", "cat")]
    found = annotator_table(rows, compared=rows, labels={"a": "cat"}, gold={}, quality={"bob": 0.9})
    assert [one.annotator for one in found] == ["bob", "ann"]
    assert found[0].quality == 0.9 and found[1].quality is None
    text = json.dumps([one.plain() for one in found], allow_nan=False)
    assert json.loads(text)[0]["with_others"]["value"] == 1
