"""Predictions of several models on the same stored samples, each image read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.inference.images import Loaded, load_images
from visionloop.inference.model import OnnxModel
from visionloop.inference.preprocessing import decoded_side, picture_to_pixels, scaled
from visionloop.progress import Progress

BATCH = 64


@dataclass(frozen=True)
class MediaPredictions:
    """What models say about samples.

    Attributes:
        sample_ids: The samples that could be read, ascending.
        probabilities: For each model float32 [n, C], in the order of its own classes.
        unreadable: The samples that could not be read, with reasons.
    """

    sample_ids: list[str]
    probabilities: list[NDArray[np.float32]]
    unreadable: list[Loaded[Any]]


def predict_media(
    models: Sequence[OnnxModel], media: Mapping[str, str], *, bar: Progress | None = None
) -> MediaPredictions:
    """Read samples in batches and predict each with every model.

    Args:
        models: The models; they may differ in input size and classes.
        media: URI by sample id.
        bar: Progress to advance by one for each sample.
    """
    sizes = sorted({model.card.image_size for model in models})
    ids: list[str] = []
    parts: list[list[NDArray[np.float32]]] = [[] for _ in models]
    unreadable: list[Loaded[Any]] = []
    held: list[dict[int, NDArray[np.uint8]]] = []

    def flush() -> None:
        for model, found in zip(models, parts, strict=True):
            batch = np.stack([pixels[model.card.image_size] for pixels in held])
            found.append(model.predict(scaled(batch), batch_size=BATCH)[0])
        held.clear()

    def prepare(picture: Image.Image) -> dict[int, NDArray[np.uint8]]:
        return {size: picture_to_pixels(picture, size) for size in sizes}

    side = decoded_side(max(sizes, default=0))
    for loaded in load_images(media, prepare, side=side):
        if bar is not None:
            bar.advance()
        if loaded.value is None:
            unreadable.append(loaded)
            continue
        ids.append(loaded.sample_id)
        held.append(loaded.value)
        if len(held) == BATCH:
            flush()
    if held:
        flush()
    probabilities = [
        np.concatenate(found) if found else np.zeros((0, len(model.card.classes)), np.float32)
        for model, found in zip(models, parts, strict=True)
    ]
    return MediaPredictions(ids, probabilities, unreadable)
