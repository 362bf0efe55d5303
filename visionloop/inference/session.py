"""ONNX Runtime sessions, on the GPU that a machine was given or, never in silence, its processor.

Two distributions hold the module ``onnxruntime``: one for processors, and ``onnxruntime-gpu``,
which needs CUDA's libraries (from NVIDIA's wheels) and a driver (from the node) only on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
from typing import Any

from visionloop import environment
from visionloop.errors import InputError, VisionloopError

_CUDA = "CUDAExecutionProvider"
_PROCESSOR = "CPUExecutionProvider"
# Where a container has the driver's device.
_NVIDIA = "/dev/nvidiactl"
_DRIVER = "libcuda.so.1"
# A sample gets the vector that it gets without a GPU, and in every run: no reduced precision, and
# the algorithm that cuDNN names for a shape. A race between them, the default, has another winner
# each time, and is run anew for each number of images.
_EXACT = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
# The smallest ONNX model: one number, unchanged.
SMALLEST = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a0808011204"
    "0a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
# Of an error of CUDA's libraries, what a person needs: beside it stand places in C++ and the host.
_FAILURE = re.compile(r"\bCU[A-Z]+ (?:failure|error)[^;\n]*")
# What errors of CUDA's libraries and of its memory say.
_SIGNS = ("CUDA", "CUDNN", "CUBLAS", "CUFFT", "Failed to allocate memory")


def device() -> str:
    """Return what ONNX models run on: ``CUDA`` where machine and build have it, or ``CPU``."""
    return "CUDA" if gpu_is_there() and _build_has_cuda() else "CPU"


def unused_gpu() -> str:
    """Return why ONNX models leave a GPU of this machine idle; empty where they do not."""
    if not gpu_is_there() or _build_has_cuda():
        return ""
    return (
        "there is a GPU, and this build of ONNX Runtime cannot use it: ONNX models run on the CPU"
    )


def gpu_is_there() -> bool:
    """Return whether this process was given a GPU, whatever can use it."""
    return os.path.exists(_NVIDIA) and not environment.hides_gpus()


def _build_has_cuda() -> bool:
    return _CUDA in _onnxruntime().get_available_providers()


def _onnxruntime() -> Any:
    environment.refuse_telemetry()
    import onnxruntime

    return onnxruntime


def start_session(onnx: bytes, *, where: str, threads: int = 0) -> Any:
    """Start an ONNX Runtime session on this machine's `device`, or say that the bytes are no model.

    Args:
        onnx: Bytes of the model.
        where: Where they came from, for the error.
        threads: Threads of one operator on the CPU; 0 leaves it to ONNX Runtime.

    Raises:
        InputError: The bytes are no model.
        VisionloopError: There is a GPU and a build for it, and ONNX Runtime cannot use it.
    """
    if device() == "CPU":
        _tell_once(unused_gpu())
        return _start_on_processor(onnx, where, threads)
    unloaded = load_cuda()
    try:
        session = _start(onnx, threads, [(_CUDA, _EXACT), _PROCESSOR])
    except Exception as error:  # onnxruntime raises types of its own C++ module
        # What the processor takes is a model: then it is the GPU that failed.
        _start_on_processor(onnx, where, threads)
        raise _unusable(unloaded or _why(error), where) from error
    # Where CUDA's part of ONNX Runtime cannot be loaded, it starts without, and logs why.
    if _CUDA not in session.get_providers():
        raise _unusable(unloaded, where)
    return session


def run_session(
    session: Any, outputs: list[str], inputs: dict[str, Any], *, where: str
) -> list[Any]:
    """Run a network, and say so where it is the GPU that fails.

    Args:
        session: From `start_session`.
        outputs: Names of the outputs that are wanted.
        inputs: Array by the name of the input.
        where: Where the model came from, for the error.

    Returns:
        An array for each output.

    Raises:
        VisionloopError: The GPU failed.
        Exception: The network does not take these inputs, in ONNX Runtime's own types.
    """
    try:
        return list(session.run(outputs, inputs))
    except Exception as error:
        if _CUDA in session.get_providers() and any(sign in str(error) for sign in _SIGNS):
            raise VisionloopError(
                f"the GPU failed while the network ran: {_why(error)}",
                where=where,
                remedy="Start the same run again, which goes on behind what is finished; where "
                "its memory did not suffice, take an accelerator with more of it, or let no "
                "other process share it",
            ) from error
        raise


@functools.cache
def load_cuda() -> str:
    """Load CUDA's libraries, from NVIDIA's wheels or where the system has them, and the driver's.

    Returns:
        What could not be loaded, in the loader's words; empty if all could.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        _onnxruntime().preload_dlls()
        try:
            ctypes.CDLL(_DRIVER)
        except OSError as error:
            print(f"Failed to load the driver, {error}")
    failed = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return "; ".join(failed)


def _start_on_processor(onnx: bytes, where: str, threads: int) -> Any:
    try:
        return _start(onnx, threads, [_PROCESSOR])
    except Exception as error:  # onnxruntime raises types of its own C++ module
        raise InputError(
            f"ONNX Runtime cannot load the model: {_first_line(error)}",
            where=where,
            remedy="Check that the file is an ONNX model and that it was copied whole",
        ) from error


def _start(onnx: bytes, threads: int, providers: list[Any]) -> Any:
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    if threads:
        options.intra_op_num_threads = threads
    # Spinning workers take the cores that decoding threads need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Falling back would run a network on the processor of a pod that pays for its GPU.
    return runtime.InferenceSession(onnx, options, providers=providers, enable_fallback=0)


def _unusable(why: str, where: str) -> VisionloopError:
    return VisionloopError(
        "there is a GPU, and ONNX Runtime cannot use it" + (f": {why}" if why else ""),
        where=where,
        remedy="ONNX Runtime, CUDA and cuDNN must be those of visionloop[gpu], as our GPU image "
        "has them, and the node's driver one for their CUDA (13: driver 580 or newer). To run on "
        "the CPU, leave the accelerator's type empty, or set CUDA_VISIBLE_DEVICES=-1",
    )


@functools.cache
def _tell_once(text: str) -> None:
    if text:
        logging.getLogger(__name__).warning("%s; install visionloop[gpu]", text)


def _why(error: Exception) -> str:
    found = _FAILURE.search(str(error))
    return found[0].strip() if found else _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
