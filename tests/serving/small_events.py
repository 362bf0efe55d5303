"""Small events of many inferences as segments on the disk, and a harvest of them in a process."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

PROGRAM = """
    import json, resource, sys, time
    from visionloop.stages.harvest import harvest
    began = time.process_time()
    found = harvest(config=sys.argv[1], events=sys.argv[2])
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**found._asdict(), "peak_mib": used.ru_maxrss // 1024,
                      "cpu_s": time.process_time() - began}))
"""


def lines(inferences: int, *, first: int = 0, seed: int = 0) -> Iterator[bytes]:
    """Yield a request, as a collector that keeps hashes writes it, and a reply of 10 classes each.

    A third of the replies comes before its request.
    """
    rng = np.random.default_rng(seed)
    for number in range(first, first + inferences):
        at = f"2026-03-04T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"{rng.bytes(16).hex()}",
            "ce-inferenceservicename": "svc",
            "ce-namespace": "ns",
            "ce-time": at,
            "content-type": "application/json",
        }
        image = f"{number:064x}"
        asked = {
            "received_at": at,
            "headers": {**headers, "ce-type": "org.kubeflow.serving.inference.request"},
            "body_sha256": image,
            "request": {"protocol": "v2", "samples": [image], "tensors": [None], "v2_id": "",
                        "model_name": "m", "problem": ""},
        }  # fmt: skip
        values = rng.dirichlet(np.ones(10)).astype(np.float32)
        reply = {"model_name": "m", "model_version": "model-1", "outputs": [
            {"name": "probabilities", "shape": [1, 10], "datatype": "FP32",
             "data": values.tolist()}]}  # fmt: skip
        answered = {
            "received_at": at,
            "headers": {**headers, "ce-type": "org.kubeflow.serving.inference.response"},
            "body_b64": base64.b64encode(orjson.dumps(reply)).decode(),
        }
        pair = (answered, asked) if number % 3 == 0 else (asked, answered)
        yield from (orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in pair)


def write_segments(folder: Path, inferences: int, *, a_segment: int = 25_000) -> None:
    """Write the events of so many inferences as segments of a collector."""
    folder.mkdir(parents=True)
    for first in range(0, inferences, a_segment):
        with (folder / f"{first:09d}.events.jsonl").open("wb") as file:
            file.writelines(lines(min(a_segment, inferences - first), first=first, seed=first))


def harvest_beside(lake: Path, events: Path) -> dict[str, Any]:
    """Harvest in a process of its own.

    Returns:
        The stage's outputs, ``peak_mib`` of memory and ``cpu_s``.
    """
    config = json.dumps({"lake": str(lake), "name": "test"})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM),
         config, str(events)],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    held: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return held
