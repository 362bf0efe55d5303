"""What a sample is embedded with: named weights, or the pixel descriptor that needs none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.errors import InputError, VisionloopError
from visionloop.inference.descriptor import (
    FIT_SAMPLES,
    SIDE,
    PixelDescriptor,
    fit_descriptor,
    pixel_features,
)
from visionloop.inference.images import load_images
from visionloop.inference.network import Network
from visionloop.inference.preprocessing import decoded_side, picture_to_pixels, scaled
from visionloop.inference.session import run_session, start_session
from visionloop.inference.weights import named_weights
from visionloop.lake.storage import name_of

if TYPE_CHECKING:
    from visionloop.config import EmbeddingConfig, InferenceConfig
    from visionloop.lake import Lake

DEFAULT_WEIGHTS_SIDE = 224


class Embedder(Protocol):
    """Makes embeddings of one space.

    Attributes:
        space: Name of the space, with a hash of all that its vectors depend on.
        dimensions: Components of a vector.
        source: One sentence for a person: what the embeddings come from.
        side: Pixels that the shorter side of a decoded photograph must keep.
    """

    space: str
    dimensions: int
    source: str
    side: int

    @property
    def parallel(self) -> int:
        """How many threads may as well call `embed` at once."""

    @property
    def ran_on(self) -> str:
        """What computed the embeddings, for a person; empty where no network did."""

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        """Reduce an upright picture, L, RGB or RGBX, to what `embed` takes; safe in threads."""

    def embed(self, prepared: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 [n, d], rows of length 1, of n prepared images; safe in threads."""


class PixelEmbedder:
    """The pixel descriptor as an embedder."""

    def __init__(self, descriptor: PixelDescriptor) -> None:
        self._descriptor = descriptor
        self.parallel = 1
        self.ran_on = ""
        self.side = decoded_side(descriptor.size)
        self.space = descriptor.space
        self.dimensions = descriptor.dimensions
        self.source = (
            f"pixel descriptor (no weights were named): {descriptor.dimensions} principal "
            f"components of shape, edges and colour, fitted on {descriptor.fitted_on} images"
        )

    def prepare(self, picture: Image.Image) -> NDArray[np.float32]:
        """Return the picture's features."""
        return pixel_features(picture, self._descriptor.size)

    def embed(self, prepared: NDArray[Any]) -> NDArray[np.float32]:
        """Project the features."""
        return self._descriptor.embed(prepared)


