"""The model in service, as the stage `infer` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.errors import VisionloopError
from visionloop.inference.model import MODEL_FILE, OnnxModel, check_digest, read_file
from visionloop.inference.network import Network
from visionloop.inference.preprocessing import decoded_side, picture_to_pixels, scaled

if TYPE_CHECKING:
    from visionloop.config import InferenceConfig


class Classifier:
    """A trained model on the runtime that the configuration names; safe in threads.

    What judges a model runs the file that is served, in float32; this is for the many samples that
    are predicted only to choose among them.

    Attributes:
        card: The model's card.
        side: Pixels that the shorter side of a decoded photograph must keep.

    Args:
        model: The model.
        inference: The section `inference`.
    """

    def __init__(self, model: OnnxModel, inference: InferenceConfig) -> None:
        self.card = model.card
        self.side = decoded_side(model.card.image_size)
        self._uri = model.uri

        def graph() -> bytes:
            data = read_file(model.uri, MODEL_FILE)
            check_digest(model.card, MODEL_FILE, data, where=model.uri)
            return data

        self._network = Network(
            lambda pixels: list(model.predict(scaled(pixels))),
            graph,
            outputs=["probabilities", "embedding"],
            size=model.card.image_size,
            batch=0,
            where=model.uri,
            config=inference,
        )

    @property
    def parallel(self) -> int:
        """How many threads may as well call `predict` at once."""
        return self._network.parallel

    @property
    def ran_on(self) -> str:
        """What computed the predictions, for a person; empty before any was."""
        return self._network.told

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Reduce an upright picture, L, RGB or RGBX, to what `predict` takes."""
        return picture_to_pixels(picture, self.card.image_size)

    def predict(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predict class probabilities and embeddings.

        Args:
            pixels: uint8 [n, image_size, image_size, 3], n at least 1.

        Returns:
            As `OnnxModel.predict`.

        Raises:
            InputError: The configuration asks for what this machine cannot do.
            VisionloopError: The network answered NaN or infinity, or the GPU failed.
        """
        probabilities, vectors = self._network.run(pixels)
        if not (np.isfinite(probabilities).all() and np.isfinite(vectors).all()):
            raise VisionloopError(
                f"model {self.card.model_id} answered a number that is not finite",
                where=self._uri,
                remedy="Train it again with a smaller learning rate",
            )
        return probabilities, vectors
