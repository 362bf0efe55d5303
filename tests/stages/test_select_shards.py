"""The pipeline selects in shards under KFP's local runner: as one task does, whatever dies."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.selection.small_lake import CLASSES, deploy, fill, label
from tests.stages.sharded import files
from visionloop.config import load_config
from visionloop.lake import Lake
from visionloop.runner.local import run_pipeline
from visionloop.selection.material import read_material
from visionloop.selection.record import select_material
from visionloop.stages.select import round_seed

SELECTION = {
    "n_samples": 7,
    "strategies": [
        {"input": {"type": "SCORES", "score": "margin"}, "strategy": {"type": "WEIGHTS"}},
        {"input": {"type": "RANDOM"}, "strategy": {"type": "WEIGHTS"}},
    ],
}
# Kills the first task of its kind, once.
KILLER = """
import os, signal, sys
if "select_shard" in sys.argv:
    try:
        os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_whose_shard_was_killed_is_started_again_and_picks_what_one_task_picks(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(lake, 400)
    deploy(lake, names)
    label(lake, names[:9])
    held = lake.read("samples")
    where = held.schema.get_field_index("uri")
    uris = pa.array([f"file:///{name}.jpg" for name in held["sample_id"].to_pylist()])
    with lake.run(stage="ingest", round_id="0000") as run:
        run.replace("samples", held.set_column(where, "uri", uris), "sample_id != ''")
        run.commit()
    lake.rounds.open("a-run")
    settings = {
        "name": lake.loop,
        "lake": lake.uri,
        "classes": CLASSES,
        "labeling": {"provider": "csv"},
        "selection": SELECTION,
        "cluster": {"select_shard_size": 140, "width": 2},
    }
    version, config = lake.version(), load_config(json.dumps(settings))
    material = read_material(lake, config.selection, classes=CLASSES, version=version)
    seed = round_seed(config.selection.seed, "0000")
    alone = select_material(material, None, seed=seed, unattended=True)
    marker, hook = tmp_path / "killed", tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(KILLER.format(marker=str(marker)))
    monkeypatch.setenv("PYTHONPATH", str(hook))
    arguments = {"config": json.dumps(settings), "lake_version": version, "round_id": "0000"}
    broken = run_pipeline("select_and_label", arguments, tmp_path / "runs", progress=False)
    assert marker.exists() and broken.failed_task == "select_shard", broken.error
    assert not lake.read("selections").num_rows, "a run that lacks a shard commits nothing"
    whole = run_pipeline("select_and_label", arguments, tmp_path / "runs", progress=False)
    assert whole.succeeded, whole.error
    tasks = [task.name for task in whole.tasks]
    assert tasks.count("plan_selection") == tasks.count("select") == 1
    assert 1 <= tasks.count("select_shard") <= 3
    rows = lake.read("selections").sort_by("rank").to_pylist()
    assert [row["sample_id"] for row in rows] == list(alone.sample_ids)
    for row, pick in zip(rows, alone.picks, strict=True):
        assert json.loads(row["objectives"]) == pytest.approx(dict(pick.objectives), abs=1e-9)
        assert row["arm"] == pick.arm
        assert (row["propensity"] or -1) == pytest.approx(pick.propensity or -1, rel=1e-12)
    assert len(lake.stage_runs(where="stage == 'select'")) == 1
    assert files(lake) == []
