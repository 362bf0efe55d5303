"""Reading logged V2 JSON replies: a harvest against loops over orjson and pysimdjson, and DuckDB.

All of them read the same replies in the same process and on one thread, some lists at a time and
in turn; what counts is processor time. The whole job is told in `benchmarks/_harvest_peers.py`; the
time for making replies is not counted. DuckDB reads a file of some of them with one query. Then how
far the peak of memory rises from 100,000 to 1,000,000 replies, and how two processes scale.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks._harvest_peers import Read, Reader, by_duckdb, by_orjson, ours, simdjson_reader
from benchmarks._harvest_replies import replies
from benchmarks._rows import Row, arguments, report

# Replies in a list: as many numbers as stay in the processor's cache.
AT_ONCE = {10: 256, 100: 256, 1000: 64}
# Lists that a reader reads before it is the next one's turn.
IN_TURN = 16
_ROOT = Path(__file__).parents[1]


def rates(classes: int, number: int) -> dict[str, float]:
    """Return the replies a second of processor time by who read them."""
    readers: dict[str, Reader] = {
        "ours": ours, "orjson": by_orjson, "pysimdjson": simdjson_reader()
    }  # fmt: skip
    spent = dict.fromkeys(readers, 0.0)
    names, order = list(readers), random.Random(0)
    for taken in replies(classes, 8 * AT_ONCE[classes], AT_ONCE[classes], seed=1):
        same([read(taken) for read in readers.values()])
    lists = replies(classes, number, AT_ONCE[classes])
    # A harvest reads one list after another; a reader that is called for one alone, after two
    # others have run, pays for the code that the processor no longer holds.
    while turn := list(islice(lists, IN_TURN)):
        # Who is first finds nothing in the cache; who follows another, the memory that it left.
        order.shuffle(names)
        for name in names:
            began = time.process_time()
            for taken in turn:
                readers[name](taken)
            spent[name] += time.process_time() - began
    return {name: number / seconds for name, seconds in spent.items()}


def same(found: list[Read]) -> None:
    """Refuse to go on where they do not read the same, the probabilities to the bit."""
    ids, times, rows, scores = found[0]
    for other in found[1:]:
        equal = ids == other[0] and times == other[1] and np.array_equal(rows, other[2])
        if not equal or not np.allclose(scores, other[3], rtol=0, atol=1e-12):
            raise SystemExit("the readers do not agree")


def apart(*runs: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """Read replies our way in processes of their own, all at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks._harvest_peers", *map(str, run)],
            stdout=subprocess.PIPE, cwd=_ROOT,
        )
        for run in runs
    ]  # fmt: skip
    answers = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a reader failed")
    return [json.loads(answer) for answer in answers]


def rows_of(classes: int, number: int, folder: Path) -> list[Row]:
    """Measure one number of classes."""
    found = rates(classes, number)
    duckdb = by_duckdb(classes, min(number, 4_000_000 // classes), folder)
    case = f"{classes} classes: replies a CPU second"
    peers = [("pysimdjson", found["pysimdjson"], 1.0), ("orjson", found["orjson"], None)]
    return [
        Row(case, found["ours"], f"{name} {version(name)}", rate, "/s", goal,
            smaller_is_better=False)
        for name, rate, goal in [*peers, ("duckdb", duckdb, None)]
    ]  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    number = 40_000 if options.quick else 1_000_000
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        for classes, at_once in AT_ONCE.items():
            rows += rows_of(classes, number // (10 if options.quick and at_once < 100 else 1),
                            Path(folder))  # fmt: skip
    few, many = (apart((100, n, AT_ONCE[100], 0))[0] for n in (number // 10, number))
    rows.append(
        Row(f"100 classes: peak memory of {number:,} replies", many["peak_mib"],
            f"of {number // 10:,}", few["peak_mib"], "MiB", 0.9)
    )  # fmt: skip
    half = number // 2
    one = apart((100, half, AT_ONCE[100], 2))[0]
    two = apart((100, half, AT_ONCE[100], 3), (100, half, AT_ONCE[100], 4))
    rows.append(
        Row("100 classes: replies a second in two processes",
            sum(half / run["seconds"] for run in two), "in one", half / one["seconds"], "/s",
            smaller_is_better=False)
    )  # fmt: skip
    report("harvest", rows, as_json=options.json)


if __name__ == "__main__":
    main()
