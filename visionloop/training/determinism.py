"""Makes PyTorch give the same bytes for the same input on one machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionloop import environment

# What the driver says of itself.
_DRIVER = Path("/proc/driver/nvidia/version")
# The training stage shares its node with nobody; beyond this, small networks only get slower.
MAX_THREADS = 8


@contextmanager
def deterministic(*, seed: int, threads: int = 0) -> Iterator[None]:
    """Fix seeds, algorithms and the number of threads inside the ``with`` block.

    The number of threads decides in which order float32 sums are taken, so it is part of what makes
    two trainings equal.

    Args:
        seed: Seed of PyTorch's generators; what they were before comes back at the end.
        threads: CPU threads; 0 for as many as this process may use, at most `MAX_THREADS`.
    """
    environment.fix_cublas_workspace()
    import torch

    before = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    was_benchmark = torch.backends.cudnn.benchmark
    torch.set_num_threads(threads or usable_threads())
    # Some torchvision networks hold a CUDA operation without a deterministic form: they train all
    # the same, and PyTorch warns which operation it is. This function and not
    # use_deterministic_algorithms, which imports PyTorch's compiler: 4 s.
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    torch.backends.cudnn.benchmark = False
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = was_benchmark


def usable_threads() -> int:
    """Return how many CPU threads a training takes where nobody says how many."""
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)


def choose_device(wanted: str) -> str:
    """Return ``cuda`` or ``cpu``.

    Args:
        wanted: ``cuda``, ``cpu``, or ``auto`` for the GPU where this process was given one.

    Raises:
        InputError: A GPU is asked for and there is none.
        VisionloopError: There is one, and PyTorch cannot use it: on the CPU the training would hold
            it for hours.
    """
    if wanted == "cpu":
        return "cpu"
    import torch

    from visionloop.errors import InputError, VisionloopError
    from visionloop.inference.session import gpu_is_there

    if torch.cuda.is_available():
        return "cuda"
    if gpu_is_there():
        built = torch.version.cuda
        raise VisionloopError(
            "there is a GPU, and PyTorch cannot use it: "
            + (f"it is built for CUDA {built}" if built else "it is built without CUDA"),
            where=f"driver {_driver()}, PyTorch {torch.__version__}",
            remedy=(
                f"Give the node a driver for CUDA {built} (580 or newer for CUDA 13), or the image "
                "a PyTorch that is built for this one"
                if built
                else "Install PyTorch from its CUDA wheels"
            )
            + "; to train on the CPU, set training.device: cpu and ask for no accelerator",
        )
    if wanted == "cuda":
        raise InputError(
            "PyTorch sees no GPU",
            where="training.device",
            remedy="Set training.device: auto, or run the stage on a node with a GPU",
        )
    return "cpu"


def _driver() -> str:
    """Return the driver's version, as ``535.129.03``."""
    try:
        first = _DRIVER.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return "of an unknown version"
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", first)
    return found[0] if found else first
