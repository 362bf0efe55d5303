"""The report of a real loop: two rounds with models, a random arm and an oracle."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.training.small_loop import N_IMAGES, Folder, SmallLoop
from tests.turning import turn
from visionloop.cli import main
from visionloop.lake import Lake
from visionloop.monitoring.report.data import ReportData
from visionloop.monitoring.report.load import load_report
from visionloop.monitoring.report.summary import numbers, summary
from visionloop.monitoring.report_place import report_uri
from visionloop.stages.ingest import ingest
from visionloop.stages.report import report


@dataclass(frozen=True)
class Turned:
    """A loop after two rounds, and the version after the first."""

    config: str
    lake: Lake
    folder: Path
    after_first: str
    data: ReportData


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Turned:
    folder = tmp_path_factory.mktemp("turned")
    loop = SmallLoop(
        folder,
        selection={"n_samples": 16, "random_share": 0.25},
        training={"epochs": 1, "min_updates": 20, "control_arm": True},
        gates={"min_accuracy": 0.0, "max_drop": 1.0},
    )
    turn(loop.config, "0000", Folder(str(folder / "model-0000")))
    first = loop.lake.version()
    pixels, _ = load_digits(return_X_y=True)
    for i in range(N_IMAGES, N_IMAGES + 20):
        image = (pixels[i].reshape(8, 8) * 15.9).astype(np.uint8)
        Image.fromarray(image).resize((24, 24)).save(loop.images / f"{i:04d}.png")
    shutil.copy(loop.images / "0120.png", loop.images / "again.png")
    (loop.images / "broken.png").write_bytes(b"no picture")
    with (folder / "truth.csv").open("a") as file:
        file.writelines(f"{i:04d}.png,{i % 10}\n" for i in range(N_IMAGES, N_IMAGES + 20))
    ingest(config=loop.config, round_id="0001", run_id="r", open_round=True)
    turn(loop.config, "0001", Folder(str(folder / "model-0001")))
    return Turned(loop.config, loop.lake, folder, first, load_report(loop.lake))


def test_every_step_of_every_round_is_accounted_for(turned: Turned) -> None:
    data = turned.data
    for account in (data.total, *data.accounts):
        assert [s.key for s in account.steps if not s.adds_up] == []
    second = data.accounts[1]
    found = second.step("found")
    samples = second.step("samples")
    assert found is not None
    assert samples is not None
    assert (found.n, samples.n) == (22, 20)
    assert {part.name: part.n for part in samples.rest} == {
        "further copies of a picture": 1,
        "files that cannot be decoded": 1,
    }
    keys = [step.key for step in second.steps]
    assert keys == [
        *("found", "checked", "samples", "embedded", "predicted", "pool"),
        *("selectable", "selected", "requested", "answered", "trained"),
    ]
    trained = second.step("trained")
    assert trained is not None
    assert trained.n == data.rounds[1].labels == 32
    assert {part.n for part in trained.entered} == {16}


def test_models_of_one_holdout_are_compared_picture_by_picture(turned: Turned) -> None:
    data = turned.data
    assert [row.name for row in data.models] == [
        *("model of round 0", "random arm of round 0"),
        *("model of round 1", "random arm of round 1"),
    ]
    for round_id in ("0000", "0001"):
        apart = data.efficiency.differences[round_id]
        assert apart.paired
        mine = next(r for r in data.rounds if r.round_id == round_id)
        assert mine.accuracy is not None
        assert mine.random_accuracy is not None
        # The holdout grew between the rounds: each pair is of the holdout of its time.
        assert apart.n == mine.accuracy.n
        assert apart.value == pytest.approx(mine.accuracy.value - mine.random_accuracy.value)
        assert apart.low <= apart.value <= apart.high
    gained = data.models[2].gained
    assert gained is not None
    assert gained.paired


def test_the_lineage_ends_at_the_samples(turned: Turned) -> None:
    data, line = turned.data, turned.data.lineage
    assert line is not None
    assert (line.model_id, line.name) == (data.in_service, "model of round 1")
    assert line.before == "model of round 0"
    assert {part.name: part.n for part in line.by_round} == {"round 0": 16, "round 1": 16}
    assert sum(part.n for part in line.by_arm) == line.n_samples == 32
    pool = {name.rpartition("/")[2] for name in turned.lake.media().values()}
    assert {row.name for row in line.samples} <= pool
    assert [d.decision for d in line.decisions] == ["gate", "publish"]
    assert "m0000" not in line.decisions[0].reason


def test_costs_add_up_to_the_labels_and_seconds_of_the_stages(turned: Turned) -> None:
    cost = turned.data.cost
    assert (cost.labels, cost.holdout_labels) == (32, turned.data.n_holdout)
    assert sum(row.labels for row in cost.rounds) == cost.labels
    assert sum(row.images for row in cost.rounds) == cost.images == turned.data.n_samples
    spent = sum(row.total_seconds for row in cost.rounds)
    assert spent == pytest.approx(cost.seconds)
    assert cost.gpu_hours == 0.0
    assert "CPU" in cost.gpu_note
    (line,) = turned.data.annotators.rows
    assert line.name == "the oracle"


def test_the_map_tells_of_each_point_what_the_lake_knows(turned: Turned) -> None:
    found = turned.data.map
    assert (found.n_total, len(found.points)) == (turned.data.n_samples, turned.data.n_samples)
    # The model of round 1 was just published and has predicted the holdout alone.
    assert found.predicted_by == (
        "model of round 0: the model of round 1, in service now, has answered the holdout alone "
        "so far"
    )
    assert all(0 <= p.x <= 1 and 0 <= p.y <= 1 for p in found.points)
    picked = [p for p in found.points if p.picked_in]
    assert len(picked) == 32
    assert all(p.label and p.why for p in picked)
    assert all(p.prediction and p.confidence is not None for p in found.points)
    assert all(found.thumbnails[p.thumbnail].startswith("data:image/") for p in found.points)


def test_the_galleries_show_errors_with_the_surest_first(turned: Turned) -> None:
    gallery = turned.data.errors
    assert gallery is not None
    # Right after publication the errors are those of what is served, on the holdout.
    assert gallery.note.startswith("Answers of the model of round 1, in service; it has answered")
    assert {line for picture in gallery.pictures for line in picture.lines[1:]} <= {
        "of the holdout"
    }
    sure = [float(picture.lines[0].split("%")[0]) for picture in gallery.pictures]
    assert sure == sorted(sure, reverse=True)
    assert [g.heading for g in turned.data.selections] == ["Round 1", "Round 0"]
    assert all(p.thumbnail and p.lines for p in turned.data.selections[0].pictures)


def test_a_report_of_an_older_version_knows_nothing_of_what_came_after(turned: Turned) -> None:
    data = load_report(turned.lake, version=turned.after_first, pictures=False)
    assert [r.round_id for r in data.rounds] == ["0000"]
    assert data.in_service_name == "model of round 0"
    assert data.total.adds_up
    assert data.n_samples == N_IMAGES


def test_the_same_version_gives_the_same_data(turned: Turned) -> None:
    assert load_report(turned.lake) == turned.data


def test_numbers_are_those_of_the_page_and_fit_json(turned: Turned) -> None:
    told = summary(turned.data)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["in_service"]["accuracy"]["n"] == turned.data.n_holdout
    assert told["rounds"][1]["labels"] == 32
    flat = numbers(told)
    assert flat["funnel_samples"] == turned.data.n_samples
    assert flat["accuracy"] == told["in_service"]["accuracy"]["value"]


def test_the_stage_logs_the_numbers_and_the_verdict(turned: Turned, tmp_path: Path) -> None:
    page, metrics = Folder(str(tmp_path / "page")), Folder(str(tmp_path / "metrics"))
    told = report(config=turned.config, metrics=metrics, page=page)
    assert told.verdict == turned.data.verdict.state
    assert metrics.logged == numbers(summary(turned.data))
    assert Path(page.path).read_bytes() == turned.lake.storage.read(report_uri(turned.lake))


def test_the_command_prints_the_numbers_and_fails_where_it_is_asked_to(
    turned: Turned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loop.yaml"
    config.write_text(turned.config)
    page = tmp_path / "page.html"
    command = ["report", "--config", str(config), "--output", str(page), "--json"]
    status = main([*command, "--fail-on", "unreadable", "--fail-on", "bright"])
    told = capsys.readouterr()
    assert status == 1
    assert "1 flag of the kind unreadable in the newest round" in told.err
    assert "bright" not in told.err
    assert json.loads(told.out)["verdict"] == turned.data.verdict.state
    assert json.loads(told.out)["report"] == str(page)
    assert page.exists()
    assert main([*command, "--fail-on", "unreadible"]) == 2
    assert "did you mean `unreadable`?" in capsys.readouterr().err


def test_calibration_and_slices_are_of_the_model_that_the_accuracy_is_of(turned: Turned) -> None:
    served = next(row for row in turned.data.models if row.model_id == turned.data.in_service)
    assert served.accuracy is not None
    assert served.ece is not None
    assert sum(one.n for one in served.bins) == served.accuracy.n
    right = sum(round(one.right.value * one.right.n) for one in served.bins if one.right)
    assert right == round(served.accuracy.value * served.accuracy.n)
    assert served.ece.low <= served.ece.value <= served.ece.high
    by_camera = [row for row in served.slices if row.column == "camera"]
    assert sum(row.accuracy.n for row in by_camera) == served.accuracy.n
    assert all(row.corrected for row in served.slices)