class OnnxEmbedder:
    """Embeddings of an ONNX graph that the user named.

    The graph takes one float32 [n, 3, S, S] input, RGB in 0..1 (normalisation is inside it), and
    gives float32 [n, d]: the output called ``embedding``, or its only one.

    Args:
        onnx: The graph's bytes.
        where: Where they came from.
        image_size: S where the graph leaves it open; 0 for 224.
        source: What a person is told.
        inference: The section `inference`: what the graph is run with.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        where: str,
        image_size: int,
        source: str,
        inference: InferenceConfig,
    ) -> None:
        self._session = start_session(onnx, where=where)
        self._where = where
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._output = _embedding_output(outputs, where)
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] in (1, 4):
            shapes = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs)
            raise InputError(
                f"the network takes {shapes}; embeddings need one input [n, 3, size, size]",
                where=where,
                remedy="Export the network with one RGB image input in 0..1",
            )
        self._input = inputs[0].name
        # A graph exported with a fixed batch takes that many images at once, or it takes any.
        self._batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 0
        fixed = inputs[0].shape[2]
        self._size = fixed if isinstance(fixed, int) else image_size or DEFAULT_WEIGHTS_SIDE
        self.side = decoded_side(self._size)
        probe = self._vectors(self._exact(np.zeros((1, self._size, self._size, 3), np.uint8))[0], 1)
        self.dimensions = int(probe.shape[1])
        self._network = Network(
            self._exact,
            lambda: onnx,
            outputs=[self._output],
            size=self._size,
            batch=self._batch,
            where=where,
            config=inference,
        )
        digest = hashlib.sha256(f"{self._size} {self._output} ".encode() + onnx).hexdigest()
        self.space = f"weights_{digest[:12]}"
        self.source = f"{source}, images of {self._size} pixels, {self.dimensions} components"

    @property
    def parallel(self) -> int:
        """How many threads may as well call `embed` at once."""
        return self._network.parallel

    @property
    def ran_on(self) -> str:
        """What computed the embeddings; empty before any was."""
        return self._network.told

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Return the network's input, not yet scaled."""
        return picture_to_pixels(picture, self._size)

    def embed(self, prepared: NDArray[Any]) -> NDArray[np.float32]:
        """Run the network and scale its vectors to length 1.

        Raises:
            InputError: It answers with something else than one vector an image.
            VisionloopError: It answers with NaN or infinity, or the GPU failed.
        """
        return self._vectors(self._network.run(prepared)[0], len(prepared))

    def _vectors(self, vectors: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        if vectors.ndim == 4 and vectors.shape[2:] == (1, 1):
            vectors = vectors[:, :, 0, 0]
        if vectors.ndim != 2 or len(vectors) != n:
            raise InputError(
                f"the network answers {list(vectors.shape)} for {n} images, not one vector each",
                where=self._where,
                remedy="Export it with a pooled output [n, d], named `embedding`",
            )
        if not np.isfinite(vectors).all():
            raise VisionloopError(
                "the network answered a number that is not finite",
                where=self._where,
                remedy="Check the weights",
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _exact(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        rows = pixels
        if len(rows) < self._batch:
            rows = np.concatenate([rows, np.repeat(rows[-1:], self._batch - len(rows), axis=0)])
        try:
            vectors = run_session(
                self._session, [self._output], {self._input: scaled(rows)}, where=self._where
            )[0]
            return [np.asarray(vectors, dtype=np.float32)[: len(pixels)]]
        except VisionloopError:
            raise
        except Exception as error:  # onnxruntime raises types of its own C++ module
            raise InputError(
                f"the network does not take images of {self._size} pixels: "
                f"{str(error).strip().splitlines()[0]}",
                where=self._where,
                remedy="Set embedding.image_size to the size that it was exported for",
            ) from error


def _embedding_output(outputs: list[Any], where: str) -> str:
    names = [str(output.name) for output in outputs]
    if "embedding" in names:
        return "embedding"
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"the network has {len(names)} outputs ({', '.join(names)}), none named `embedding`",
        where=where,
        remedy="Name the output to use `embedding`",
    )


def open_embedder(
    config: EmbeddingConfig, inference: InferenceConfig, lake: Lake, media: Mapping[str, str]
) -> Embedder:
    """Open the embedder of the loop's base space.

    Args:
        config: The section `embedding`.
        inference: The section `inference`.
        lake: The lake, which keeps the frozen descriptor and exported weights.
        media: URI by sample id; the descriptor is fitted on these when there is none yet.

    Raises:
        InputError: The weights that the user named cannot be used. There is no falling back to the
            descriptor: a loop that silently sees less is worse than one that stops.
    """
    if config.weights:
        found = named_weights(config, lake)
        return OnnxEmbedder(
            found.onnx,
            where=found.where,
            image_size=config.image_size,
            source=found.source,
            inference=inference,
        )
    return PixelEmbedder(_descriptor(config, lake, media))


def _descriptor(config: EmbeddingConfig, lake: Lake, media: Mapping[str, str]) -> PixelDescriptor:
    size = config.image_size or SIDE
    if size % 16:
        raise InputError(
            f"the pixel descriptor reduces images to a multiple of 16 pixels, not {size}",
            where="embedding.image_size",
            remedy="Use 32, or leave it out",
        )
    folder = lake.path("descriptors", lake.loop)
    if lake.storage.exists(folder):
        for info in lake.storage.list(folder):
            if not name_of(info.uri).startswith("pixels_"):
                continue
            held = PixelDescriptor.from_bytes(lake.storage.read(info.uri), where=info.uri)
            if (held.size, held.dimensions) == (size, config.dimensions):
                return held
    # The ids are hashes, so the first in their order are a random sample.
    subset = {sample_id: media[sample_id] for sample_id in sorted(media)[:FIT_SAMPLES]}
    features = [
        loaded.value
        for loaded in load_images(
            subset, lambda picture: pixel_features(picture, size), side=decoded_side(size)
        )
        if loaded.value is not None
    ]
    stacked = np.stack(features) if features else np.zeros((0, 1), dtype=np.float32)
    fitted = fit_descriptor(stacked, dimensions=config.dimensions, size=size)
    lake.storage.write(
        lake.path("descriptors", lake.loop, f"{fitted.space}.npz"), fitted.to_bytes()
    )
    return fitted
