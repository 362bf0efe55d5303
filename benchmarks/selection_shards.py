"""What a task of a selection in shards holds, by sample, beside one task that selects from all.

A lake with samples, fingerprints and a model's predictions of ten classes, its embeddings of 512
float32 components (2,048 bytes) clustered. `plan_selection`, two `select_shard` and `select` run in
processes of their own, 200 picks. What each holds is the most that Linux ever counted as resident,
less what it was after the imports; the figures are the slope between two sizes of the lake.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._rows import Row, arguments, report

CLASSES = [f"class-{i}" for i in range(10)]
SELECTIONS: dict[str, dict[str, Any]] = {
    "uncertainty": {"strategy": "uncertainty"},
    "diversity": {"strategy": "diversity"},
}
PICKS = 200
D = 512
FILE_ROWS = 20_000
# Prints what the stage returned, and the memory that it took, in bytes.
CHILD = """
import importlib, json, sys
name, arguments = sys.argv[1], json.loads(sys.argv[2])
stage = getattr(importlib.import_module(f"visionloop.stages.{name}"), name)
for module in ("selection.joining", "selection.proposals", "selection.record", "lake.parts"):
    importlib.import_module(f"visionloop.{module}")
def held(field):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))
before = held("VmRSS")
told = stage(**arguments)
print(json.dumps({"told": told._asdict(), "bytes": held("VmHWM") - before}))
"""


def main() -> int:
    """Run the benchmark."""
    options = arguments(__doc__)
    small, large = (40_000, 120_000) if options.quick else (80_000, 240_000)
    rows = []
    for name, selection in SELECTIONS.items():
        few, many = (measured(n, selection) for n in (small, large))
        slope = {who: (many[who] - few[who]) / (large - small) for who in few}
        # The shard is half of the samples.
        for who, size, of in (
            ("plan_selection", slope["plan_selection"], "all shards"),
            ("select_shard", 2 * slope["select_shard"], "its shard"),
            ("select", slope["select"], "all shards"),
        ):
            case = f"{name}: {who}, bytes a sample of {of}"
            rows.append(Row(case, size, "one task for all", slope["alone"], "bytes"))
        if options.quick:
            break
    report("selection_shards", rows, as_json=options.json)
    return 0


def measured(n: int, selection: dict[str, Any]) -> dict[str, float]:
    """Return the memory of the stages on n samples in two shards, and of one task, in bytes."""
    folder = Path(tempfile.mkdtemp(prefix="selection-shards-"))
    try:
        fill(folder / "lake", n)
        found: dict[str, float] = {}
        settings = {"name": "bench", "lake": str(folder / "lake"), "classes": CLASSES}
        settings["selection"] = selection | {"n_samples": PICKS}

        def run(stage: str, shards: int, **more: Any) -> Any:
            cluster = {"select_shard_size": -(-n // shards), "select_whole": 10 * n}
            text = json.dumps(settings | {"cluster": cluster})
            given = json.dumps({"config": text, "round_id": "0000", **more})
            command = [sys.executable, "-c", CHILD, stage, given]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            answer = json.loads(done.stdout.splitlines()[-1])
            found[stage] = max(found.get(stage, 0.0), answer["bytes"])
            return answer["told"]

        plan = run("plan_selection", 2)
        for shard in plan["shards"]:
            run("select_shard", 2, plan=plan["plan"], shard=shard)
        shutil.copytree(folder / "lake", folder / "kept")
        run("select", 2, plan=plan["plan"])
        merged = found.pop("select")
        shutil.rmtree(folder / "lake")
        (folder / "kept").rename(folder / "lake")
        run("select", 1)
        return found | {"alone": found["select"], "select": merged}
    finally:
        shutil.rmtree(folder)


def fill(root: Path, n: int) -> None:
    """Write a lake."""
    from visionloop.lake import Lake
    from visionloop.lake.schemas import arrow_schema

    rng = np.random.default_rng(0)
    ids = pa.array([data.hex() for data in np.frombuffer(rng.bytes(32 * n), "V32").tolist()])
    lake = Lake.open(str(root), loop="bench")

    def put(table: str, **columns: Any) -> None:
        rows = pa.table(columns)
        schema = pa.schema([field for field in arrow_schema(table) if field.name in columns])
        rows = rows.select(schema.names).cast(schema)
        for start in range(0, rows.num_rows, FILE_ROWS):  # a commit, and a file, each
            with lake.run(stage="ingest", round_id="0000") as run:
                run.append(table, rows.slice(start, FILE_ROWS))
                run.commit()

    prints = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), n, [None, pa.py_buffer(rng.bytes(32 * n))]
    )
    put("samples", sample_id=ids, split=pa.array(["pool"] * n), fingerprint=prints)
    model = {"model_id": ["m"], "state": ["in_service"], "arm": ["loop"], "classes": [CLASSES]}
    put("experiments", **{name: pa.array(value) for name, value in model.items()})
    p = rng.dirichlet(np.ones(len(CLASSES)), size=n).astype(np.float32)
    lists = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * len(CLASSES), p.ravel())
    put("predictions", sample_id=ids, model_id=pa.array(["m"] * n), probabilities=lists)
    centres = rng.normal(size=(64, D)).astype(np.float32)
    with lake.run(stage="infer", round_id="0000") as run:
        for start in range(0, n, FILE_ROWS):
            some = ids.slice(start, FILE_ROWS).to_pylist()
            x = centres[rng.integers(64, size=len(some))]
            x = x + 0.5 * rng.normal(size=x.shape).astype(np.float32)
            run.append_embeddings("space", some, x / np.linalg.norm(x, axis=1, keepdims=True))
        run.commit(outputs={"space": "space"})


if __name__ == "__main__":
    sys.exit(main())
