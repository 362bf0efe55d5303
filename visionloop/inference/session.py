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
from collections.abc import Sequence
from typing import Any

from visionloop import environment
from visionloop.errors import InputError, VisionloopError

_CUDA = "CUDAExecutionProvider"
PROCESSOR = "CPUExecutionProvider"
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


def start_session(
    onnx: bytes, *, where: str, threads: int = 0, providers: Sequence[str] = ()
) -> Any:
    """Start an ONNX Runtime session on this machine's `device`, or say that the bytes are no model.

    Args:
        onnx: Bytes of the model.
        where: Where they came from, for the error.
        threads: Threads of one operator on the CPU; 0 leaves it to ONNX Runtime.
        providers: Execution providers in place of the `device`, see `find_providers`; the CPU does
            what they cannot.

    Raises:
        InputError: The bytes are no model, or a provider is not in this build.
        VisionloopError: There is a GPU and a build for it, and ONNX Runtime cannot use it; or a
            provider that was named does not start.
    """
    if providers:
        return _start_on(find_providers(providers), onnx, where, threads)
    if device() == "CPU":
        _tell_once(unused_gpu())
        return _start_on_processor(onnx, where, threads)
    unloaded = load_cuda()
    try:
        session = _start(onnx, threads, [(_CUDA, _EXACT), PROCESSOR])
    except Exception as error:  # onnxruntime raises types of its own C++ module
        # What the processor takes is a model: then it is the GPU that failed.
        _start_on_processor(onnx, where, threads)
        raise _unusable(unloaded or _why(error), where) from error
    # Where CUDA's part of ONNX Runtime cannot be loaded, it starts without, and logs why.
    if _CUDA not in session.get_providers():
        raise _unusable(unloaded, where)
    return session


def find_providers(wanted: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Find execution providers of this build of ONNX Runtime.

    Args:
        wanted: Each a name, with or without ``ExecutionProvider``, in any case, and its options if
            any: ``cuda``, ``OpenVINO:device_type=CPU``, ``tensorrt:trt_fp16_enable=1,…``.

    Returns:
        Full names and options, in the order that they are asked in.

    Raises:
        InputError: ONNX Runtime knows no such provider, or this build has none.
    """
    runtime = _onnxruntime()
    known = {_short(name): name for name in runtime.get_all_providers()}
    here = {_short(name): name for name in runtime.get_available_providers()}
    found = []
    for one in wanted:
        name, _, given = one.partition(":")
        short = _short(name)
        if short not in known | here:
            raise InputError(
                f"ONNX Runtime knows no execution provider {name!r}",
                where=f"provider {one}",
                remedy=f"Name one of this build's: {', '.join(sorted(here))}",
            )
        if short not in here:
            raise InputError(
                f"this build of ONNX Runtime has no {known[short]}; it has "
                f"{', '.join(sorted(here.values()))}",
                where=f"provider {one}",
                remedy="Install the build of ONNX Runtime that has it, such as visionloop[gpu] for "
                "CUDA and TensorRT, or name another provider",
            )
        options = dict(part.split("=", 1) for part in given.split(",") if "=" in part)
        if any("=" not in part for part in given.split(",")) and given:
            raise InputError(
                f"the options of a provider are key=value, separated by commas, not {given!r}",
                where=f"provider {one}",
                remedy="Write them as in OpenVINO:device_type=CPU,num_streams=1",
            )
        found.append((here[short], options))
    return found


def _short(name: str) -> str:
    return name.strip().lower().removesuffix("executionprovider")


def _start_on(
    providers: list[tuple[str, dict[str, str]]], onnx: bytes, where: str, threads: int
) -> Any:
    """Start on providers that were named: all of them, or not at all."""
    nvidia = any(name.startswith(("CUDA", "Tensorrt", "NvTensorRT")) for name, _ in providers)
    unloaded = load_cuda() if nvidia else ""
    exact = [(name, _EXACT | more if name == _CUDA else more) for name, more in providers]
    try:
        session = _start(onnx, threads, [*exact])
    except Exception as error:  # onnxruntime raises types of its own C++ module
        _start_on_processor(onnx, where, threads)
        raise _not_started(providers, unloaded or _why(error), where) from error
    lacking = [one for one in providers if one[0] not in session.get_providers()]
    if lacking:
        raise _not_started(lacking, unloaded, where)
    return session


def _not_started(
    providers: list[tuple[str, dict[str, str]]], why: str, where: str
) -> VisionloopError:
    names = ", ".join(name for name, _ in providers)
    return VisionloopError(
        f"ONNX Runtime cannot use {names}" + (f": {why}" if why else ""),
        where=where,
        remedy="Its libraries and its device must be on this machine, and its options such as it "
        "knows; or name another provider",
    )


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
        return _start(onnx, threads, [PROCESSOR])
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
