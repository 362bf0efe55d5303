"""A round that is killed in every stage and started again leaves the lake as if it had run once."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from visionloop.demo.world import World
from visionloop.lake import Lake
from visionloop.lake.schemas import TABLES

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.faults.one_round"
# When and by whom a row was written differs between any two runs.
PASSING = {"run_id", "holder"}
# The record of the runs themselves is as long as there were runs.
RECORDS = {"stage_runs"}
N_FILES = 150


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with digits, some of them broken, and the truth about them."""
    folder = tmp_path_factory.mktemp("world")
    world = World(folder)
    world.deliver(0)
    # An even sample of the folder's files keeps some of each fault.
    files = sorted(path for path in world.bucket.rglob("*") if path.suffix in (".png", ".jpg"))
    for path in files[::2][N_FILES:] + files[1::2]:
        path.unlink()
        path.with_name(path.name + ".json").unlink(missing_ok=True)
    return folder


def write_config(folder: Path, world: Path) -> Path:
    settings = {
        "name": "kill",
        "lake": "lake",
        "classes": [str(digit) for digit in range(10)],
        "sources": [{"uri": str(world / "bucket")}],
        "selection": {"n_samples": 12},
        "labeling": {"provider": "oracle", "labels": str(world / "truth.csv")},
        "training": {"epochs": 1, "min_updates": 5, "control_arm": True},
    }
    folder.mkdir()
    path = folder / "loop.yaml"
    path.write_text(yaml.safe_dump(settings))
    (folder / "markers").mkdir()
    return path


def run(config: Path, *point: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, str(config), str(config.parent / "markers"), *point],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


def content(folder: Path) -> dict[str, list[str]]:
    """Return every row of every table, without what differs between any two runs."""
    lake = Lake.open(str(folder / "lake"), loop="kill")

    def plain(row: dict[str, Any]) -> str:
        kept = {
            name: value
            for name, value in row.items()
            if name not in PASSING and not name.endswith("_at")
        }
        text = json.dumps(kept, default=str, sort_keys=True)
        # How long a training took is told with its metrics.
        return re.sub(r'\\"seconds\\": [0-9.]+', "", text.replace(str(folder), "FOLDER"))

    tables = {
        name: sorted(plain(row) for row in lake.read(name).to_pylist())
        for name in TABLES
        if name not in RECORDS
    }
    for space in lake.spaces():
        ids, vectors = lake.embeddings(space)
        tables[f"embeddings_{space}"] = [
            f"{i} {v.tobytes().hex()}" for i, v in zip(ids, vectors, strict=True)
        ]
    return tables


@pytest.fixture(scope="module")
def once(bucket: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the content of a lake whose round ran through."""
    config = write_config(tmp_path_factory.mktemp("once") / "loop", bucket)
    assert run(config) == 0
    held = content(config.parent)
    shutil.rmtree(config.parent)
    return held


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_in_every_stage_and_started_again_it_is_as_if_it_had_run_once(
    point: str, bucket: Path, tmp_path: Path, once: dict[str, list[str]]
) -> None:
    config = write_config(tmp_path / "loop", bucket)
    kills = 0
    while run(config, point) != 0:
        kills += 1
        assert kills < 30
    stages = {path.name.removesuffix(f"-{point}") for path in (tmp_path / "loop/markers").iterdir()}
    writing = {
        "open_round",
        "ingest",
        "infer",
        "monitor",
        "select",
        "request_labels",
        "collect_labels",
        "train",
        "evaluate",
        "publish",
    }
    assert stages >= writing and kills == len(stages)
    held = content(tmp_path / "loop")
    assert held.keys() == once.keys()
    for name, rows in once.items():
        assert held[name] == rows, name
