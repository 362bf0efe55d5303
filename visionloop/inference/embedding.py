"""Embeds and predicts samples, a chunk at a time, into tables that can wait for their commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from visionloop.inference.images import load_images
from visionloop.inference.pending import Models, Pending
from visionloop.inference.results import Finished, write_result
from visionloop.lake.schemas import PROBABILITIES, TIME

if TYPE_CHECKING:
    from visionloop.inference.images import Loaded
    from visionloop.lake import Lake
    from visionloop.progress import Progress

# Images that go through the networks at once; fewer where several batches do.
BATCH, PARALLEL_BATCH = 64, 32
# Kept at once: what a killed task loses, and what is held in memory.
CHUNK = 4096

# What the embedder takes of a picture, and the model; None where there is no model.
Inputs = tuple[NDArray[Any], NDArray[np.uint8] | None]


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
    waiting: deque[Future[list[tuple[str, dict[str, Any]]]]] = deque()
    with ThreadPoolExecutor(models.parallel) as pool:
        for ids, held in _batches(media, models, bar, rows):
            waiting.append(pool.submit(_work, ids, held, pending, models))
            # One more than are computed: whoever is ready finds the next.
            if len(waiting) > models.parallel:
                _note(rows, waiting.popleft())
        while waiting:
            _note(rows, waiting.popleft())
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


def _work(
    ids: list[str], held: list[Inputs], pending: Pending, models: Models
) -> list[tuple[str, dict[str, Any]]]:
    """Return of each of a batch's samples the columns that are wanted."""
    found: list[tuple[str, dict[str, Any]]] = []
    wanted = [i for i, name in enumerate(ids) if name in pending.to_embed]
    if wanted:
        vectors = models.embedder.embed(np.stack([held[i][0] for i in wanted]))
        found += [(ids[i], {"vector": _bytes(row)}) for i, row in zip(wanted, vectors, strict=True)]
    own = [pixels for _, pixels in held if pixels is not None]
    if models.model is None or not own:
        return found
    probabilities, vectors = models.model.predict(np.stack(own))
    now = datetime.now(UTC)
    for name, row, vector in zip(ids, probabilities, vectors, strict=True):
        if name in pending.to_embed_with_model:
            found.append((name, {"model_vector": _bytes(vector)}))
        if name in pending.to_predict:
            found.append((name, {"probabilities": row, "predicted_at": now}))
    return found


def _note(rows: dict[str, dict[str, Any]], done: Future[list[tuple[str, dict[str, Any]]]]) -> None:
    for name, columns in done.result():
        rows[name] |= columns


def _bytes(vector: NDArray[np.float32]) -> bytes:
    return vector.astype("<f4").tobytes()


def _batches(
    media: Mapping[str, str], models: Models, bar: Progress, rows: dict[str, dict[str, Any]]
) -> Iterator[tuple[list[str], list[Inputs]]]:
    """Yield ids and what the networks take; note a row of each sample, read or not."""
    embedder, model = models.embedder, models.model
    size = PARALLEL_BATCH if models.parallel > 1 else BATCH

    def prepare(picture: Image.Image) -> Inputs:
        return embedder.prepare(picture), model.prepare(picture) if model else None

    ids: list[str] = []
    held: list[Inputs] = []
    for loaded in load_images(media, prepare, side=models.side):
        bar.advance()
        rows[loaded.sample_id] = _row(loaded)
        if loaded.value is None:
            continue
        ids.append(loaded.sample_id)
        held.append(loaded.value)
        if len(held) == size:
            yield ids, held
            ids, held = [], []
    if held:
        yield ids, held


def _row(loaded: Loaded[Inputs]) -> dict[str, Any]:
    return {
        "sample_id": loaded.sample_id,
        "uri": loaded.uri,
        "reason": loaded.reason,
        "detail": loaded.detail,
    }
