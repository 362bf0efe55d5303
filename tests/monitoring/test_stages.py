"""The stages `monitor` and `report` on a real lake."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.monitoring.artifacts import Metrics, artifact
from visionloop.demo.world import World
from visionloop.lake import Lake
from visionloop.monitoring.report_place import report_uri
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor
from visionloop.stages.report import report


class Loop:
    """A loop over the demo's world, without a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "world", seed=5)
        self.config = json.dumps(
            {
                "name": "test",
                "lake": str(folder / "lake"),
                "classes": list("0123456789"),
                "sources": [{"uri": str(self.world.bucket), "metadata": "sidecar"}],
                "labeling": {"provider": "csv"},
            }
        )

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / "lake"), loop="test")

    def intake(self, number: int) -> int:
        files = self.world.deliver(number)
        ingest(config=self.config, run_id=f"run-{number}", open_round=True)
        return files


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def confidences(n: int, low: float, high: float, seed: int) -> pa.Table:
    rng = np.random.Generator(np.random.PCG64(seed))
    return pa.table(
        {
            "event_id": [f"{seed}-{i}" for i in range(n)],
            "endpoint": ["digits"] * n,
            "model_id": ["m-1"] * n,
            "label": rng.integers(0, 10, n).astype(str),
            "confidence": rng.uniform(low, high, n).astype(np.float32),
        }
    )


def test_checks_are_written_once_and_every_artifact_reconciles(loop: Loop, tmp_path: Path) -> None:
    files = loop.intake(0)
    metrics, page, dataset = (
        Metrics(),
        artifact(tmp_path / "page.md"),
        artifact(tmp_path / "f.parquet"),
    )
    first = monitor(config=loop.config, flags=dataset, metrics=metrics, page=page)
    checks = loop.lake.read("checks")
    assert checks.num_rows == first.n_checked == files
    states = {s: checks["state"].to_pylist().count(s) for s in ("ok", "flagged", "unreadable")}
    assert metrics.values["n_in"] == files == sum(states.values())
    assert {f"n_{s}": n for s, n in states.items()}.items() <= metrics.values.items()
    planted = loop.world.planted(0)
    assert metrics.values["flag_unreadable"] == planted["unreadable"] == states["unreadable"]
    assert metrics.values["flag_exact_duplicate"] == planted["exact_duplicate"]
    assert pq.read_table(dataset.path).num_rows == loop.lake.read("flags").num_rows
    assert f"| in | {files} |" in Path(page.path).read_text()

    again = monitor(config=loop.config, lake_version=first.lake_version)
    assert (again.lake_version, again.n_checked, again.n_flagged) == (first.lake_version, 0, 0)
    assert loop.lake.read("checks").num_rows == files


