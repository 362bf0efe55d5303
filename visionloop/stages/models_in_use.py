"""What the samples of a loop are embedded and predicted with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visionloop.config import LoopConfig
    from visionloop.inference.pending import Models
    from visionloop.lake import Lake


def models_in_use(loop: LoopConfig, lake: Lake, media: Mapping[str, str], version: str) -> Models:
    """Open the embedder of the base space, and the model in service.

    Args:
        loop: The configuration.
        lake: The lake.
        media: URI by sample id; the pixel descriptor is fitted on these when there is none yet.
        version: Lake version that tells which model is in service; empty for the newest.

    Raises:
        InputError: The weights or the model cannot be used.
    """
    from visionloop.inference.classifier import Classifier
    from visionloop.inference.embedder import open_embedder
    from visionloop.inference.pending import Models
    from visionloop.training.experiments import in_service, load_bundle

    embedder = open_embedder(loop.embedding, loop.inference, lake, media)
    serving = in_service(lake, version=version or None)
    if serving is None:
        return Models(embedder)
    bundle = load_bundle(serving["model_id"], serving["uri"])
    return Models(embedder, Classifier(bundle, loop.inference), serving["uri"])
