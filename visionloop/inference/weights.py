"""Weights that the user names, as ONNX: used as they are, or exported once into the lake."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.lake.storage import StorageError, name_of, open_storage

if TYPE_CHECKING:
    from visionloop.config import EmbeddingConfig
    from visionloop.lake import Lake

PUBLISHED = "torchvision"
DEFAULT_SIDE = 224


@dataclass(frozen=True)
class NamedWeights:
    """An embedding network.

    Attributes:
        onnx: The graph's bytes.
        where: Where they lie.
        source: What a person is told.
    """

    onnx: bytes
    where: str
    source: str


def named_weights(config: EmbeddingConfig, lake: Lake) -> NamedWeights:
    """Return the network that `embedding.weights` names.

    An ``.onnx`` file is used as it is. A ``.pt`` or ``.pth`` state dict, or torchvision's published
    weights, are exported once, with PyTorch, to ``weights/`` in the lake, and read from there ever
    after: a new release of torchvision cannot change a space.

    Args:
        config: The section `embedding`.
        lake: The lake.

    Raises:
        InputError: The weights cannot be read, are of an unknown kind, or do not fit.
    """
    named = config.weights
    if named == PUBLISHED:
        source = f"torchvision's published weights of {config.architecture}"
        return _exported(config, lake, f"{PUBLISHED} {config.architecture}", None, source)
    suffix = name_of(named).rpartition(".")[2].lower()
    if suffix not in ("onnx", "pt", "pth"):
        raise InputError(
            f"weights of the kind {suffix!r} are not known",
            where=f"embedding.weights: {named}",
            remedy=f"Name an .onnx, .pt or .pth file, or `{PUBLISHED}`",
        )
    data = read_weights(named, setting="embedding.weights")
    if suffix == "onnx":
        return NamedWeights(data, named, f"the network {name_of(named)}")
    digest = hashlib.sha256(data).hexdigest()
    source = f"the weights {name_of(named)} of {config.architecture}"
    return _exported(config, lake, f"{digest} {config.architecture}", data, source)


def read_weights(uri: str, *, setting: str) -> bytes:
    """Return the bytes of a weights file.

    Raises:
        InputError: It is not there or cannot be read.
    """
    try:
        return open_storage(uri).read(uri)
    except StorageError as error:
        raise InputError(
            f"the weights that {setting} names cannot be read: {error.what}",
            where=uri,
            remedy=f"Correct {setting}, or leave it out to use none",
        ) from error


def _exported(
    config: EmbeddingConfig, lake: Lake, key: str, state: bytes | None, source: str
) -> NamedWeights:
    size = config.image_size or DEFAULT_SIDE
    digest = hashlib.sha256(f"{key} {size}".encode()).hexdigest()
    uri = lake.path("weights", f"{config.architecture}-{digest[:12]}.onnx")
    if not lake.storage.exists(uri):
        # The one place outside training that needs PyTorch, once in the life of a lake.
        from visionloop.training.embedding_export import export_embedding

        onnx = export_embedding(
            config.architecture, image_size=size, state=state, where=config.weights
        )
        lake.storage.write(uri, onnx)
    return NamedWeights(lake.storage.read(uri), uri, source)
