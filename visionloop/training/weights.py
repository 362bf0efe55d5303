"""State dicts to start from: read without running code, matched by name and shape."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING

from visionloop.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn


def read_state_dict(data: bytes, *, where: str) -> dict[str, torch.Tensor]:
    """Read a ``.pt`` or ``.pth`` file; only tensors are unpickled, never code.

    Args:
        data: The file's bytes.
        where: Where they came from, for the error.

    Returns:
        Tensors by parameter name.

    Raises:
        InputError: The file is no state dict.
    """
    import torch

    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f"not a PyTorch state dict: {str(error).strip().splitlines()[0]}",
            where=where,
            remedy="Save it with torch.save(model.state_dict(), path)",
        ) from error
    # Training frameworks wrap the state dict, and prefix its names.
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not any(torch.is_tensor(v) for v in loaded.values()):
        raise InputError(
            "the file holds no state dict",
            where=where,
            remedy="Save it with torch.save(model.state_dict(), path)",
        )
    return {
        str(name).removeprefix("module."): value
        for name, value in loaded.items()
        if torch.is_tensor(value)
    }


def load_trunk(trunk: nn.Module, state: dict[str, torch.Tensor], *, where: str) -> int:
    """Load what fits into a trunk by name and shape.

    Args:
        trunk: The network without its head.
        state: The state dict; a last linear layer for other classes is left out.
        where: Where it came from, for the error.

    Returns:
        Number of tensors loaded.

    Raises:
        InputError: A tensor of the trunk is missing or has another shape: a half-loaded network
            would embed noise and nobody would notice.
    """
    own = trunk.state_dict()
    # A bundle's own state.pt names the trunk's tensors `trunk.…`.
    if not set(own) & set(state):
        state = {name.removeprefix("trunk."): value for name, value in state.items()}
    lacking = [
        name for name, value in own.items() if name not in state or state[name].shape != value.shape
    ]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(own)} tensors of the network are missing from the weights or "
            f"have another shape, the first is {lacking[0]!r}",
            where=where,
            remedy="Name the architecture that the weights were made with",
        )
    trunk.load_state_dict({name: state[name] for name in own})
    return len(own)
