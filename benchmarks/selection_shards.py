"""What a task of a selection in shards holds, by sample, beside one task that selects from all.

A lake with samples, fingerprints and a model's predictions of ten classes, its embeddings of 512
float32 components (2,048 bytes) clustered. `plan_selection`, two `select_shard` and `select` run in
processes of their own, 200 picks. What each holds is the most that Linux ever counted as resident,
less what it was after the imports; the figures are the slope between two sizes of the lake.

Typicality needs everybody at once: there a quarter of the pool is the sample that `select` holds,
and the figure is for each of it. What such a sample is worth: 50 picks from 1/4, 1/8 and 1/32 of
a pool in 100 clusters of very different sizes, beside 50 picks from all of it and 50 at random.
How typical they are (1 / mean distance to the 20 nearest) and how near the pool is to them (mean
distance to the nearest pick) is measured over all of the pool, the mean of five samples.
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
    "typicality": {"strategy": "typicality"},
}
IN_SAMPLE = 4  # one of so many of the pool
SHARES = (4, 8, 32)
CLUSTERS, FEW_PICKS = 100, 50
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
        sampled = name == "typicality"
        # The shard is half of the samples.
        for who, size, of in (
            ("plan_selection", slope["plan_selection"], "all shards"),
            ("select_shard", 2 * slope["select_shard"], "its shard"),
            ("select", IN_SAMPLE * slope["select"], "the sample")
            if sampled
            else ("select", slope["select"], "all shards"),
        ):
            case = f"{name}: {who}, bytes a sample of {of}"
            rows.append(Row(case, size, "one task for all", slope["alone"], "bytes"))
        if options.quick:
            break
    rows += worth(16_000 if options.quick else 64_000)
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
            sampled = shards > 1 and selection["strategy"] == "typicality"
            whole = n // IN_SAMPLE if sampled else 10 * n
            cluster = {"select_shard_size": -(-n // shards), "select_whole": whole}
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


def worth(n: int) -> list[Row]:
    """Return how good picks from samples of a pool of n are, beside those from all of it."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(3)
    weight = 1 / np.arange(1, CLUSTERS + 1)
    of = rng.choice(CLUSTERS, size=n, p=weight / weight.sum())
    spread = rng.uniform(0.05, 0.4, size=(CLUSTERS, 1))
    x = rng.normal(size=(CLUSTERS, 16))[of] + spread[of] * rng.normal(size=(n, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    names = [f"{data.hex()}" for data in np.frombuffer(rng.bytes(16 * n), "V16").tolist()]
    typical = 1 / cKDTree(x).query(x, 21)[0][:, 1:].mean(axis=1)

    def measures(rows: np.ndarray) -> tuple[float, float]:
        return float(typical[rows].mean()), float(cKDTree(x[rows]).query(x)[0].mean())

    def picks(seed: int, share: int) -> np.ndarray:
        """Select from the samples of the smallest lots, as shards name them."""
        from visionloop.selection.config import SelectionConfig
        from visionloop.selection.engine import select
        from visionloop.selection.lots import lots
        from visionloop.selection.pool import Pool

        rows = np.argsort(lots(names, seed, 1))[: n // share]
        pool = Pool.build([names[i] for i in rows], embeddings={"e": x[rows]})
        made = select(pool, SelectionConfig(strategy="typicality"), FEW_PICKS, seed=seed)
        place = {names[i]: i for i in rows}
        return np.array([place[name] for name in made.sample_ids])

    whole = np.mean([measures(picks(seed, 1)) for seed in range(5)], axis=0)
    random = np.mean([measures(rng.choice(n, FEW_PICKS, replace=False)) for _ in range(5)], axis=0)
    rows = []
    for share in SHARES:
        found = np.mean([measures(picks(seed, share)) for seed in range(5)], axis=0)
        case = f"{FEW_PICKS} picks from 1/{share} of {n:,}"
        rows.append(Row(f"{case}: typicality", found[0], "from all", whole[0], "1/distance",
                        smaller_is_better=False))  # fmt: skip
        rows.append(
            Row(f"{case}: distance of the pool", found[1], "from all", whole[1], "distance")
        )
    kinds = (("typicality", "1/distance", False), ("distance of the pool", "distance", True))
    for (kind, unit, smaller), a, b in zip(kinds, random, whole, strict=True):
        rows.append(Row(f"{FEW_PICKS} picks at random: {kind}", a, "from all", b, unit,
                        smaller_is_better=smaller))  # fmt: skip
    return rows


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
