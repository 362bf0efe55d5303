"""What the report tells of acts of the watch, of drift, and of people who label."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.report.lakes import START, Rows, sample_id
from visionloop.monitoring.report.load import load_report
from visionloop.monitoring.report.summary import summary


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_a_block_and_a_raised_random_share_stand_until_they_are_lifted(rows: Rows) -> None:
    rows.pictures(range(3))

    def decision(name: str, outcome: str, minute: int, **inputs: object) -> dict[str, object]:
        return {
            "decision": name,
            "subject": "digits",
            "outcome": outcome,
            "reason": "drift of the endpoint digits",
            "inputs": json.dumps(inputs),
            "decided_at": START + timedelta(minutes=minute),
        }

    rows.write(
        "watch",
        decisions=[
            decision("block", "blocked", 1),
            decision("random_share", "raised", 2, to=0.5),
        ],
    )
    data = load_report(rows.lake, pictures=False)
    assert [one.act for one in data.acts] == ["block", "random_share"]
    assert data.verdict.state == "act"
    assert data.acts[1].text == "The random share is raised to 50%: drift of the endpoint digits."
    rows.write("watch", decisions=[decision("unblock", "lifted", 3)])
    data = load_report(rows.lake, pictures=False)
    assert [one.act for one in data.acts] == ["random_share"]
    assert data.verdict.state == "look"


def test_labels_are_overdue_at_the_time_of_the_report_whether_or_not_a_stage_ran_since(
    rows: Rows,
) -> None:
    rows.pictures(range(3))
    rows.lake.rounds.open("run")
    with rows.lake.run(stage="request_labels", round_id="0000", run_id="run") as run:
        run.set_round(state="waiting", counts={"labels_missing": 3})
        run.commit()
    opened = rows.lake.rounds.all()[0].opened_at

    def told(**options: Any) -> list[str]:
        data = load_report(rows.lake, pictures=False, **options)
        return [one.key for one in data.verdict.findings if one.key.startswith("labels_")]

    assert told() == ["labels_awaited"]
    assert told(now=opened + timedelta(days=8)) == ["labels_overdue"]
    before = rows.lake.version()
    rows.pictures(range(3, 5))
    assert told(version=before, now=opened + timedelta(days=8)) == ["labels_awaited"]


def compared(round_id: str, state: str, score: float | None, against: str) -> dict[str, object]:
    return {
        "subject": "gate-north",
        "subject_type": "source",
        "kind": "pixel_drift",
        "round_id": round_id,
        "against": against,
        "reference": "earlier images",
        "model_id": "",
        "state": state,
        "reason": "" if score is not None else "12 and 400 images, 100 of each are needed",
        "score": score,
        "threshold": 0.15,
        "unit": "Kolmogorov-Smirnov distance",
        "p_value": 0.001,
        "n_reference": 400,
        "n_current": 120,
    }


def test_drift_over_rounds_tells_the_gravest_comparison_and_what_cannot_be_told(
    rows: Rows,
) -> None:
    rows.pictures(range(3))
    rows.write("monitor", outputs={"comparisons": [compared("0000", "too few to say", None, "a")]})
    data = load_report(rows.lake, pictures=False)
    assert "1 cannot be told" in data.drift_note
    rows.write(
        "monitor",
        "0001",
        outputs={
            "comparisons": [
                compared("0001", "stable", 0.05, "a"),
                compared("0001", "drift", 0.4, "b"),
            ]
        },
    )
    (series,) = load_report(rows.lake, pictures=False).drift
    assert [(point.round_id, point.state, point.score) for point in series.points] == [
        ("0000", "too few to say", None),
        ("0001", "drift", 0.4),
    ]
    assert series.state == "drift"
    assert not series.standing


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("round 0003", "round 3"),  # as an earlier visionloop wrote it
        ("round 3", "round 3"),
        ("holdout", "the holdout"),
    ],
)
def test_the_window_that_one_drifted_from_is_named_as_rounds_are(
    rows: Rows, against: str, said: str
) -> None:
    one = {"endpoint": "door", "model_id": "m", "confidence": 0.9, "label": "cat"}
    rows.write("harvest", "0004", confidences=[one])
    changes = {"subject": "door", "subject_type": "endpoint", "model_id": "m"}
    found = compared("0004", "drift", 0.4, against) | changes
    rows.write("monitor", "0004", outputs={"comparisons": [found]})
    (window,) = load_report(rows.lake, pictures=False).windows
    (line,) = window.flags
    assert f", against {said}: 0.4" in line


def test_without_any_comparison_nothing_is_said_to_be_stable(rows: Rows) -> None:
    rows.pictures(range(3))
    data = load_report(rows.lake, pictures=False)
    assert data.drift_note == "No monitor has run yet: whether anything drifts cannot be told."
    rows.write("monitor", outputs={"comparisons": []})
    assert "cannot be told" in load_report(rows.lake, pictures=False).drift_note


def test_annotators_have_numbers_and_no_names(rows: Rows) -> None:
    rows.pictures(range(60), holdout=range(30))
    rows.write(
        "collect_labels",
        label_requests=[
            {
                "sample_id": sample_id(n),
                "purpose": "training",
                "provider": "label_studio",
                "external_id": str(n),
                "requested_at": START,
                "answers": 2,
                "recalled": False,
            }
            for n in range(60)
        ],
        annotations=[
            {
                "sample_id": sample_id(n),
                "provider": "label_studio",
                "external_id": f"{n}-{who}",
                "annotator": who,
                "state": "done",
                "label": "cat" if n % 4 or who == "ann@example.org" else "dog",
                "seconds": 4.0,
                "created_at": START,
                "updated_at": START,
            }
            for n in range(60)
            for who in ("ann@example.org", "bob@example.org")
            if who.startswith("ann") or n < 30
        ],
    )
    told = load_report(rows.lake, pictures=False).annotators
    assert [(line.name, line.answers) for line in told.rows] == [
        ("annotator 1", 60),
        ("annotator 2", 30),
    ]
    assert told.rows[0].seconds == 4.0
    agreement = told.rows[0].agreement
    assert agreement is not None
    assert (agreement.n, round(agreement.value, 3)) == (30, round(22 / 30, 3))
    assert "example.org" not in json.dumps(summary(load_report(rows.lake, pictures=False)))


def test_requests_of_every_purpose_and_answers_of_every_kind_are_accounted_for(rows: Rows) -> None:
    rows.pictures(range(30), holdout=range(20, 24))

    def label(n: int, **changed: object) -> dict[str, object]:
        return {
            "sample_id": sample_id(n),
            "task": "classification",
            "label": "cat",
            "origin": "csv",
            "annotator": "a",
            "created_at": START + timedelta(hours=1),
            "n_annotations": 1,
            **changed,
        }

    def request(n: int, purpose: str, **changed: object) -> dict[str, object]:
        return {
            "sample_id": sample_id(n),
            "purpose": purpose,
            "provider": "csv",
            "external_id": str(n),
            "requested_at": START,
            "answers": 1,
            "recalled": False,
            **changed,
        }

    rows.write("import", labels=[label(10, origin="import", n_annotations=None, created_at=START)])
    rows.write(
        "select",
        outputs={"pool": 26, "eligible": 20, "removed": {"labelled already": 1, "flagged dark": 5}},
        counts={"selected": 10},
        selections=[
            {
                "sample_id": sample_id(n),
                "rank": n,
                "objectives": "{}",
                "arm": "selected",
                "selected_at": START,
            }
            for n in range(10)
        ],
    )
    rows.write(
        "request_labels",
        label_requests=[
            *(request(n, "training") for n in range(6)),
            request(6, "training", recalled=True),
            *(request(n, "holdout") for n in range(20, 24)),
            request(10, "relabel"),
        ],
    )
    rows.write(
        "collect_labels",
        labels=[
            *(label(n) for n in (0, 1, 2, 20, 21)),
            label(3, label=None, origin="skipped"),
            label(4, label=None, origin="conflict"),
            *(
                label(n, origin="model", annotator="model", n_annotations=None, model_id="m")
                for n in (7, 8)
            ),
        ],
    )
    rows.write(
        "collect_labels",
        annotations=[
            {
                "sample_id": sample_id(4),
                "provider": "csv",
                "external_id": "4",
                "annotator": who,
                "state": "done",
                "label": said,
                "created_at": START,
                "updated_at": START,
            }
            for who, said in (("a", "cat"), ("b", "dog"))
        ],
    )
    learned = (0, 1, 2, 7, 8, 10)
    rows.write(
        "train",
        experiments=[
            {
                "model_id": "m0000-a",
                "arm": "loop",
                "training_set": "digest",
                "n_labels": 4,
                "trained_at": START,
                "state": "trained",
            }
        ],
        training_sets=[
            {"training_set": "digest", "sample_id": sample_id(n), "label": "cat", "position": i}
            for i, n in enumerate(learned)
        ],
    )
    data = load_report(rows.lake, pictures=False)
    (account,) = data.accounts
    assert [step.key for step in account.steps if not step.adds_up] == []
    assert [step.key for step in data.total.steps if not step.adds_up] == []
    asked = account.step("requested")
    answered = account.step("answered")
    trained = account.step("trained")
    assert asked is not None
    assert answered is not None
    assert trained is not None
    assert (asked.n, asked.of) == (12, 10)
    assert {part.name: part.n for part in asked.rest} == {
        "labelled by the model": 2,
        "could not be shown": 1,
    }
    assert {part.name: part.n for part in asked.entered} == {
        "pictures of the holdout": 4,
        "labels in doubt that are asked about again": 1,
    }
    assert answered.n == 5
    assert {part.name: part.n for part in answered.rest} == {
        "skipped": 1,
        "answered differently by several people": 1,
        "taken back": 1,
        "not answered yet": 4,
    }
    assert (trained.n, trained.of) == (6, 5)
    labels = data.total.step("labels")
    assert labels is not None
    assert {part.name: part.n for part in labels.kept} == {
        "answered in a file": 5,
        "imported with the pictures": 1,
        "labelled by a model": 2,
    }
    assert (data.cost.labels, data.cost.holdout_labels) == (3, 2)
    assert (data.cost.imported_labels, data.cost.model_labels) == (1, 2)


def test_labels_of_objects_alone_are_bought_like_those_of_a_class_and_once_a_picture(
    rows: Rows,
) -> None:
    rows.pictures(range(10), holdout=[9])
    box = {"label": "cat", "x_min": 0.1, "y_min": 0.1, "x_max": 0.6, "y_max": 0.6}

    def row(n: int, minute: int = 0, **told: Any) -> dict[str, Any]:
        return {
            "sample_id": sample_id(n),
            "origin": "csv",
            "annotator": "a",
            "task": "detection",
            "boxes": [box],
            "created_at": START + timedelta(minutes=minute),
            "n_annotations": 1,
            **told,
        }

    rows.write(
        "collect_labels",
        labels=[
            row(0),
            row(0, 1),  # corrected: still one
            row(1, boxes=[]),  # nothing is there
            row(2, label="cat", task="classification", boxes=None),
            row(3, label="cat", task=None),  # a class, and where it is
            row(4, n_annotations=None, origin="import"),
            row(5, origin="model", annotator="model", n_annotations=None),
            row(6),
            row(6, 1, origin="withdrawn", annotator="csv", boxes=None, n_annotations=0),
            row(7, origin="skipped", boxes=None),
            row(9),
        ],
    )
    cost = load_report(rows.lake, pictures=False).cost
    assert (cost.labels, cost.holdout_labels) == (4, 1)
    assert (cost.imported_labels, cost.model_labels) == (1, 1)
    assert [one.labels for one in cost.rounds] == [4]
