"""What the report costs: seconds, memory and size of the page as the lake grows.

The lake is that of `benchmarks.live_view` with files, embeddings, thumbnails and two rounds of
picks besides: 10,000, 100,000 and (not with ``--quick``) 1,000,000 samples. Each report is made by
a process of its own, started cold, as a pipeline's task is. The peer is Evidently, which shows no
pictures, map, funnel or lineage: its classification and drift presets over as many rows of label,
prediction and confidence, from memory, by the Python that ``--peers`` names, where
``pip install evidently "pandas<3"`` was done.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks._rows import Row, arguments, report
from benchmarks.live_view import START, typed, write_lake
from visionloop.lake import Lake

DIMENSIONS, CHUNK, PICKS = 64, 50_000, 500
_OURS = """
import json, resource, sys, time
began = time.perf_counter()
from visionloop.lake import Lake
from visionloop.monitoring.report.build import build_report
page = build_report(Lake.open(sys.argv[1], loop="bench"))
print(json.dumps([time.perf_counter() - began, len(page.encode()) / 1e6,
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
_EVIDENTLY = """
import json, os, resource, sys, tempfile, time
began = time.perf_counter()
import evidently, numpy as np, pandas as pd
from evidently import DataDefinition, Dataset, MulticlassClassification, Report
from evidently.presets import ClassificationPreset, DataDriftPreset
n, rng = int(sys.argv[1]), np.random.default_rng(0)
names = np.array([f"class {i}" for i in range(20)])
said = DataDefinition(
    classification=[MulticlassClassification(target="label", prediction_labels="predicted")],
    numerical_columns=["confidence"], categorical_columns=["label", "predicted"])
def rows():
    y = rng.integers(0, 20, n)
    p = np.where(rng.random(n) < 0.9, y, rng.integers(0, 20, n))
    frame = pd.DataFrame({"label": names[y], "predicted": names[p], "confidence": rng.random(n)})
    return Dataset.from_pandas(frame, data_definition=said)
made = Report([ClassificationPreset(), DataDriftPreset()]).run(rows(), rows())
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "page.html")
    made.save_html(path)
    size = os.path.getsize(path) / 1e6
print(json.dumps([time.perf_counter() - began, size,
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  evidently.__version__]))
"""


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, _options)
    rows: list[Row] = []
    for n in (10_000, 100_000) if options.quick else (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            lake = grown(write_lake(Path(folder), n), n)
            seconds, size, memory = _run(sys.executable, _OURS, lake.uri)
        peer = _run(options.peers, _EVIDENTLY, str(n))
        who = f"Evidently {peer[3]}" if peer else "none"
        theirs = [float(value) for value in peer[:3]] if peer else [float("nan")] * 3
        for what, mine, other, unit, goal in (
            ("time", seconds, theirs[0], "s", None),
            ("size of the page", size, theirs[1], "MB", None),
            ("memory", memory, theirs[2], "MiB", None),
        ):
            rows.append(Row(f"{n:,} samples: {what}", float(mine), who, other, unit, goal))
    report("report", rows, as_json=options.json)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="that has Evidently"
    )


def _run(python: str, script: str, argument: str) -> list[float]:
    """Return seconds, megabytes of the page and MiB of memory; nothing where it cannot run."""
    done = subprocess.run([python, "-c", script, argument], capture_output=True, text=True)
    if done.returncode:
        if script is _OURS:
            raise RuntimeError(done.stderr[-2000:])
        print(f"{python} cannot run Evidently: {done.stderr[-300:]}", file=sys.stderr)
        return []
    told: list[float] = json.loads(done.stdout.splitlines()[-1])
    return told


def grown(lake: Lake, n: int) -> Lake:
    """Add what a report reads besides: files, embeddings, thumbnails, two rounds of picks."""
    rng = np.random.Generator(np.random.PCG64(1))
    samples = lake.read("samples", columns=["sample_id", "uri", "ingested_at"])
    ids, now = samples["sample_id"], pa.scalar(START, pa.timestamp("us", tz="UTC"))
    with lake.run(stage="ingest", round_id="0000", run_id="bench") as run:
        run.append("files", typed("files", {
            "uri": samples["uri"], "generation": ["1"] * n, "state": ["ok"] * n,
            "sample_id": ids, "source": ["gs://bucket"] * n, "found_at": samples["ingested_at"],
        }))  # fmt: skip
        pictures = [_picture(i) for i in range(50)]
        for start in range(0, n, CHUNK):
            some = ids.slice(start, CHUNK)
            run.append("thumbnails", typed("thumbnails", {
                "sample_id": some, "image": [pictures[i % 50] for i in range(len(some))],
            }))  # fmt: skip
        run.commit(counts={"in": n, "ok": n})
    names = ids.to_pylist()
    with lake.run(stage="infer", round_id="0000", run_id="bench") as run:
        vectors = rng.normal(size=(n, DIMENSIONS)).astype(np.float32)
        vectors += 4 * rng.normal(size=(20, DIMENSIONS)).astype(np.float32)[np.arange(n) % 20]
        run.append_embeddings("pixels_bench", names, vectors)
        run.commit(outputs={"space": "pixels_bench", "source": "pixel descriptor"})
    for number, round_id in enumerate(("0000", "0001")):
        chosen = names[number * PICKS : (number + 1) * PICKS]
        with lake.run(stage="select", round_id=round_id, run_id="bench") as run:
            at = pa.repeat(now, len(chosen))
            run.append("selections", typed("selections", {
                "sample_id": chosen, "rank": np.arange(len(chosen)),
                "arm": ["selected"] * len(chosen), "propensity": [1.0] * len(chosen),
                "selected_at": at,
            }))  # fmt: skip
            run.set_round(state="done", outcome="published")
            run.commit(counts={"in": n, "selected": len(chosen)})
    return lake


def _picture(seed: int) -> bytes:
    from PIL import Image

    rng = np.random.Generator(np.random.PCG64(seed))
    small = Image.fromarray((rng.random((6, 8, 3)) * 255).astype(np.uint8))
    out = io.BytesIO()
    small.resize((128, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
    return out.getvalue()


if __name__ == "__main__":
    main()
