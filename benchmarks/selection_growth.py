"""How k-center grows with rows, dimensions, picks and threads, and the plot of it.

Clustered and spread embeddings (`benchmarks/_vectors.py`); the peer is plain greedy, one NumPy
product of matrix and vector a pick. One thread is measured in the processor's seconds; several can
only be measured by the clock, so that panel needs an idle machine. The full run writes
`benchmarks/images/selection_growth.svg`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._rows import Row, arguments, report
from benchmarks._selection_speed import k_center, plain_k_center
from benchmarks._vectors import Floats, clustered, compute_alike, kernels, spread

PICTURE = Path(__file__).parent / "images" / "selection_growth.svg"
OURS, PEER = "visionloop", "NumPy, a GEMV a pick"
MAKERS = {"clustered": clustered, "spread": spread}
# What one panel varies, and what the others are meanwhile.
FULL: dict[str, list[int]] = {
    "rows": [50_000, 100_000, 200_000, 500_000, 1_000_000],
    "dimensions": [64, 128, 256, 512, 1024],
    "picks": [100, 300, 1000, 2000, 5000],
    "threads": [1, 2, 4, 8, 16],
}
QUICK: dict[str, list[int]] = {
    "rows": [10_000, 20_000],
    "dimensions": [32, 64],
    "picks": [50, 100],
    "threads": [1, 2],
}
FIXED = {"rows": 200_000, "dimensions": 128, "picks": 500}
FIXED_QUICK = {"rows": 20_000, "dimensions": 64, "picks": 100}

Points = dict[tuple[str, str, str], list[tuple[int, float]]]


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__)
    print(kernels(), file=sys.stderr)
    rows, points = measure(quick=options.quick)
    if not options.quick:
        draw(points, PICTURE)
    report("selection_growth", rows, as_json=options.json)


def measure(*, quick: bool) -> tuple[list[Row], Points]:
    """Return a row a point, and the points of each line by (panel, data, who)."""
    fixed = FIXED_QUICK if quick else FIXED
    rows: list[Row] = []
    points: Points = {}
    for panel, values in (QUICK if quick else FULL).items():
        for data in MAKERS:
            made = ((), np.zeros((0, 0), dtype=np.float32))
            for value in values:
                if panel == "threads" and value > (os.cpu_count() or 1):
                    continue
                case = {**fixed, **({panel: value} if panel != "threads" else {})}
                shape = (case["rows"], case["dimensions"])
                if made[0] != shape:
                    made = (shape, MAKERS[data](*shape))
                ours, theirs = _both(made[1], case["picks"], value if panel == "threads" else 0)
                for who, seconds in ((OURS, ours), (PEER, theirs)):
                    points.setdefault((panel, data, who), []).append((value, seconds))
                told = f"{data} {shape[0]:,} x {shape[1]}, k={case['picks']:,}"
                told += f", {value} threads" if panel == "threads" else ""
                rows.append(Row(f"growth with {panel}: {told}", ours, PEER, theirs, "s"))
    return rows, points


def _both(x: Floats, k: int, threads: int) -> tuple[float, float]:
    """Return our seconds and the peer's; with no number of threads one, and processor's seconds."""
    from threadpoolctl import threadpool_limits

    clock = time.perf_counter if threads else time.process_time
    with threadpool_limits(threads or 1):
        ours = [_seconds(partial(k_center, x, k), clock)]
        theirs = _seconds(partial(plain_k_center, x, k), clock)
        ours += [_seconds(partial(k_center, x, k), clock) for _ in range(2)]
    return float(np.median(ours)), theirs


def _seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def draw(points: Points, path: Path) -> None:
    """Draw a panel for each thing that was varied.

    Args:
        points: As `measure` returns them.
        path: SVG to write.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "selection", "font.size": 9})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
    for axes, panel in zip(panels, FULL, strict=True):
        for (name, data, who), line in points.items():
            if name == panel:
                axes.plot(
                    *zip(*line, strict=True),
                    marker="o",
                    markersize=3,
                    color="#1a73e8" if who == OURS else "#9aa0a6",
                    linestyle="-" if data == "clustered" else "--",
                    label=f"{who}, {data}",
                )
        axes.set_xscale("log", base=2 if panel in {"dimensions", "threads"} else 10)
        axes.set_yscale("log")
        axes.set_xlabel(panel)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("seconds")
    fixed = f"{FIXED['rows']:,} x {FIXED['dimensions']}, {FIXED['picks']} picks"
    figure.suptitle(f"exact k-center; what a panel does not vary is {fixed}", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
