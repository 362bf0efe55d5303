"""Labels that the model in service contradicts surely, and those that time has overtaken."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import put
from visionloop.config import load_config
from visionloop.lake import Lake
from visionloop.monitoring.ages import with_ages
from visionloop.monitoring.disagreement import (
    Said,
    contradicted,
    disagreement_rows,
    least_holdout,
)
from visionloop.monitoring.stale import added_classes, stale_rows
from visionloop.stages.monitor import monitor
from visionloop.stages.monitor_answers import check_answers
from visionloop.stages.monitor_part import Look
from visionloop.stages.service_records import mark_in_service

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CLASSES = ["cat", "dog", "owl"]


def said(
    labels: Any, answers: Any, sure: Any, holdout: int, *, age_days: int = 10, **changes: Any
) -> Said:
    """Return answers whose first are of the holdout, each with its probability."""
    n = len(labels)
    p = np.repeat((1 - np.asarray(sure, float))[:, None] / 2, 3, axis=1)
    p[np.arange(n), answers] = sure
    return Said(
        "the model of round 1",
        CLASSES,
        [f"s{i:05d}" for i in range(n)],
        np.asarray(labels),
        p,
        [""] * n,
        [NOW] * n,
        [NOW - timedelta(days=age_days)] * n,
        changes.get("confirmed", np.zeros(n, bool)),
        np.zeros(n, bool),
        np.arange(n) < holdout,
    )


def drawn(n: int, holdout: int, rng: np.random.Generator) -> Said:
    """Return answers of a calibrated model to right labels."""
    sure = rng.beta(5, 1.5, n) * (1 - 1 / 3) + 1 / 3
    labels = rng.integers(0, 3, n)
    answers = np.where(rng.random(n) < sure, labels, (labels + rng.integers(1, 3, n)) % 3)
    return said(labels, answers, sure, holdout)


def test_of_right_labels_at_most_the_share_is_contradicted() -> None:
    rng = np.random.default_rng(0)
    flagged = [contradicted(drawn(1200, 200, rng), 0.02).flagged[200:].mean() for _ in range(60)]
    # 60,000 right labels; the standard error of the mean is about 0.001.
    assert np.mean(flagged) <= 0.02 + 0.003


def test_labels_that_were_exchanged_are_found_the_surest_first() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 400)
    wrong = np.arange(350, 380)
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % 3
    sure = np.full(400, 0.97) + rng.uniform(-0.02, 0.02, 400)
    held = said(given, labels, sure, 200)
    found = contradicted(held, 0.01)
    assert set(np.flatnonzero(found.flagged)) == set(wrong)
    rows = disagreement_rows(held, found, 0.01, NOW)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    evidence = json.loads(rows[0]["evidence"])
    at = held.sample_ids.index(rows[0]["subject"])
    assert evidence["as_answered"] == held.probabilities[at].max() == found.as_answered[at]
    assert evidence["calibrated"] == rows[0]["score"] != evidence["as_answered"]
    evidence = json.loads(rows[0]["evidence"])
    assert evidence["label"] != evidence["answered"]
    assert evidence["images"] == [rows[0]["subject"]] and evidence["unit"] == "probability"
    assert "200 labels of the holdout" in evidence["reference"]


def test_labels_of_the_holdout_teach_the_limit_and_are_not_judged_by_it() -> None:
    # Two sure errors among so few labels: the surer one lies above the limit by construction.
    labels = np.zeros(220, dtype=np.int64)
    answers = labels.copy()
    answers[[5, 6, 210]] = 1
    sure = np.full(220, 0.9)
    sure[5], sure[6], sure[210] = 0.99, 0.98, 0.999
    found = contradicted(said(labels, answers, sure, 200), 0.01)
    assert np.flatnonzero(found.flagged).tolist() == [210]


def test_of_answers_calibrated_alike_the_evidence_tells_what_sets_the_flagged_apart() -> None:
    rng = np.random.default_rng(0)
    sure = rng.beta(5, 1.5, 3000) * 2 / 3 + 1 / 3
    labels = rng.integers(0, 3, 3000)
    right = rng.random(3000) < np.where(sure > 0.8, 0.85, 0.5)
    held = said(labels, np.where(right, labels, (labels + 1) % 3), sure, 1500)
    found = contradicted(held, 0.02)
    rows = disagreement_rows(held, found, 0.02, NOW)
    tied = [row for row in rows if row["score"] == row["threshold"]]
    assert 0 < len(tied) < len(rows)
    for row in tied:
        evidence = json.loads(row["evidence"])
        assert evidence["as_answered"] > evidence["as_answered_threshold"]
    equal = found.contradicts & ~held.holdout & (found.confidences == found.limit)
    assert {row["subject"] for row in tied} == {
        held.sample_ids[i]
        for i in np.flatnonzero(equal & (found.as_answered > found.limit_as_answered))
    }
    others = [row for row in rows if row["score"] > row["threshold"]]
    assert not any("as_answered_threshold" in row["evidence"] for row in others)


def test_a_small_holdout_cannot_tell_and_says_how_many_are_needed() -> None:
    rng = np.random.default_rng(2)
    assert (least_holdout(0.01), least_holdout(0.05)) == (99, 19)
    found = contradicted(drawn(300, 98, rng), 0.01)
    assert not found.flagged.any() and np.isnan(found.limit)
    assert found.why == "98 labels of the holdout were answered by this model, 99 are needed"
    assert contradicted(drawn(300, 99, rng), 0.01).why == ""


def test_an_unsure_model_contradicts_nobody() -> None:
    labels, answers = np.zeros(300, int), np.zeros(300, int)
    answers[[*range(110), *range(250, 300)]] = 1  # right in 45 of 100
    unsure = contradicted(said(labels, answers, np.full(300, 0.45), 200), 0.01)
    assert unsure.contradicts[250:].all() and not unsure.flagged.any()


def test_labels_that_people_settled_are_left_alone() -> None:
    labels, answers = np.zeros(300, int), np.zeros(300, int)
    answers[250:] = 1
    settled = np.arange(300) >= 275
    sure = contradicted(said(labels, answers, np.full(300, 0.9), 200, confirmed=settled), 0.01)
    assert np.flatnonzero(sure.flagged).tolist() == list(range(250, 275))


def test_a_class_was_added_when_the_last_model_without_it_was_trained() -> None:
    days = [NOW - timedelta(days=d) for d in (30, 20, 10)]
    lists = (["cat", "dog"], ["cat", "dog"], ["cat", "dog", "owl"])
    models = [{"classes": c, "trained_at": at} for c, at in zip(lists, days, strict=True)]
    assert added_classes(models) == {"owl": days[1]}
    assert added_classes(models[:1]) == added_classes([]) == {}
    undated = {"classes": ["owl"], "trained_at": None}
    assert added_classes([undated, *models]) == {"owl": days[1]}


@pytest.mark.parametrize(
    ("age", "added", "after", "stale"),
    [
        (400, {}, 365, True),
        (300, {}, 365, False),
        (400, {}, 0, False),
        (50, {"dog": NOW - timedelta(days=40)}, 365, True),
        (30, {"dog": NOW - timedelta(days=40)}, 365, False),
        (50, {"owl": NOW - timedelta(days=40)}, 365, False),
    ],
)
def test_a_label_is_stale_when_it_is_old_or_from_before_the_class_and_contradicted(
    age: int, added: dict[str, datetime], after: int, stale: bool
) -> None:
    labels, answers = np.zeros(201, int), np.zeros(201, int)
    answers[200] = 1
    held = said(labels, answers, np.full(201, 0.8), 200, age_days=age)
    rows = stale_rows(held, contradicted(held, 0.01), added, after, NOW)
    assert [row["subject"] for row in rows] == (["s00200"] if stale else [])
    if stale:
        evidence = json.loads(rows[0]["evidence"])
        assert (rows[0]["score"], evidence["unit"]) == (10 if added else age, "days")
        assert rows[0]["score"] > rows[0]["threshold"]


def lake_with_answers(lake: Lake, *, n: int = 130, holdout: int = 110) -> list[str]:
    """Write labels and a model's answers; the last sample's label is contradicted."""
    names = [f"{i:064x}" for i in range(n)]
    put(
        lake,
        "samples",
        [
            {
                "sample_id": s,
                "split": "holdout" if i < holdout else "pool",
                "uri": f"file:///{i}.png",
            }
            for i, s in enumerate(names)
        ],
    )
    then = NOW - timedelta(days=5)
    common = {"task": "classification", "origin": "csv", "annotator": "ann", "created_at": then}
    put(lake, "labels", [{"sample_id": s, "label": "cat", **common} for s in names])
    put(
        lake,
        "experiments",
        [
            {
                "model_id": "m1",
                "arm": "loop",
                "classes": CLASSES,
                "state": "in_service",
                "training_set": "t",
                "trained_at": then,
            }
        ],
    )
    put(lake, "training_sets", [{"training_set": "t", "sample_id": names[-1], "label": "cat"}])
    put(
        lake,
        "predictions",
        [
            {
                "sample_id": s,
                "model_id": "m1",
                "label": "cat",
                "probabilities": [0.9, 0.05, 0.05],
                "predicted_at": then,
            }
            for s in names[:-1]
        ],
    )
    put(
        lake,
        "confidences",
        [
            {
                "sample_id": names[-1],
                "model_id": "m1",
                "endpoint": "door",
                "label": "dog",
                "confidence": 0.98,
                "probabilities": [0.01, 0.98, 0.01],
                "occurred_at": NOW,
                "event_id": "e",
            }
        ],
    )
    return names


def config_of(lake: Lake) -> str:
    return json.dumps({"name": "test", "lake": lake.uri, "labeling": {"provider": "csv"}})


def test_an_answer_in_production_contradicts_a_label_until_people_confirm_it(lake: Lake) -> None:
    names = lake_with_answers(lake)
    monitor(config=config_of(lake))
    (flag,) = lake.read("flags", where="kind == 'confident_disagreement'").to_pylist()
    evidence = json.loads(flag["evidence"])
    assert flag["subject"] == names[-1] and flag["score"] > flag["threshold"]
    assert (evidence["label"], evidence["answered"]) == ("cat", "dog")
    assert (evidence["endpoint"], evidence["answered_at"]) == ("door", "2026-11-01 00:00 UTC")
    assert evidence["trained_on_this_label"] is True
    assert evidence["model"] == "the model of round 0"
    common = {"task": "classification", "origin": "csv", "annotator": "bob", "created_at": NOW}
    put(lake, "labels", [{"sample_id": names[-1], "label": "cat", **common}], "0001")
    monitor(config=config_of(lake))
    assert lake.read("flags", where="kind == 'confident_disagreement'").num_rows == 0


def test_what_a_model_contradicted_is_withdrawn_when_another_one_comes_into_service(
    lake: Lake,
) -> None:
    lake_with_answers(lake)
    monitor(config=config_of(lake))
    before = {"model_id": "m0", "arm": "loop", "classes": CLASSES, "state": "retired"}
    put(lake, "experiments", [{**before, "training_set": "t", "trained_at": NOW}])

    def serve(model_id: str) -> int:
        with lake.run(stage="rollback", round_id="0000") as run:
            mark_in_service(run, model_id)
            run.commit()
        return lake.read("flags", where="kind == 'confident_disagreement'").num_rows

    assert serve("m1") == 1  # it was in service: a publish that is repeated
    assert serve("m0") == 0


def test_an_hour_that_passes_changes_no_flag_of_a_stale_label_and_its_age_is_told(
    lake: Lake,
) -> None:
    lake_with_answers(lake)

    def look(now: datetime) -> str:
        loop = load_config(config_of(lake)[:-1] + ', "monitoring": {"stale_after_days": 3}}')
        with lake.run(stage="monitor", round_id="0000") as run:
            check_answers(Look(lake, run, loop, "", now))
            return run.commit()

    first = look(NOW)
    flag_table = lake.read("flags", where="kind == 'stale_label'")
    (flag,) = flag_table.to_pylist()
    assert (flag["score"], flag["threshold"]) == (5.0, 3.0)
    snapshot = lake.snapshot("flags")
    assert look(NOW + timedelta(hours=1)) == first
    assert lake.snapshot("flags") == snapshot
    later = NOW + timedelta(days=40)
    (aged,) = with_ages(flag_table, later, None).to_pylist()
    assert aged["score"] == 45.0
    # A label that is given anew is another one.
    common = {"task": "classification", "origin": "csv", "annotator": "ann", "created_at": NOW}
    put(lake, "labels", [{"sample_id": flag["subject"], "label": "cat", **common}], "0001")
    assert look(NOW + timedelta(hours=2)) != first
    assert lake.read("flags", where="kind == 'stale_label'").num_rows == 0


def test_a_sample_that_is_only_guessed_contradicts_nothing(lake: Lake) -> None:
    names = lake_with_answers(lake)
    guessed = {
        "sample_id": names[-2],
        "model_id": "m1",
        "probabilities": [0.0, 1.0, 0.0],
        "occurred_at": NOW,
        "linked_by": "embedding",
        "event_id": "g",
    }
    put(lake, "confidences", [guessed])
    monitor(config=config_of(lake))
    flags = lake.read("flags", where="kind == 'confident_disagreement'").to_pylist()
    assert [row["subject"] for row in flags] == [names[-1]]
