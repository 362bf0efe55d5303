"""The pipeline `watch`: what it starts, what it leaves alone, and what a cluster is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from visionloop.cli import main
from visionloop.config import load_config
from visionloop.lake import Lake
from visionloop.pipelines.arguments import pipeline_arguments
from visionloop.pipelines.compiling import compile_pipeline
from visionloop.runner.local import run_pipeline
from visionloop.runner.result import RunResult


class Loop:
    """Ten small pictures that people are to label."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "loop.yaml"
        images = folder / "images"
        images.mkdir()
        for number in range(10):
            pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 255, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(images / f"{number}.png")
        self.file.write_text(
            "name: test\nlake: lake\nclasses: [even, odd]\nsources: [{uri: images}]\n"
            "holdout: {fraction: 0}\nselection: {n_samples: 3}\nwatch: {min_new_samples: 10}\n",
            encoding="utf-8",
        )

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / "lake"), loop="test")

    def watch(self, **more: Any) -> RunResult:
        arguments = pipeline_arguments(load_config(self.file), "watch")
        result = run_pipeline("watch", {**arguments, **more}, self.folder / "out", progress=False)
        result.raise_for_failure()
        return result

    def decisions(self) -> list[tuple[str, str]]:
        rows = self.lake.read("decisions").sort_by("decided_at").to_pylist()
        return [(row["outcome"], row["round_id"]) for row in rows if row["decision"] == "watch"]


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def names(result: RunResult) -> list[str]:
    return [task.name for task in result.tasks]


@pytest.mark.slow
def test_a_watch_explains_in_a_dry_run_then_starts_a_round_and_then_waits_for_it(
    loop: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = loop.watch(dry_run=True)
    assert names(dry) == ["watch"]
    assert (dry.tasks[0].outputs["decision"], dry.tasks[0].outputs["action"]) == ("start", "wait")
    assert "A dry run" in Path(dry.tasks[0].artifacts["page"]).read_text(encoding="utf-8")
    assert not (loop.folder / "lake").exists()

    started = loop.watch()
    assert names(started)[:3] == ["harvest", "watch", "list_files"]
    assert names(started)[-2:] == ["collect_labels", "report"]
    assert names(started).count("report") == 1, "the round's parts leave it to the round"
    assert started.waiting
    held = loop.lake.rounds.current()
    assert held is not None and (held.round_id, held.state) == ("0000", "waiting")
    assert loop.lake.read("label_requests").num_rows == 3

    with loop.lake.run(stage="monitor") as run:
        run.commit(outputs={"labels": {"ok": 200, "flagged": 100, "unchecked": 0}})
    command = ["watch", "--config", str(loop.file), "--output", str(loop.folder / "out")]
    assert main(command) == 0
    told = capsys.readouterr()
    tasks = [line.split()[1] for line in told.err.splitlines() if line.startswith("✓")]
    assert tasks == ["harvest", "watch"]
    decided, act, *_ = told.out.splitlines()
    assert decided.startswith("wait: Round 0 waits for labels: 0 of 3 requests are answered")
    assert act.startswith("Publication is blocked: 100 of 300 checked")
    assert (told.err + told.out).count("Publication is blocked") == 1, "each act is told once"
    assert loop.decisions() == [("start", "0000"), ("wait", "0000")]


def test_the_command_explains_without_starting_or_writing_anything(
    loop: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["watch", "--config", str(loop.file), "--dry-run"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.startswith("start: Round 0 starts: 10 new images, 10 start a round")
    assert "drift               start     cannot be told no answers" in told
    assert "stay in service     stay      off" in told
    assert "nothing was harvested, written or started" in told

    assert main([*command, "--json", "--set", "watch.min_new_samples=11"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["decision"], answer["dry_run"]) == ("wait", True)
    assert answer["seen"]["n_new_files"] == 10
    assert not (loop.folder / "lake").exists()


def test_a_round_is_nested_behind_one_decision_and_reports_however_it_ends(tmp_path: Path) -> None:
    path = compile_pipeline("watch", tmp_path / "watch.yaml")
    spec = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    tasks = spec["root"]["dag"]["tasks"]
    (gate,) = [t for t in tasks.values() if t.get("triggerPolicy", {}).get("condition")]
    # One output of a nested pipeline: on one of several the local runner finds every condition
    # false and says nothing.
    assert "decide-Output'] != 'wait'" in gate["triggerPolicy"]["condition"]
    assert list(spec["components"]["comp-decide"]["outputDefinitions"]["parameters"]) == ["Output"]
    assert tasks["decide"]["dependentTasks"] == ["fresh-confidences"]
    inside = spec["components"][gate["componentRef"]["name"]]["dag"]["tasks"]
    assert list(inside) == ["round"]
    report = spec["components"][inside["round"]["componentRef"]["name"]]["dag"]["tasks"]["report"]
    assert report["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
