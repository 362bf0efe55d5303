"""Embeds and predicts samples, a chunk at a time, into tables that can wait for their commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.inference.images import load_images
from visionloop.inference.pending import Models, Pending
from visionloop.inference.preprocessing import to_input
from visionloop.inference.results import Finished, write_result
from visionloop.lake.schemas import PROBABILITIES, TIME

if TYPE_CHECKING:
    from visionloop.inference.images import Loaded
    from visionloop.lake import Lake
    from visionloop.progress import Progress

BATCH = 64
# Kept at once: what a killed task loses, and what is held in memory.
CHUNK = 4096

Inputs = tuple[NDArray[np.float32], NDArray[np.float32]]


def finish(
    lake: Lake,
    media: Mapping[str, str],
    pending: Pending,
    models: Models,
    bar: Progress,
    shard: str = "",
) -> list[Finished]:
    """Embed and predict what is pending, and keep it beside the tables until it is committed.

    Args:
        lake: The lake.
        media: URI by sample id, of all that is pending.
        pending: What has to be done.
        models: What it is done with.
        bar: Advanced by each image.
        shard: The shard that is worked on, if any.

    Returns:
        The files that were written.
    """
    todo = pending.ids()
    written = []
    for start in range(0, len(todo), CHUNK):
        chunk = {name: media[name] for name in todo[start : start + CHUNK]}
        table = embed_and_predict(chunk, pending, models, bar)
        written.append(write_result(lake, models, table, shard))
    return written


def embed_and_predict(
    media: Mapping[str, str], pending: Pending, models: Models, bar: Progress
) -> pa.Table:
    """Embed and predict some samples.

    Args:
        media: URI by sample id.
        pending: What is wanted of each.
        models: What it is done with.
        bar: Advanced by each image.

    Returns:
        A row a sample: ``sample_id``, ``uri``, ``reason`` and ``detail`` (why it cannot be read;
        empty if it can), ``vector`` and ``model_vector`` (float32 as bytes), ``probabilities``,
        ``predicted_at``; null is what was not wanted.
    """
    rows: dict[str, dict[str, Any]] = {}
    for ids, inputs, model_inputs in _batches(media, models, bar, rows):
        wanted = [i for i, name in enumerate(ids) if name in pending.to_embed]
        if wanted:
            for i, vector in zip(wanted, models.embedder.embed(inputs[wanted]), strict=True):
                rows[ids[i]]["vector"] = vector.astype("<f4").tobytes()
        if models.model is None:
            continue
        probabilities, vectors = models.model.predict(model_inputs)
        now = datetime.now(UTC)
        for i, name in enumerate(ids):
            if name in pending.to_embed_with_model:
                rows[name]["model_vector"] = vectors[i].astype("<f4").tobytes()
            if name in pending.to_predict:
                rows[name] |= {"probabilities": probabilities[i], "predicted_at": now}
    kinds = {
        "sample_id": pa.string(),
        "uri": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
        "vector": pa.binary(),
        "model_vector": pa.binary(),
        "probabilities": PROBABILITIES,
        "predicted_at": TIME,
    }
    ordered = [rows[name] for name in sorted(rows)]
    return pa.table(
        {name: pa.array([row.get(name) for row in ordered], kind) for name, kind in kinds.items()}
    )


def _batches(
    media: Mapping[str, str], models: Models, bar: Progress, rows: dict[str, dict[str, Any]]
) -> Iterator[tuple[list[str], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield ids, the embedder's inputs and the model's; note a row of each sample, read or not."""
    size = models.model.card.image_size if models.model else 0

    def prepare(image: NDArray[np.uint8]) -> Inputs:
        nothing = np.zeros(0, dtype=np.float32)
        return models.embedder.prepare(image), to_input(image, size) if size else nothing

    held: list[tuple[str, Inputs]] = []
    for loaded in load_images(media, prepare):
        bar.advance()
        rows[loaded.sample_id] = _row(loaded)
        if loaded.value is None:
            continue
        held.append((loaded.sample_id, loaded.value))
        if len(held) == BATCH:
            yield _stack(held)
            held = []
    if held:
        yield _stack(held)


def _row(loaded: Loaded[Inputs]) -> dict[str, Any]:
    return {
        "sample_id": loaded.sample_id,
        "uri": loaded.uri,
        "reason": loaded.reason,
        "detail": loaded.detail,
    }


def _stack(
    held: list[tuple[str, Inputs]],
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    return (
        [name for name, _ in held],
        np.stack([base for _, (base, _) in held]),
        np.stack([own for _, (_, own) in held]),
    )
