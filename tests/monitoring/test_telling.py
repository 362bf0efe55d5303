"""How evidence reads: rounds by one name, confidences by what they are, thresholds explained."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visionloop.monitoring.report.charts.reading import apart
from visionloop.monitoring.telling import evidence_lines, measured_apart
from visionloop.words import in_round, round_id_of, round_name, round_number


def row(kind: str, score: float | None, threshold: float | None, **evidence: Any) -> dict[str, Any]:
    return {
        "subject": "a" * 64,
        "subject_type": "sample",
        "kind": kind,
        "score": score,
        "threshold": threshold,
        "evidence": json.dumps(evidence),
    }


@pytest.mark.parametrize(
    ("round_id", "upcoming", "words"),
    [
        ("0002", "", ("2", "round 2", "in round 2")),
        ("0002", "0003", ("2", "round 2", "in round 2")),
        ("0003", "0003", ("after 2", "after round 2", "after round 2")),
        ("0000", "0000", ("before 0", "before round 0", "before round 0")),
        ("0000", "0001", ("0", "round 0", "in round 0")),
        ("trial a", "0001", ("trial a", "round trial a", "in round trial a")),
        ("", "0001", ("", "", "")),
        ("²", "0001", ("²", "round ²", "in round ²")),
    ],
)
def test_what_ran_after_a_round_is_not_told_to_be_of_one_that_never_was(
    round_id: str, upcoming: str, words: tuple[str, str, str]
) -> None:
    number, name = round_number(round_id, upcoming), round_name(round_id, upcoming)
    assert (number, name, in_round(round_id, upcoming)) == words


def test_a_round_is_found_by_each_way_that_it_is_written() -> None:
    assert {round_id_of(text) for text in ("3", "0003", "round 3", " Round 3 ")} == {"0003"}
    assert [round_id_of(text) for text in ("", "last", "³")] == ["", "last", "³"]


def test_evidence_names_the_round_as_the_page_does() -> None:
    held = row("embedding_drift", None, None, harvested_in_round="0003")
    assert evidence_lines(held) == ["harvested in round 3"]
    assert evidence_lines(held, "0003") == ["harvested after round 2"]


def test_an_answer_is_told_with_both_of_its_confidences_and_which_is_which() -> None:
    sure = {"label": "cat", "answered": "dog", "as_answered": 0.926, "calibrated": 0.81}
    assert evidence_lines(row("confident_disagreement", 0.81, 0.75, **sure)) == [
        "labelled cat, answered dog",
        "92.6% sure as answered, 81.0% calibrated on the holdout, threshold 75.0%",
    ]
    stale = evidence_lines(row("stale_label", 400.0, 365.0, why="labelled long ago", **sure))
    assert stale[2] == "92.6% sure as answered, 81.0% calibrated on the holdout"


def test_answers_calibrated_to_the_threshold_itself_are_told_with_what_decided() -> None:
    sure = {"label": "cat", "answered": "dog", "as_answered": 0.99001, "calibrated": 0.926}
    held = row("confident_disagreement", 0.926, 0.926, as_answered_threshold=0.98999, **sure)
    assert evidence_lines(held)[1] == (
        "99.001% sure as answered, 92.6% calibrated on the holdout, threshold 92.6%, and of "
        "equal ones those above 98.999% as answered"
    )


def test_the_threshold_of_a_doubted_label_is_explained() -> None:
    held = row("label_suspect", 0.152, 0.751, label="coat", suggested="shirt", holdout=False)
    assert evidence_lines(held) == [
        "labelled coat, likelier shirt",
        "the label has a probability of 15.2%, shirt one of 75.1%: a label is doubted where "
        "another class is likelier",
    ]


@pytest.mark.parametrize(
    ("value", "threshold", "unit", "said"),
    [
        (0.9264, 0.9259, "probability", ("92.64%", "92.59%")),
        (0.93, 0.5, "share", ("93.0%", "50.0%")),
        (4.1234, 4.1226, "bits", ("4.1234 bits", "4.1226 bits")),
        (12345.4, 12345.3, "", ("12,345.4", "12,345.3")),
        (0.5, 0.5, "share", ("50.0%", "50.0%")),
        (0.000123, 0.000124, "share", ("0.000123", "0.000124")),
    ],
)
def test_a_score_and_a_threshold_that_differ_read_differently(
    value: float, threshold: float, unit: str, said: tuple[str, str]
) -> None:
    assert measured_apart(value, threshold, unit) == said
    assert apart(value, None, unit)[1] == "\u2013"
