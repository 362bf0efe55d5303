"""What there is too little of to be judged is told, with how many there are and are needed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.report.lakes import Rows
from visionloop.lake import Lake
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.outliers import Outliers, find_outliers
from visionloop.monitoring.report.build import build_report
from visionloop.monitoring.report.load import load_report
from visionloop.monitoring.report.summary import numbers, summary
from visionloop.monitoring.silence import silences
from visionloop.monitoring.unjudged import (
    QUALITY,
    Unjudged,
    of_answers,
    of_comparisons,
    of_labels,
    of_pictures,
    of_silences,
    read_unjudged,
    title_of,
    with_earlier,
)
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor


def test_every_group_of_pictures_says_how_many_there_are_and_how_many_it_takes() -> None:
    thresholds = MonitoringConfig(min_population=30, outlier_min_reference=200)
    ids = [f"{n:064x}" for n in range(50)]
    vectors = np.random.Generator(np.random.PCG64(0)).normal(size=(50, 4)).astype(np.float32)
    found = find_outliers(set(ids[40:]) | {"x"}, lambda: [(pa.array(ids), vectors)], thresholds)
    rows = {one.kinds: one for one in of_pictures(found, 12, 29, thresholds)}
    assert (rows[QUALITY].have, rows[QUALITY].needed) == ({"": 12}, 30)
    assert (rows[("semantic_duplicate",)].have, rows[("semantic_duplicate",)].needed) == (
        {"": 29},
        30,
    )
    few, without = of_pictures(found, 30, 30, thresholds)
    assert (few.n, few.have, few.needed) == (10, {"": 50}, 200)
    assert few.text.startswith("10 new pictures were not judged: 50 samples with an embedding")
    assert without.text == "1 new picture has no embedding."
    assert of_pictures(Outliers(n_judged=10), 30, None, thresholds) == ()


def test_pictures_that_were_never_judged_are_told_of_for_good() -> None:
    thresholds = MonitoringConfig(min_population=50, outlier_min_reference=200)
    few = Outliers(0, 0, 60, "60 samples with an embedding are too few to tell what is usual")
    first = with_earlier(of_pictures(few, 40, 60, thresholds), ())
    assert [(one.kinds, one.n) for one in first] == [(QUALITY, 40), (("outlier",), 60)]
    few = Outliers(0, 2, 3, "63 samples with an embedding are too few to tell what is usual")
    second = with_earlier(of_pictures(few, 43, 63, thresholds), first)
    # What counts all pictures so far has the earlier ones in it.
    assert [(one.kinds, one.n, one.earlier) for one in second] == [
        (QUALITY, 43, False),
        (("outlier",), 3, False),
        (("outlier",), 2, False),
        (("outlier",), 60, True),
    ]
    assert with_earlier(None, second) == second
    third = with_earlier(of_pictures(Outliers(n_judged=300), 363, 363, thresholds), second)
    assert third == with_earlier((), third)
    assert [(one.kinds, one.n) for one in third] == [(QUALITY, 43), (("outlier",), 65)]
    # Dark is dark whatever is usual.
    assert third[0].earlier and third[0].text == (
        "43 pictures that came in earlier were judged by the absolute limits alone: each is looked "
        "at once."
    )
    assert third[1].text == (
        "65 pictures that came in earlier were not judged: each is looked at once."
    )
    assert read_unjudged([one.plain() for one in third]) == third


def test_what_the_configuration_switches_off_is_not_called_too_few_to_say() -> None:
    off = MonitoringConfig(outlier_share=0, min_population=30)
    ids = [f"{n:064x}" for n in range(50)]
    found = find_outliers(set(ids), lambda: [(pa.array(ids), np.eye(50, 4, dtype=np.float32))], off)
    assert of_pictures(found, 30, None, off) == ()


def test_labels_are_told_by_why_with_what_would_do() -> None:
    from visionloop.labeling.trust.suspect_flags import TOO_FEW, TOO_WEAK

    told = {"in": 40, "why_unchecked": {TOO_FEW: 12, "automatic": 1}, "doubt": None}
    (few,) = of_labels(told)
    assert (few.n, few.needed) == (12, 15)
    assert few.text == (
        "12 of 40 labels were not judged: of a class that too few labels of the pool teach "
        "(15 are needed)."
    )
    one = {"in": 40, "why_unchecked": {"without an embedding": 1}, "doubt": None}
    assert of_labels(one)[0].text == "1 of 40 labels was not judged: without an embedding."
    weak = {"in": 40, "why_unchecked": {TOO_WEAK: 40}, "doubt": {"skill": 0.4, "least_skill": 0.65}}
    assert "(skill 0.40, 0.65 is needed)" in of_labels(weak)[0].text
    assert of_labels({}) == []


def test_a_small_holdout_and_new_cameras_say_how_far_they_are() -> None:
    assert of_answers("", 10, 120, 99) == []
    # Without a model in service no number of labels would do.
    (none,) = of_answers("no model in service has answered", 0, None, 99)
    assert (none.needed, none.have) == (None, {})
    (one,) = of_answers("40 labels of the holdout were answered", 60, 40, 99)
    assert (one.kinds, one.n, one.have, one.needed) == (
        ("confident_disagreement", "stale_label"),
        60,
        {"": 40},
        99,
    )
    heard = {
        f"camera {i}": np.datetime64("2026-03-01") + np.arange(n) * np.timedelta64(1, "D")
        for i, n in enumerate([2, 4, 3, 5, 40])
    }
    thresholds = MonitoringConfig()
    judged = silences(heard, datetime(2026, 4, 20, tzinfo=UTC), thresholds)
    (few,) = of_silences(judged, thresholds.silence_min_gaps)
    assert (few.n, few.needed) == (4, 10)
    assert next(iter(few.have.items())) == ("camera 3", 4)
    assert few.text == (
        "4 cameras have too few gaps or days before to tell a pace, 10 are needed: camera 3 (4), "
        "camera 1 (3), camera 2 (2) and 1 more."
    )


def test_measures_of_drift_are_told_together_where_they_lack_the_same() -> None:
    def row(
        kind: str, state: str, subject: str = "gate", reason: str = "12 images"
    ) -> dict[str, str]:
        return {"kind": kind, "subject": subject, "state": state, "reason": reason}

    rows = [
        row("pixel_drift", "too few to say"),
        row("prediction_drift", "nothing to compare"),
        row("pixel_drift", "stable", "dock"),
    ]
    (one,) = of_comparisons(rows)
    assert (one.kinds, one.text) == (("pixel_drift", "prediction_drift"), "gate: 12 images.")
    assert title_of(one) == "Pixel drift, prediction drift"


def test_what_was_not_judged_is_read_as_it_was_written() -> None:
    one = Unjudged(("camera_silent",), "2 cameras.", 2, 10, {"a": 3, "b": 1})
    assert read_unjudged(json.loads(json.dumps([one.plain()]))) == (one,)


def test_the_monitor_the_page_and_the_numbers_tell_the_same_until_there_is_enough(
    tmp_path: Path,
) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.Generator(np.random.PCG64(0))
    for n in range(4):
        Image.fromarray((rng.random((20, 20, 3)) * 255).astype(np.uint8)).save(photos / f"{n}.png")
    config = json.dumps(
        {
            "name": "test",
            "lake": str(tmp_path / "lake"),
            "sources": [{"uri": str(photos)}],
            "labeling": {"provider": "csv"},
        }
    )
    ingest(config=config)
    page = tmp_path / "page.md"
    monitor(config=config, page=SimpleNamespace(path=str(page), uri=str(page), metadata={}))
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    data = load_report(lake, pictures=False)
    told = summary(data)["not_judged"]
    kinds = {kind for one in told for kind in one["kinds"]}
    assert {"blurred", "slow_stage", "camera_silent", "pixel_drift", "outlier"} <= kinds
    assert numbers(summary(data))["n_not_judged"] == len(told)
    markdown, html = page.read_text(), build_report(lake)
    assert "Not judged: too few to say" in markdown and "Not judged: too few to say" in html
    for one in data.not_judged:
        assert title_of(one) in markdown and title_of(one) in html
    (quality,) = (one for one in told if "blurred" in one["kinds"])
    assert quality["have"] == {"": 4} and quality["text"] in html and quality["text"] in markdown
    assert "not_judged" in {one.key for one in data.verdict.findings}
    # Nothing is new at a second look: what the pictures were not judged for still holds.
    monitor(config=config)
    again = load_report(lake, pictures=False).not_judged
    assert [one for one in again if "blurred" in one.kinds] == [
        one for one in data.not_judged if "blurred" in one.kinds
    ]
    # Two more come: those before were not judged either, and the verdict names what is so now.
    outliers = [one for one in data.not_judged if one.kinds == ("outlier",)]
    assert [(one.n, one.earlier) for one in outliers] == [(4, False)]
    for i in (4, 5):
        Image.fromarray((rng.random((20, 20, 3)) * 255).astype(np.uint8)).save(photos / f"{i}.png")
    ingest(config=config)
    monitor(config=config)
    grown = load_report(lake, pictures=False)
    outliers = [one for one in grown.not_judged if one.kinds == ("outlier",)]
    assert [(one.n, one.earlier) for one in outliers] == [(2, False), (4, True)]
    off = json.dumps(json.loads(config) | {"monitoring": {"outlier_share": 0}})
    monitor(config=off)
    grown = load_report(lake, pictures=False)
    assert not [one for one in grown.not_judged if "outlier" in one.kinds]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_labels_that_a_publication_judged_are_told_of_as_it_judged_them(rows: Rows) -> None:
    rows.pictures(range(3))
    old = {"in": 3, "why_unchecked": {"without an embedding": 3}, "doubt": None}
    few = Unjudged(("label_suspect",), "3 of 3 labels were not judged.", 3).plain()
    rows.write("monitor", outputs={"labels": old, "not_judged": [few]})
    assert [one.n for one in load_report(rows.lake, pictures=False).not_judged] == [3]
    new = {"in": 3, "why_unchecked": {}, "doubt": None}
    rows.write("judge_labels", outputs={"labels": new})
    assert load_report(rows.lake, pictures=False).not_judged == ()


def test_a_name_of_anybodys_is_escaped(rows: Rows) -> None:
    rows.pictures(range(3))
    one = Unjudged(("camera_silent",), "1 camera has too few: <script>x</script> (2).", 1, 10)
    rows.write("monitor", outputs={"not_judged": [one.plain()]})
    page = build_report(rows.lake)
    assert "&lt;script&gt;x" in page and "<script>x" not in page
