"""What a round would fail of on its way to a model, looked at before it starts."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.training.parameters import TrainingConfig


def check_training(parameters: TrainingConfig) -> None:
    """Refuse a training that could never begin, before anybody labels for it.

    KFP starts a failed task again whatever it failed of: such an error would hold a node with a GPU
    three times. Whether a network of torchvision is known can be told where torchvision is
    installed, as in the image with a GPU's libraries; elsewhere `train` is the first to know.

    Args:
        parameters: The configuration's section `training`.

    Raises:
        InputError: There is no such network, or the weights to start from cannot be read.
    """
    from visionloop.inference.weights import PUBLISHED, read_weights
    from visionloop.training.architectures import (
        SMALL_CNN,
        check_architecture,
        refuse_unpublished,
    )

    if parameters.weights == PUBLISHED:
        refuse_unpublished(parameters.architecture)
    elif parameters.weights:
        read_weights(parameters.weights, setting="training.weights")
    if parameters.architecture != SMALL_CNN and importlib.util.find_spec("torchvision"):
        check_architecture(parameters.architecture)
