"""What the stage `infer` is compared with: PyTorch, and bare loops of its own runtime."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.inference import openvino_graph

SIZE = 224
THREADS = openvino_graph.processors()
Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]


class Torch:
    """PyTorch on as many threads as there are cores, 16 images at once."""

    def __init__(self, state: bytes, *, half: bool = False) -> None:
        import torch

        from visionloop.training.network import build_network
        from visionloop.training.trainer import trunk_of

        torch.set_num_threads(THREADS)
        self.half = half
        network = build_network("resnet18", n_classes=1, image_size=SIZE)
        trunk_of(network).load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        self.network = network.eval().to(memory_format=torch.channels_last)

    def __call__(self, batch: NDArray[np.float32]) -> Vectors:
        """Embed float32 [n, 3, 224, 224]."""
        import torch

        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            images = torch.from_numpy(batch).to(memory_format=torch.channels_last)
            return np.asarray(self.network(images)[1].float().numpy())


def bare_loop(
    onnx: bytes, batches: Callable[[int], Iterator[Pixels]], precision: str, *, pinned: bool
) -> Callable[[], Vectors]:
    """Return a loop of OpenVINO with a request for each core, and nothing around it.

    Args:
        onnx: The network.
        batches: Yields the images, uint8 [n, 224, 224, 3], so many at a time.
        precision: OpenVINO's name of it.
        pinned: Whether each thread keeps to its core.
    """
    openvino = openvino_graph._openvino()
    step = openvino_graph.BATCH
    core = openvino.Core()
    model = core.read_model(onnx)
    model.reshape({model.inputs[0].any_name: [step, 3, SIZE, SIZE]})
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    compiled = core.compile_model(
        steps.build(),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": THREADS,
            "INFERENCE_NUM_THREADS": THREADS,
            "ENABLE_CPU_PINNING": pinned,
        },
    )
    requests = openvino.AsyncInferQueue(compiled, THREADS)

    def loop() -> Vectors:
        found: dict[int, Vectors] = {}

        def keep(request: Any, number: int) -> None:
            found[number] = request.get_output_tensor(0).data.copy()

        requests.set_callback(keep)
        images = 0
        for number, batch in enumerate(batches(step)):
            images += len(batch)
            whole = np.empty((step, 3, SIZE, SIZE), np.uint8)
            whole[: len(batch)] = batch.transpose(0, 3, 1, 2)
            requests.start_async({0: whole}, number)
        requests.wait_all()
        return np.concatenate([found[number] for number in sorted(found)])[:images]

    return loop
