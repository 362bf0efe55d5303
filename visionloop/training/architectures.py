"""The networks that can be trained, by name: what can be said of one without making it."""

from __future__ import annotations

from visionloop.errors import InputError
from visionloop.validation import nearest

SMALL_CNN = "small_cnn"


def check_architecture(architecture: str) -> None:
    """Refuse a network that there is not.

    Args:
        architecture: ``small_cnn``, or the name of a torchvision classification network.

    Raises:
        InputError: There is no such network.
    """
    if architecture == SMALL_CNN:
        return
    from torchvision import models

    known = models.list_models(module=models)
    if architecture not in known:
        raise InputError(
            f"no network is called {architecture!r}{nearest(architecture, [SMALL_CNN, *known])}",
            where="architecture",
            remedy=f"Use {SMALL_CNN}, or a classification network of torchvision such as resnet18",
        )


def refuse_unpublished(architecture: str) -> None:
    """Refuse to start from published weights where a network has none.

    Args:
        architecture: As in `check_architecture`.

    Raises:
        InputError: There are none.
    """
    if architecture == SMALL_CNN:
        raise InputError(
            "small_cnn has no published weights",
            where="architecture",
            remedy="Leave weights empty, or choose a torchvision architecture",
        )
