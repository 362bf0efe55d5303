"""Writes a trained network as a model bundle: ONNX, card, state dict and reference outputs."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import VisionloopError
from visionloop.inference.model import (
    CARD_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    STATE_FILE,
    ModelCard,
)

if TYPE_CHECKING:
    from torch import nn

OPSET = 18
N_PROBES = 8


def write_bundle(
    directory: str | Path, network: nn.Module, card: ModelCard, *, temperature: float
) -> ModelCard:
    """Write a bundle into a folder, the card last.

    Args:
        directory: The folder; made where it is missing.
        network: A trained network of `visionloop.training.network`, on the CPU.
        card: Its card; ``files``, ``opset`` and ``temperature`` are filled in here.
        temperature: What the logits are divided by.

    Returns:
        The card as it was written.
    """
    import torch

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    deployed = deployable(network, temperature)
    probes = probe_images(card.image_size)
    with torch.no_grad():
        probabilities, embedding = deployed(torch.from_numpy(probes))
    state = io.BytesIO()
    torch.save(network.state_dict(), state)
    reference = io.BytesIO()
    np.savez(
        reference, image=probes, probabilities=probabilities.numpy(), embedding=embedding.numpy()
    )
    contents = {
        MODEL_FILE: export_onnx(
            deployed, image_size=card.image_size, outputs=["probabilities", "embedding"]
        ),
        STATE_FILE: state.getvalue(),
        REFERENCE_FILE: reference.getvalue(),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    written = card.model_copy(
        update={
            "opset": OPSET,
            "temperature": temperature,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        }
    )
    (folder / CARD_FILE).write_text(written.to_json(), encoding="utf-8")
    return written


def deployable(network: nn.Module, temperature: float) -> nn.Module:
    """Return the network as it is served: softmax(logits / temperature) and embedding."""
    import torch
    from torch import nn

    class Deployed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.temperature = float(temperature)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, embedding = self.network(image)
            return torch.softmax(logits / self.temperature, dim=1), embedding

    return Deployed().eval()


def export_onnx(module: nn.Module, *, image_size: int, outputs: list[str]) -> bytes:
    """Export a module with one image input to ONNX, the batch axis free.

    PyTorch's TorchScript exporter is used: it needs no further package and takes a tenth of the
    time of the newer one (0.3 s against 3 s for the small network), and every network here is a
    fixed graph.

    Args:
        module: Maps float32 [n, 3, image_size, image_size] to the outputs, each [n, …].
        image_size: Side of the input in pixels.
        outputs: Names of the outputs.

    Returns:
        The ONNX model, serialised.

    Raises:
        VisionloopError: PyTorch cannot express the network in ONNX.
    """
    import torch

    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(2, 3, image_size, image_size),),
                buffer,  # type: ignore[arg-type]  # this exporter writes to buffers too
                input_names=["image"],
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in ["image", *outputs]},
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise VisionloopError(
            f"the network cannot be exported to ONNX: {str(error).strip().splitlines()[0]}",
            remedy="Choose another architecture, such as resnet18",
        ) from error
    return buffer.getvalue()


def probe_images(size: int) -> NDArray[np.float32]:
    """Return the fixed images that ONNX and PyTorch are compared on.

    Half are noise, half smooth colour gradients: made up, since a model's bundle must not carry
    anybody's pictures.

    Returns:
        float32 [8, 3, size, size] in 0..1.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    noise = rng.random((N_PROBES // 2, 3, size, size), dtype=np.float32)
    axis = np.linspace(0, 1, size, dtype=np.float32)
    corners = rng.random((N_PROBES // 2, 3, 4), dtype=np.float32)[..., None, None]
    y, x = axis[:, None], axis[None, :]
    smooth = (
        corners[:, :, 0] * (1 - y) * (1 - x)
        + corners[:, :, 1] * (1 - y) * x
        + corners[:, :, 2] * y * (1 - x)
        + corners[:, :, 3] * y * x
    )
    return np.concatenate([noise, smooth]).astype(np.float32)
