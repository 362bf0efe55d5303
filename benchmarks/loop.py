"""Where the time of a round goes: the stages' own work, process start and imports, KFP.

The demo's world is delivered to two lakes. One round of each runs as the pipeline `round`, under
KFP's local runner with a process a task; the peer is what it replaces: a hand-written script that
calls the same stage functions one after another in one process, with nothing to resume from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._rows import Row, arguments, report

SCRIPT = """
import json, sys, time
began = time.perf_counter()
from visionloop.stages.ingest import ingest
from visionloop.stages.infer import infer
from visionloop.stages.monitor import monitor
from visionloop.stages.harvest import harvest
from visionloop.stages.select import select
from visionloop.stages.request_labels import request_labels
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.train import train
from visionloop.stages.evaluate import evaluate
from visionloop.stages.export import export
from visionloop.stages.publish import publish
from visionloop.stages.report import report

class File:
    def __init__(self, path):
        self.path, self.uri, self.metadata = path, path, {}

config, folder = sys.argv[1:]
model = File(folder + "/model")
taken = ingest(config=config, run_id="script", open_round=True)
at = dict(config=config, round_id=taken.round_id)
infer(**at); monitor(**at); harvest(**at); select(**at); request_labels(**at)
collect_labels(**at)
trained = train(**at, model=model)
judged = evaluate(**at, model_id=trained.model_id, model=model)
exported = export(**at, model_id=trained.model_id, model=model)
publish(**at, model_id=trained.model_id, model_uri=exported.model_uri, passed=judged.passed)
report(config=config)
print(json.dumps({"seconds": time.perf_counter() - began, "accuracy": judged.accuracy}))
"""


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    folder = Path(tempfile.mkdtemp(prefix="visionloop-loop-"))
    try:
        rows, parts = measure(folder, rounds=1 if options.quick else 3)
    finally:
        shutil.rmtree(folder)
    if not options.json:
        print("Seconds of each task: its own work, and the start of its process with the imports\n")
        for part in parts:
            print(f"  {part['stage']:<16} {part['work_s']:7.2f}  {part['imports_s']:7.2f}")
        print()
    report("loop", rows, as_json=options.json)


def measure(folder: Path, rounds: int) -> tuple[list[Row], list[dict[str, Any]]]:
    """Run the rounds both ways, in turn.

    Returns:
        The rows, and the mean seconds of each stage in a round.
    """
    from visionloop.config import load_config
    from visionloop.demo.world import World
    from visionloop.pipelines.arguments import pipeline_arguments
    from visionloop.runner.local import run_pipeline

    world = World(folder, seed=0)
    timings = folder / "timings.jsonl"
    os.environ["VISIONLOOP_TIMINGS_FILE"] = str(timings)
    piped, scripted = [], []
    for number in range(rounds):
        world.deliver(number)
        path = _config(folder, world, "piped")
        began = time.perf_counter()
        result = run_pipeline(
            "round", pipeline_arguments(load_config(path), "round"), folder, progress=False
        )
        result.raise_for_failure()
        piped.append(time.perf_counter() - began)
        scripted.append(_script(folder, _config(folder, world, "scripted")))
    parts = [json.loads(line) for line in timings.read_text().splitlines()]
    stages = _per_stage(parts, rounds)
    work = sum(part["work_s"] for part in stages)
    starts = sum(part["imports_s"] for part in stages)
    ours, peer = _mean(piped), _mean(scripted)
    script = "one Python script that calls the same functions"
    rows = [
        Row("a round, seconds in all", ours, script, peer, "s"),
        Row("of that in the stages' own work", work, script, peer, "s"),
        Row("of that in process start and imports", starts, script, 0.0, "s"),
        Row("of that in KFP's local runner", ours - work - starts, script, 0.0, "s"),
    ]
    return rows, stages


def _config(folder: Path, world: Any, name: str) -> Path:
    import yaml

    path = folder / f"{name}.yaml"
    settings = {
        "name": name,
        "classes": world.classes,
        "lake": f"lake-{name}",
        "sources": [{"uri": "bucket"}],
        "holdout": {"fraction": 0.3, "group_by": world.group_key},
        "labeling": {"provider": "oracle", "labels": "truth.csv"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def _script(folder: Path, config: Path) -> float:
    work = Path(tempfile.mkdtemp(dir=folder))
    quiet = {k: v for k, v in os.environ.items() if k != "VISIONLOOP_TIMINGS_FILE"}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(config), str(work)],
        check=True,
        capture_output=True,
        env=quiet,
    )
    return time.perf_counter() - began


def _per_stage(parts: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(part["stage"] for part in parts))
    return [
        {
            "stage": name,
            **{
                key: sum(part[key] for part in parts if part["stage"] == name) / rounds
                for key in ("work_s", "imports_s")
            },
        }
        for name in names
    ]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
