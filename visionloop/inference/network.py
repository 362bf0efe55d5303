"""Networks of the stage `infer`, on the fastest runtime here that gives their vectors.

A space of embeddings is named by its weights, not by what computed them: tasks on a GPU, on a
processor with bfloat16 and on one without add to the same space. So a runtime may only be used
where it agrees with ONNX Runtime in float32. Each task checks that on the first images that it has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import machine
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError, VisionloopError
from visionloop.inference import openvino_graph
from visionloop.inference.openvino_graph import OpenVinoGraph
from visionloop.inference.session import device
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.config import InferenceConfig

# Images at once on ONNX Runtime.
BATCH = 64
# What a runtime must agree to with float32, on so many images: the cosine of vectors, and the
# difference of each probability.
CHECKED = 16
LEAST_COSINE = 0.999
MOST_DIFFERENCE = 0.02

Exact = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class Choice:
    """What networks are run with.

    Attributes:
        runtime: ``openvino`` or ``onnxruntime``.
        precision: ``float32`` or ``bfloat16``.
        lacking: What would be faster here, and why it is not used; empty where nothing would.
    """

    runtime: str
    precision: str
    lacking: str = ""

    @property
    def told(self) -> str:
        """What a person is told."""
        if self.runtime == "openvino":
            return f"OpenVINO {openvino_graph.installed()} in {self.precision} on the CPU"
        for name in ("onnxruntime-gpu", "onnxruntime"):
            try:
                return f"ONNX Runtime {version(name)} in {self.precision} on the {device()}"
            except PackageNotFoundError:
                continue
        return f"ONNX Runtime in {self.precision} on the {device()}"


def choose(config: InferenceConfig) -> Choice:
    """Choose a runtime and a precision for this machine.

    Args:
        config: The section `inference`.

    Raises:
        InputError: It asks for what this machine cannot do.
    """
    wanted, precision = config.runtime, config.precision
    there = bool(openvino_graph.installed())
    if wanted == "auto":
        wanted = "openvino" if there and device() == "CPU" else "onnxruntime"
    if wanted == "onnxruntime":
        if precision == "bfloat16":
            raise InputError(
                "ONNX Runtime does not compute in bfloat16",
                where="inference.precision",
                remedy="Leave it at `auto`; on a processor, install OpenVINO: pip install "
                "'visionloop[lake]'",
            )
        lacking = ""
        # There is none in our extras for other processors.
        if config.runtime == "auto" and device() == "CPU" and machine() == "x86_64":
            lacking = "OpenVINO, up to twice as fast on this processor, is not installed"
        return Choice("onnxruntime", "float32", lacking)
    if not there:
        raise InputError(
            "OpenVINO is not installed",
            where="inference.runtime",
            remedy="pip install 'visionloop[lake]', or leave it at `auto`",
        )
    capable = openvino_graph.computes_bfloat16()
    if precision == "bfloat16" and not capable:
        raise InputError(
            "this machine's processor does not compute in bfloat16",
            where="inference.precision",
            remedy="Leave it at `auto`, which takes float32 there",
        )
    if precision == "auto":
        return Choice("openvino", "bfloat16" if capable else "float32")
    return Choice("openvino", precision)


class Network:
    """A network that is run on pixels; safe to use from several threads.

    Args:
        exact: Runs it with ONNX Runtime in float32, on uint8 [n, size, size, 3].
        onnx: Returns the graph's bytes.
        outputs: Names of the outputs that are wanted, in the order in which `exact` gives them.
        size: Side of the images, in pixels.
        batch: Images at once that the graph is made for; 0 where it takes any number.
        where: Where the network came from, for messages.
        config: The section `inference`.
    """

    def __init__(
        self,
        exact: Exact,
        onnx: Callable[[], bytes],
        *,
        outputs: list[str],
        size: int,
        batch: int,
        where: str,
        config: InferenceConfig,
    ) -> None:
        self._exact = exact
        self._onnx = onnx
        self._outputs = outputs
        self._size = size
        self._batch = batch
        self._where = where
        self._config = config
        self._opening = threading.Lock()
        self._opened: tuple[Exact, int] | None = None
        self._told = ""

    @property
    def told(self) -> str:
        """What a person is told it ran on; empty before it has run."""
        return self._told

    @property
    def parallel(self) -> int:
        """How many threads may as well call `run` at once."""
        choice = choose(self._config)
        return openvino_graph.streams() if choice.runtime == "openvino" else 1

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run the network.

        Args:
            pixels: uint8 [n, size, size, 3], n at least 1.

        Returns:
            An array [n, …] for each output.

        Raises:
            InputError: The configuration asks for what this machine cannot do, or the network does
                not take such images.
            VisionloopError: The network or the GPU failed, or the runtime that the configuration
                names does not agree with float32.
        """
        with self._opening:
            if self._opened is None:
                self._opened = self._open(pixels[:CHECKED])
        run, step = self._opened
        parts = [run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(same) for same in zip(*parts, strict=True)]

    def _open(self, pixels: NDArray[np.uint8]) -> tuple[Exact, int]:
        choice = choose(self._config)
        if choice.runtime == "openvino":
            if self._batch:
                pixels = pixels[: self._batch]
            expected = self._exact(pixels)
            precisions = [choice.precision]
            if self._config.precision == "auto" and choice.precision == "bfloat16":
                precisions.append("float32")
            for precision in precisions:
                tried = Choice("openvino", precision)
                opened = self._try(tried, pixels, expected)
                if not isinstance(opened, str):
                    return opened.run, opened.batch
                self._refuse(tried, opened)
            choice = Choice("onnxruntime", "float32")
        elif choice.lacking:
            log(f"infer: {choice.lacking}: networks run on {choice.told}")
        self._told = choice.told
        return self._exact, self._batch or BATCH

    def _try(
        self, choice: Choice, pixels: NDArray[np.uint8], expected: list[NDArray[np.float32]]
    ) -> OpenVinoGraph | str:
        """Return the compiled graph, or why it is not used."""
        try:
            graph = OpenVinoGraph(
                self._onnx(),
                outputs=self._outputs,
                size=self._size,
                batch=self._batch,
                precision=choice.precision,
            )
            steps = range(0, len(pixels), graph.batch)
            parts = [graph.run(pixels[start : start + graph.batch]) for start in steps]
        except (RuntimeError, StopIteration, IndexError) as error:
            return f"it does not take the network: {(str(error).strip() or 'unknown')[:200]}"
        found = [np.concatenate(same) for same in zip(*parts, strict=True)]
        for name, given, wanted in zip(self._outputs, found, expected, strict=True):
            if differs := disagreement(name, given, wanted):
                return differs
        self._told = f"{choice.told} (it agrees with float32 on the first {len(pixels)} images)"
        return graph

    def _refuse(self, choice: Choice, why: str) -> None:
        """Say why a choice is not used; an error where nothing else was asked for."""
        last = choice.precision == "float32" or self._config.precision != "auto"
        if (self._config.runtime == "openvino" and last) or self._config.precision == "bfloat16":
            raise VisionloopError(
                f"{choice.told} cannot be used: {why}",
                where=self._where,
                remedy="Set inference.runtime and inference.precision to `auto`",
            )
        log(f"infer: {self._where}: not computed by {choice.told}: {why}")


def disagreement(name: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> str:
    """Return how an output differs from that of float32 by more than is allowed; empty if not.

    Args:
        name: The output; of ``probabilities`` each is compared, of others the direction of rows.
        found: [n, …].
        expected: Of the same shape.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return f"its {name} are {list(found.shape)}, or not finite"
    if name == "probabilities":
        most = float(np.abs(found - expected).max(initial=0))
        return "" if most <= MOST_DIFFERENCE else f"a probability differs by {most:.3f}"
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (found, expected))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, 1e-300)
    # Two vectors of zeros are the same one.
    cosines[~a.any(axis=1) & ~b.any(axis=1)] = 1
    least = float(cosines.min(initial=1))
    return "" if least >= LEAST_COSINE else f"a vector's cosine to that of float32 is {least:.4f}"
