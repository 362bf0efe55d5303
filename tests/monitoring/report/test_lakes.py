"""What the report makes of lakes in which something is out of the ordinary."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.report.lakes import START, Rows, sample_id
from visionloop.lake import Lake
from visionloop.monitoring.failed_stages import record_failure
from visionloop.monitoring.report import map as report_map
from visionloop.monitoring.report.build import build_report
from visionloop.monitoring.report.failing import reasons_to_fail
from visionloop.monitoring.report.layout import lay_out
from visionloop.monitoring.report.load import load_report
from visionloop.monitoring.report.summary import summary


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_an_empty_lake_has_a_report_that_says_so(tmp_path: Path) -> None:
    data = load_report(Lake.open(str(tmp_path / "lake"), loop="test"))
    assert (data.verdict.state, data.rounds, data.n_samples) == ("nothing yet", (), 0)
    assert data.map.reason == "No picture has an embedding yet: `infer` has not run."
    assert data.total.adds_up
    json.dumps(summary(data), allow_nan=False)


def test_another_loop_of_the_same_lake_is_not_told_of(rows: Rows, tmp_path: Path) -> None:
    rows.pictures(range(5))
    other = Lake.open(str(tmp_path / "lake"), loop="other")
    assert load_report(other).n_samples == 0
    assert load_report(rows.lake).n_samples == 5


def test_pictures_whose_file_is_gone_or_lies_elsewhere_still_add_up(rows: Rows) -> None:
    rows.pictures(range(10))
    with rows.lake.run(stage="ingest", round_id="0001", run_id="run") as run:
        files = run.read("files").to_pylist()
        gone = [{**row, "state": "removed"} for row in files[:3]]
        # One of them was found again at another place, by the next round.
        moved = {**files[0], "uri": "gs://bucket/moved.jpg", "round_id": "0001"}
        table = run.read("files").schema
        run.replace(
            "files", pa.Table.from_pylist([*files[3:], *gone, moved], schema=table), "uri != ''"
        )
        run.commit()
    data = load_report(rows.lake, pictures=False)
    assert data.total.adds_up
    first, second = data.accounts
    assert first.adds_up
    assert second.adds_up
    step = first.step("samples")
    assert step is not None
    assert {part.name: part.n for part in step.entered} == {
        "pictures whose file is gone from its source": 2,
        "pictures whose file another round found": 1,
    }


def test_flags_are_shown_worst_first_in_words_with_what_counts_now(rows: Rows) -> None:
    rows.pictures(range(12))
    dark = [
        {
            "subject": sample_id(n),
            "kind": "dark",
            "score": 0.2 - n / 100,
            "threshold": 0.3,
            "evidence": {"measure": "brightness", "unit": "", "reference": "all pictures"},
        }
        for n in range(9)
    ]
    gone = {"subject": sample_id(99), "kind": "dark", "score": 0.0, "threshold": 0.3}
    camera = {
        "subject": "gate-<north>",
        "subject_type": "camera",
        "kind": "camera_silent",
        "score": 30.0,
        "threshold": 6.0,
        "evidence": {"unit": "hours", "reference": "its own pace", "usual_gap": 2.0},
    }
    rows.flags([*dark, gone, camera])
    data = load_report(rows.lake)
    (kind,) = data.flags
    assert (kind.kind, kind.total, len(kind.gallery.pictures)) == ("dark", 9, 6)
    assert kind.gallery.pictures[0].title == "brightness 0.12, threshold 0.3"
    assert all(picture.thumbnail for picture in kind.gallery.pictures)
    assert data.flag_counts == {"camera_silent": 1, "dark": 9}
    (silent,) = data.standing
    assert (silent.subject, silent.unit, silent.reference) == (
        "gate-<north>",
        "hours",
        "its own pace",
    )
    assert silent.lines == ("usual gap: 2",)


def test_ages_are_told_as_of_the_version_that_the_report_is_of(rows: Rows) -> None:
    rows.pictures(range(2))
    given = {"since": (datetime.now(UTC) - timedelta(days=400)).isoformat(), "unit": "days"}
    flag = {"subject": sample_id(0), "kind": "stale_label", "score": 400.0, "threshold": 365.0}
    rows.flags([{**flag, "evidence": {**given, "measure": "age", "why": "labelled long ago"}}])
    version, later = rows.lake.version(), datetime.now(UTC) + timedelta(days=100)

    def told(version: str | None) -> str:
        (kind,) = load_report(rows.lake, version=version, pictures=False, now=later).flags
        (shown,) = kind.gallery.pictures
        (line,) = [one for one in (shown.title, *shown.lines) if one.startswith("age")]
        return line

    assert told(None) == "age 500 days, threshold 365 days"
    rows.pictures(range(2, 4), "0001")
    assert told(version) == "age 400 days, threshold 365 days"


def test_a_label_that_a_model_contradicts_has_a_gallery_of_its_own(rows: Rows) -> None:
    rows.pictures(range(3))
    rows.flags(
        [
            {
                "subject": sample_id(1),
                "kind": "confident_disagreement",
                "score": 0.98,
                "threshold": 0.9,
                "evidence": {"unit": "probability", "label": "cat", "predicted": "dog"},
            }
        ]
    )
    gallery = load_report(rows.lake).disagreements
    assert gallery is not None
    (picture,) = gallery.pictures
    assert picture.sample_id == sample_id(1)


def test_a_large_lake_is_sampled_with_what_is_worth_a_look_first(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_map, "POINTS", 100)
    monkeypatch.setattr(report_map, "BYTES", 60_000)
    rows.pictures(range(400))
    rows.embeddings(range(400))
    rows.flags(
        [{"subject": sample_id(n), "kind": "dark", "score": 0.1, "threshold": 0.3} for n in (7, 9)]
    )
    rows.write(
        "select",
        selections=[
            {
                "sample_id": sample_id(n),
                "rank": n,
                "objectives": "{}",
                "arm": "selected",
                "selected_at": START + timedelta(minutes=n),
            }
            for n in range(100, 160)
        ],
    )
    found = load_report(rows.lake).map
    assert (len(found.points), found.n_total, found.method) == (100, 400, "t-SNE")
    assert found.sampling == (
        "100 of 400 pictures: the newest 25 that were chosen for labelling, all 2 that were "
        "flagged, and 73 drawn at random."
    )
    shown = {point.sample_id: point for point in found.points}
    assert {sample_id(n) for n in (7, 9, *range(135, 160))} <= shown.keys()
    assert shown[sample_id(7)].flags == ("Dark: 0.1, threshold 0.3",)
    assert sum(map(len, found.thumbnails)) <= 60_000
    assert shown[sample_id(7)].thumbnail >= 0
    assert any(point.thumbnail < 0 for point in found.points)
    assert load_report(rows.lake).map == found


def test_alike_vectors_lie_together_and_the_same_ones_in_the_same_place() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    group = rng.integers(0, 3, 120)
    vectors = rng.normal(size=(120, 16)).astype(np.float32)
    vectors[np.arange(120), group] += 20
    places, method = lay_out(vectors)
    again, _ = lay_out(vectors)
    assert method == "t-SNE"
    assert np.array_equal(places, again)
    assert places.min() >= 0
    assert places.max() <= 1
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).mean() > 0.95


@pytest.mark.parametrize("n", [1, 2, 49])
@pytest.mark.parametrize("same", [True, False])
def test_few_or_equal_vectors_are_laid_out_by_components(n: int, same: bool) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    vectors = np.ones((n, 4), np.float32) if same else rng.normal(size=(n, 4)).astype(np.float32)
    places, method = lay_out(vectors)
    assert (method, places.shape) == ("PCA", (n, 2))
    assert np.isfinite(places).all()


def test_a_stage_that_failed_is_told_though_no_monitor_ran_since(rows: Rows) -> None:
    rows.pictures(range(3))
    record_failure(
        rows.lake,
        {
            "stage": "train",
            "round_id": "0000",
            "run_id": "run",
            "what": "no space left",
            "where": "the disk",
            "remedy": "Free some",
        },
        datetime.now(UTC),
    )
    data = load_report(rows.lake, pictures=False)
    assert data.verdict.state == "act"
    assert "The stage train failed on" in data.verdict.findings[0].text
    assert summary(data)["failed_stages"][0]["what"] == "no space left"
    assert reasons_to_fail(summary(data), ["failed_stage"])


def test_errors_are_told_of_a_model_that_has_predicted_the_holdout_alone(rows: Rows) -> None:
    rows.pictures(range(4), holdout=(0, 1))
    ids = [sample_id(0), sample_id(1)]
    rows.write(
        "evaluate",
        labels=[
            {
                "sample_id": one,
                "label": "cat",
                "origin": "csv",
                "annotator": "",
                "created_at": START,
            }
            for one in ids
        ],
        experiments=[{"model_id": "m", "state": "in_service", "arm": "loop", "trained_at": START}],
        predictions=[
            {"sample_id": one, "model_id": "m", "label": said, "confidence": 0.9}
            for one, said in zip(ids, ("cat", "dog"), strict=True)
        ],
    )
    errors = load_report(rows.lake).errors
    assert errors is not None and errors.total == 1
    assert errors.pictures[0].title == "cat, taken for dog"


def test_a_stage_that_succeeded_since_the_monitor_flagged_it_is_flagged_no_more(
    rows: Rows,
) -> None:
    rows.pictures(range(3))
    flag = {"subject": "train", "subject_type": "stage", "kind": "failed_stage", "score": 1.0}
    rows.flags([{**flag, "stage": "monitor", "evidence": "{}", "flagged_at": START}])
    data = load_report(rows.lake, pictures=False)
    assert not data.standing and not data.flag_counts and not data.failed
    assert reasons_to_fail(summary(data), ["failed_stage"]) == []


def test_of_a_model_that_was_brought_in_by_hand_no_training_is_told(rows: Rows) -> None:
    rows.pictures(range(3), holdout=[0])
    rows.write(
        "publish",
        decisions=[
            {
                "decision": "publish",
                "subject": "resnet-of-ours",
                "outcome": "published",
                "reason": "by hand",
                "inputs": "{}",
                "decided_at": START,
            }
        ],
    )
    page = build_report(rows.lake)
    assert "What it learned from is not on record here." in page
    assert "It was trained" not in page
