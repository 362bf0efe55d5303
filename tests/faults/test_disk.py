"""A full disk, wherever it fills up: nothing stored is lost, and with space the same run ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.conftest import SmallLoop, doubled, failure_of, resize
from visionloop import failures
from visionloop.lake import Lake
from visionloop.lake.schemas import TABLES
from visionloop.stages.evaluate import evaluate
from visionloop.stages.export import export
from visionloop.stages.infer import infer
from visionloop.stages.ingest import ingest
from visionloop.stages.publish import publish
from visionloop.stages.report import report
from visionloop.stages.train import train


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes of a disk free."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(disk).free - leave))
    return filler


def rows(lake: Lake) -> dict[str, Any]:
    """Return what the tables hold that is newer than nothing: ids by table."""
    held: dict[str, Any] = {
        name: sorted(map(str, lake.read(name)["sample_id"].to_pylist()))
        for name in TABLES
        if name != "stage_runs" and "sample_id" in lake.read(name).column_names
    }
    for space in lake.spaces():
        ids, vectors = lake.embeddings(space)
        held[space] = (ids, np.isfinite(vectors).all())
    return held


def test_at_ingest_and_inference_however_much_is_left(loop: SmallLoop, small_disk: Path) -> None:
    loop.settings["lake"] = str(small_disk / "lake")
    loop.settings["sources"][0]["copy"] = True
    failed = 0
    version, before = "", {name: [] for name in rows(loop.lake)}
    # Each fills up at another point: the catalog, the copies, a data file, the version row.
    for leave in (0, 20_000, 60_000, 90_000, 130_000, 170_000, 220_000):
        for stage in (ingest, infer):
            filler = fill(small_disk, leave)
            try:
                stage(config=loop.config)  # type: ignore[operator]
            except Exception as error:
                told = failures.explain(error)
            else:
                told = None
            filler.unlink()
            if told is None:
                version, before = loop.lake.version(), rows(loop.lake)
                continue
            failed += 1
            assert told.exit_status == 1, told
            assert "pace" in told.remedy and str(small_disk) in told.where, (leave, told)
            assert (loop.lake.version(), rows(loop.lake)) == (version, before)
            break
    assert failed >= 3
    resize(small_disk, "64m")
    loop.take_in()
    held = rows(loop.lake)
    assert not doubled(loop.lake)
    assert len(held["samples"]) == len(held[loop.lake.spaces()[0]][0]) > 0
    assert loop.label() > 0


def test_at_training_and_export(loop: SmallLoop, small_disk: Path) -> None:
    resize(small_disk, "64m")
    loop.settings["lake"] = str(small_disk / "lake")
    loop.take_in()
    loop.label()
    version, before = loop.lake.version(), rows(loop.lake)

    filler = fill(small_disk, 100_000)
    told = failure_of(lambda: train(config=loop.config))
    assert told.exit_status == 1 and "pace" in told.remedy and str(small_disk) in told.where
    assert loop.lake.version() == version and rows(loop.lake) == before
    filler.unlink()
    model_id = train(config=loop.config).model_id
    evaluate(config=loop.config, model_id=model_id)

    version = loop.lake.version()
    filler = fill(small_disk, 20_000)
    told = failure_of(lambda: export(config=loop.config, model_id=model_id))
    assert told.exit_status == 1 and "pace" in told.remedy and str(small_disk) in told.where
    assert loop.lake.version() == version
    filler.unlink()
    uri = export(config=loop.config, model_id=model_id).model_uri

    assert (
        publish(config=loop.config, model_id=model_id, model_uri=uri, passed=True).in_service
        == model_id
    )
    assert not doubled(loop.lake)


def test_a_report_on_a_full_disk_leaves_the_one_before(loop: SmallLoop, small_disk: Path) -> None:
    loop.settings["lake"] = str(small_disk / "lake")
    ingest(config=loop.config)
    report(config=loop.config)
    page = small_disk / "lake" / "reports" / f"{loop.lake.loop}.html"
    before = page.read_bytes()
    fill(small_disk, 0)
    told = failure_of(lambda: report(config=loop.config))
    assert "pace" in told.remedy and page.name in told.where
    assert page.read_bytes() == before


def test_a_full_disk_under_a_run_s_own_folder_is_told_with_the_folder(
    loop: SmallLoop, small_disk: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    out = small_disk / "out"
    program = ("run", "intake", "--config", loop.config, "--output", str(out))
    fill(small_disk, 8192)
    status, _, err = command(*program)
    assert status == 1
    assert "No space is left" in err and str(out) in err and "Free some space" in err
