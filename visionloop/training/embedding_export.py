"""Exports a pretrained trunk to ONNX as an embedding network."""

from __future__ import annotations

from visionloop.training.bundle import export_onnx
from visionloop.training.network import build_network, published_state
from visionloop.training.trainer import trunk_of
from visionloop.training.weights import load_trunk, read_state_dict


def export_embedding(
    architecture: str, *, image_size: int, state: bytes | None, where: str
) -> bytes:
    """Return an ONNX graph from ``image`` [n, 3, S, S] in 0..1 to ``embedding`` [n, d].

    Args:
        architecture: ``small_cnn`` or a torchvision network.
        image_size: S, in pixels.
        state: Bytes of a state dict; None downloads torchvision's published weights.
        where: Where the state dict came from, for the error.

    Raises:
        InputError: The weights cannot be had or do not fit the architecture.
    """
    import torch
    from torch import nn

    network = build_network(architecture, n_classes=1, image_size=image_size)
    if state is None:
        trunk_of(network).load_state_dict(published_state(architecture, image_size=image_size))
    else:
        load_trunk(trunk_of(network), read_state_dict(state, where=where), where=where)

    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            embedding: torch.Tensor = self.network(image)[1]
            return embedding

    return export_onnx(Embedding().eval(), image_size=image_size, outputs=["embedding"])