def test_a_monitor_that_was_killed_leaves_nothing_and_the_next_does_it_all(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = loop.intake(1)
    version = loop.lake.version()

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("visionloop.lake.run.Run.commit", killed)
        monitor(config=loop.config)
    assert loop.lake.version() == version
    assert loop.lake.read("checks").num_rows == 0
    assert monitor(config=loop.config).n_checked == files
    assert loop.lake.read("flags").num_rows == len(
        {(row["subject"], row["kind"]) for row in loop.lake.read("flags").to_pylist()}
    )


def test_drift_of_an_endpoint_is_flagged_once_a_round(loop: Loop) -> None:
    loop.intake(1)
    for round_id, low, high in (("0000", 0.7, 1.0), ("0001", 0.3, 0.8)):
        with loop.lake.run(stage="harvest", round_id=round_id) as run:
            run.append("confidences", confidences(300, low, high, int(round_id)))
            run.commit()
    for _ in range(2):
        monitor(config=loop.config)
        rows = loop.lake.read("flags", where="subject_type == 'endpoint'").to_pylist()
        (row,) = rows
        assert (row["subject"], row["kind"]) == ("digits", "confidence_drift")
        evidence = json.loads(row["evidence"])
        assert evidence["reference"] == "what the model said in the harvest of round 0 (300 images)"
        assert (evidence["images_now"], evidence["harvested_in_round"]) == (300, "0001")
        assert evidence["now"] < evidence["before"] and evidence["look"] == 2


def test_the_report_of_an_empty_lake_is_a_page(loop: Loop, tmp_path: Path) -> None:
    page = artifact(tmp_path / "page.html")
    assert report(config=loop.config, page=page).n_rounds == 0
    assert "<h1>Nothing yet</h1>" in Path(page.path).read_text()


def test_the_report_shows_found_beside_planted_and_lies_in_the_lake(
    loop: Loop, tmp_path: Path
) -> None:
    loop.intake(1)
    monitor(config=loop.config)
    lake = loop.lake
    planted = {"0000": loop.world.planted(1)}
    lake.storage.write(lake.path("demo", "planted.json"), json.dumps(planted).encode())
    lake.storage.write(lake.path("report.html"), b"a page that somebody wrote")
    page = artifact(tmp_path / "page.html")
    assert report(config=loop.config, page=page).n_rounds == 1
    text = Path(page.path).read_text()
    n = planted["0000"]["unreadable"]
    row = re.search(r"Not readable(?:(?!</tr>).)*</tr>", text, re.DOTALL)
    assert row is not None
    assert f'</th><td class="n">{n}</td><td class="n">{n}</td>' in row.group()
    assert "data:image/png;base64," in text
    assert lake.storage.read(report_uri(lake)).decode() == text
    assert lake.storage.read(lake.path("report.html")) == b"a page that somebody wrote"


def test_pictures_whose_files_are_gone_are_shown_by_the_lakes_thumbnails(
    loop: Loop, tmp_path: Path
) -> None:
    loop.intake(1)
    monitor(config=loop.config)
    flagged = loop.lake.read("flags", where="subject_type == 'sample'")["subject"].to_pylist()
    held = loop.lake.read("thumbnails")
    assert held.num_rows == loop.lake.read("samples").num_rows and flagged
    pages = []
    for path in (tmp_path / "before.html", tmp_path / "after.html"):
        report(config=loop.config, page=artifact(path))
        pages.append(path.read_text().count("data:image/png;base64,"))
        for file in loop.world.bucket.rglob("*.png"):
            file.unlink()
    assert pages[1] > 0
    # Files that are copies have no thumbnail of their own.
    assert pages[1] >= pages[0] / 2


def test_a_round_that_waits_for_labels_says_for_how_many(loop: Loop, tmp_path: Path) -> None:
    loop.intake(1)
    with loop.lake.run(stage="collect_labels") as run:
        run.set_round(state="waiting", counts={"labels_missing": 17})
        run.commit()
    page = artifact(tmp_path / "page.html")
    report(config=loop.config, page=page)
    text = Path(page.path).read_text()
    assert "waits for 17 labels" in text


def test_a_file_without_a_check_is_counted_as_unchecked_in_the_report(loop: Loop) -> None:
    from visionloop.monitoring.report.load import load_report

    files = loop.intake(1)
    (held,) = load_report(loop.lake).rounds
    assert (held.funnel.found, held.funnel.unchecked) == (files, files)
    monitor(config=loop.config)
    (held,) = load_report(loop.lake).rounds
    assert held.funnel.unchecked == 0
    assert held.funnel.adds_up


def test_a_report_of_an_older_version_does_not_know_what_came_later(loop: Loop) -> None:
    from visionloop.monitoring.report.load import load_report

    loop.intake(1)
    before = loop.lake.version()
    monitor(config=loop.config)
    old, new = load_report(loop.lake, version=before), load_report(loop.lake)
    assert not old.flags
    assert "monitor" not in old.rounds[0].seconds
    assert new.flags


def test_a_whole_loop_is_read_from_its_tables(lake: Lake) -> None:
    """Two rounds written by hand: what the page says is what the tables say."""
    from visionloop.monitoring.report.load import load_report

    now = datetime(2026, 11, 22, tzinfo=UTC)
    with lake.run(stage="publish", round_id="0000") as run:
        run.append(
            "samples",
            pa.table(
                {
                    "sample_id": ["a", "b", "c", "h"],
                    "uri": [f"file:///gone/{name}.png" for name in "abch"],
                    "split": ["pool", "pool", "pool", "holdout"],
                }
            ),
        )
        run.append("labels", pa.table({"sample_id": ["a", "h"], "label": ["1", "2"]}))
        run.append(
            "selections",
            pa.table(
                {
                    "sample_id": ["a", "b"],
                    "rank": pa.array([0, 1], pa.int32()),
                    "objectives": ['{"margin": 0.9}', "{}"],
                    "arm": ["selected", "random"],
                }
            ),
        )
        models = [("m-1", "loop", 0.8), ("m-r", "random", 0.6)]
        run.append(
            "experiments",
            pa.table(
                {
                    "model_id": [m for m, _, _ in models],
                    "arm": [arm for _, arm, _ in models],
                    "n_labels": [20, 20],
                    "metrics": [json.dumps({"accuracy": a, "n": 100}) for _, _, a in models],
                    "slices": [
                        json.dumps(
                            [{"column": "camera", "value": "<A>", "n": 10, "accuracy": 0.5}]
                        ),
                        None,
                    ],
                    "confusion": [json.dumps({"classes": ["1", "2"], "counts": [[4, 1], [0, 5]]})]
                    * 2,
                    "trained_at": pa.array([now, now], pa.timestamp("us", tz="UTC")),
                }
            ),
        )
        run.append(
            "decisions",
            pa.table(
                {
                    "decision": ["gate", "publish"],
                    "subject": ["m-1", "m-1"],
                    "outcome": ["passed", "published"],
                    "reason": ["first model", ""],
                    "decided_at": pa.array([now, now], pa.timestamp("us", tz="UTC")),
                }
            ),
        )
        run.append(
            "harvest_events",
            pa.table(
                {"event_id": ["1", "2"], "state": ["orphan", "harvested"], "reason": ["x", ""]}
            ),
        )
        run.append("confidences", confidences(200, 0.5, 1.0, 0))
        run.commit()
    data = load_report(lake)
    (held,) = data.rounds
    assert held.accuracy is not None
    assert held.random_accuracy is not None
    assert (held.accuracy.value, held.random_accuracy.value, held.accuracy.n) == (0.8, 0.6, 100)
    assert (held.gate, held.gate_reason, held.model_id) == ("passed", "first model", "m-1")
    assert (data.in_service, data.n_labels, data.n_holdout) == ("m-1", 1, 1)
    assert (held.funnel.selected, held.funnel.labelled, held.funnel.trained) == (2, 1, 20)
    (gallery,) = data.selections
    assert [p.title for p in gallery.pictures] == ["1", "not labelled yet"]
    assert "margin 0.90" in gallery.pictures[0].lines[1]
    assert data.slices[0].small
    assert data.confusion is not None
    assert data.confusion.counts == ((4, 1), (0, 5))
    assert data.windows[0].n == 200
    assert sum(data.windows[0].histogram) == pytest.approx(1)
    assert {(row.state, row.count) for row in data.harvest} == {("orphan", 1), ("harvested", 1)}
