"""A graph on OpenVINO: fixed shapes, and a stream of its own for each core.

Streams of one thread never wait for each other, so threads that decode images meanwhile take no
barrier's time. The plugin of processors computes in bfloat16 where they have it, down to the last
matrix product; what comes behind that, a softmax for example, stays in float32.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Images at once, at 224 pixels; fewer of larger ones. Powers of two keep a core's caches.
BATCH, BATCH_SIDE = 32, 224
# Where a container has the share of the processors that it may take.
_LIMIT = "/sys/fs/cgroup/cpu.max"
# More streams hold more memory; further cores join them as threads.
MAX_STREAMS = 8


def installed() -> str:
    """Return OpenVINO's version, empty where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def computes_bfloat16() -> bool:
    """Return whether this machine's processor computes in bfloat16 (AVX512_BF16, AMX)."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def processors() -> int:
    """Return the cores that this process may use: those of its mask, and of its pod's limit."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path(_LIMIT).read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def streams() -> int:
    """Return how many batches are computed at once."""
    return min(processors(), MAX_STREAMS)


class OpenVinoGraph:
    """A compiled graph; safe to use from several threads, `streams` of them at once.

    Args:
        onnx: The graph's bytes.
        outputs: Names of the outputs that are wanted.
        size: Side of the images, in pixels.
        batch: Images at once that the graph is made for; 0 where it takes any number.
        precision: ``float32`` or ``bfloat16``.

    Raises:
        RuntimeError: OpenVINO cannot take the graph.
    """

    def __init__(
        self, onnx: bytes, *, outputs: list[str], size: int, batch: int, precision: str
    ) -> None:
        openvino = _openvino()
        self.batch = batch or max(1, BATCH * BATCH_SIDE**2 // max(size, BATCH_SIDE) ** 2)
        core = _core()
        model = core.read_model(onnx)
        model.reshape({model.inputs[0].any_name: [self.batch, 3, size, size]})
        # Pixels go in as they are decoded: a quarter of the memory, and no copy in Python.
        steps = openvino.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8)
        steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
        compiled = core.compile_model(
            steps.build(),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                "INFERENCE_NUM_THREADS": processors(),
                "NUM_STREAMS": streams(),
                # A pinned thread waits for its core while a decoder has it, and another is idle.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._places = [_place(compiled, name) for name in outputs]
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams()):
            self._free.put(compiled.create_infer_request())

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run the network.

        Args:
            pixels: uint8 [n, size, size, 3]; n is at most `batch`.

        Returns:
            An array [n, …] for each output.
        """
        n = len(pixels)
        request = self._free.get()
        try:
            held = request.get_input_tensor(0).data
            # Turned into planes here, which costs less than a transposition in the graph.
            held[:n] = pixels.transpose(0, 3, 1, 2)
            held[n:] = held[n - 1]
            request.infer()
            found = [request.get_output_tensor(place).data for place in self._places]
            return [np.array(values[:n], dtype=np.float32) for values in found]
        finally:
            self._free.put(request)


def _place(compiled: Any, name: str) -> int:
    return next(i for i, output in enumerate(compiled.outputs) if name in output.names)


@functools.cache
def _openvino() -> Any:
    """Import OpenVINO, which tells its makers of each import by what it installs beside it.

    It does without where that cannot be imported: nothing is sent, and no id is left at home.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def _core() -> Any:
    return _openvino().Core()
