"""Stage `infer`: embed every sample, and predict it with the model in service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.schemas import PROBABILITIES, TIME
from visionloop.progress import Progress, progress
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.inference.embedder import Embedder
    from visionloop.inference.images import Loaded
    from visionloop.inference.model import OnnxModel
    from visionloop.lake import Lake
    from visionloop.lake.run import Run

BATCH = 64
# Committed at once: what a killed stage loses, and what is held in memory.
CHUNK = 4096


class InferOutputs(NamedTuple):
    """What `infer` returns.

    Attributes:
        lake_version: Lake version with the new embeddings and predictions.
        model_id: The model that predicted; empty on a cold start.
        space: The base embedding space, that of the named weights or of the pixel descriptor.
        n_embedded: Samples newly embedded in the base space.
        n_predicted: Samples newly predicted.
    """

    lake_version: str
    model_id: str
    space: str
    n_embedded: int
    n_predicted: int


@dataclass
class _Work:
    """What has to be done, and what was done of it."""

    embedder: Embedder
    model: OnnxModel | None
    to_embed: set[str]
    to_predict: set[str]
    to_embed_with_model: set[str]
    # By space, samples whose stored vector is not finite: it is put right, not added to.
    broken: dict[str, set[str]]
    embedded: int = 0
    predicted: int = 0
    unreadable: list[Loaded[Any]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def todo(self) -> list[str]:
        return sorted(self.to_embed | self.to_predict | self.to_embed_with_model)


@stage
def infer(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> InferOutputs:
    """Embed and predict the samples that lack either.

    Each sample is embedded once in the base space, and once more in the space of the model in
    service, ``model_<id>``; two spaces never mix. Work is committed every 4,096 samples, and what
    is there already is skipped. A sample that cannot be read now is flagged, and tried again by the
    next run.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        metrics: Receives the counts and images per second.
        page: Receives a Markdown page: which embeddings and which model were used.

    Raises:
        InputError: The weights or the model cannot be used.
    """
    from visionloop.inference.embedder import open_embedder
    from visionloop.training.experiments import in_service, load_bundle

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    media = opened.media(version=lake_version or None)
    # What is done is looked up where the work will be added: at the newest version. A task that is
    # tried again after some of its chunks were committed goes on behind them.
    version = opened.version()
    if not media:
        write_page(page, "# Inference\n\nThe lake holds no samples yet.\n")
        return InferOutputs(version, "", "", 0, 0)
    embedder = open_embedder(loop.embedding, opened, media)
    serving = in_service(opened, version=lake_version or None)
    model = load_bundle(serving["model_id"], serving["uri"]) if serving else None
    work = _plan(opened, media, embedder, model, version)
    todo = work.todo
    with progress("infer", total=len(todo), unit="images") as bar:
        # One run even when there is nothing to do: it records what was used.
        for start in range(0, max(len(todo), 1), CHUNK):
            chunk = todo[start : start + CHUNK]
            version = _run(
                opened, work, {name: media[name] for name in chunk}, bar, version, round_id
            )
        rate = bar.rate
    log_metrics(
        metrics,
        {
            "n_samples": len(media),
            "n_embedded": work.embedded,
            "n_predicted": work.predicted,
            "n_unreadable": len(work.unreadable),
            "images_per_second": rate,
        },
    )
    write_page(page, _page(work, len(media)))
    model_id = model.card.model_id if model else ""
    return InferOutputs(version, model_id, embedder.space, work.embedded, work.predicted)


def _plan(
    lake: Lake,
    media: dict[str, str],
    embedder: Embedder,
    model: OnnxModel | None,
    version: str,
) -> _Work:
    samples = set(media)
    broken: dict[str, set[str]] = {}
    to_embed = samples - _held(lake, embedder.space, version, broken)
    if model is None:
        return _Work(embedder, None, to_embed, set(), set(), broken)
    own = f"model_id == '{model.card.model_id}'"
    predicted = lake.read("predictions", columns=["sample_id"], where=own, version=version)
    return _Work(
        embedder,
        model,
        to_embed,
        samples - set(predicted["sample_id"].to_pylist()),
        samples - _held(lake, model.card.embedding_space, version, broken),
        broken,
    )


def _held(lake: Lake, space: str, version: str | None, broken: dict[str, set[str]]) -> set[str]:
    """Return the samples with a sound vector in a space, and note those with a broken one."""
    ids, vectors = lake.embeddings(space, version=version)
    sound = np.isfinite(vectors).all(axis=1).tolist()
    broken[space] = {name for name, good in zip(ids, sound, strict=True) if not good}
    return set(ids) - broken[space]


def _run(
    lake: Lake, work: _Work, media: dict[str, str], bar: Progress, base: str, round_id: str
) -> str:
    """Embed and predict one chunk, and commit it."""
    base_rows: list[tuple[list[str], NDArray[np.float32]]] = []
    model_rows: list[tuple[list[str], NDArray[np.float32]]] = []
    predictions: list[pa.Table] = []
    unreadable: list[Loaded[Any]] = []
    for ids, inputs, model_inputs in _batches(media, work, bar, unreadable):
        wanted = [i for i, name in enumerate(ids) if name in work.to_embed]
        if wanted:
            base_rows.append(([ids[i] for i in wanted], work.embedder.embed(inputs[wanted])))
        if work.model is None:
            continue
        probabilities, vectors = work.model.predict(model_inputs)
        wanted = [i for i, name in enumerate(ids) if name in work.to_embed_with_model]
        if wanted:
            model_rows.append(([ids[i] for i in wanted], vectors[wanted]))
        wanted = [i for i, name in enumerate(ids) if name in work.to_predict]
        if wanted:
            predictions.append(_predictions([ids[i] for i in wanted], probabilities[wanted], work))
    with lake.run(stage="infer", round_id=round_id, base_version=base) as run:
        for space, rows in (
            (work.embedder.space, base_rows),
            (work.model.card.embedding_space if work.model else "", model_rows),
        ):
            if rows:
                ids = [name for part, _ in rows for name in part]
                _store(run, space, ids, np.concatenate([v for _, v in rows]), work.broken[space])
        if predictions:
            run.append("predictions", pa.concat_tables(predictions))
        _flag(lake, run, media, unreadable)
        work.embedded += sum(len(part) for part, _ in base_rows)
        work.predicted += sum(table.num_rows for table in predictions)
        work.unreadable += unreadable
        return run.commit(
            counts={
                "in": len(media),
                "ok": len(media) - len(unreadable),
                "unreadable": len(unreadable),
            },
            outputs={
                "space": work.embedder.space,
                "source": work.embedder.source,
                "model_id": work.model.card.model_id if work.model else "",
                "model_space": work.model.card.embedding_space if work.model else "",
            },
        )


def _store(
    run: Run, space: str, ids: list[str], vectors: NDArray[np.float32], broken: set[str]
) -> None:
    mend = np.array([name in broken for name in ids])
    for anew, rows in ((False, np.flatnonzero(~mend)), (True, np.flatnonzero(mend))):
        run.append_embeddings(space, [ids[i] for i in rows], vectors[rows], anew=anew)


def _batches(
    media: dict[str, str], work: _Work, bar: Progress, unreadable: list[Loaded[Any]]
) -> Iterator[tuple[list[str], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield ids, the embedder's inputs and the model's inputs; note what cannot be read."""
    from visionloop.inference.images import load_images
    from visionloop.inference.preprocessing import to_input

    size = work.model.card.image_size if work.model else 0

    def prepare(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        nothing = np.zeros(0, dtype=np.float32)
        return work.embedder.prepare(image), to_input(image, size) if size else nothing

    held: list[tuple[str, tuple[NDArray[np.float32], NDArray[np.float32]]]] = []
    for loaded in load_images(media, prepare):
        bar.advance()
        if loaded.value is None:
            unreadable.append(loaded)
            continue
        held.append((loaded.sample_id, loaded.value))
        if len(held) == BATCH:
            yield _stack(held)
            held = []
    if held:
        yield _stack(held)


def _stack(
    held: list[tuple[str, tuple[NDArray[np.float32], NDArray[np.float32]]]],
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    return (
        [name for name, _ in held],
        np.stack([base for _, (base, _) in held]),
        np.stack([own for _, (_, own) in held]),
    )


def _predictions(ids: list[str], probabilities: NDArray[np.float32], work: _Work) -> pa.Table:
    assert work.model is not None
    card = work.model.card
    best = probabilities.argmax(axis=1)
    labels = [card.classes[i] for i in best]
    for label in labels:
        work.labels[label] = work.labels.get(label, 0) + 1
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.string()),
            "model_id": pa.array([card.model_id] * len(ids), pa.string()),
            "label": pa.array(labels, pa.string()),
            "confidence": pa.array(probabilities.max(axis=1), pa.float32()),
            "probabilities": pa.array(list(probabilities), PROBABILITIES),
            "predicted_at": pa.array([datetime.now(UTC)] * len(ids), TIME),
        }
    )


def _flag(lake: Lake, run: Run, media: dict[str, str], unreadable: list[Loaded[Any]]) -> None:
    """Flag what cannot be read, and take back the flags of what can be read again."""
    from visionloop.inference.images import unreadable_flags

    held = lake.read("flags", columns=["subject"], where="stage == 'infer'")
    stale = {subject for subject in held["subject"].to_pylist() if subject in media}
    stale |= {loaded.sample_id for loaded in unreadable}
    if stale:
        subjects = ", ".join(f"'{subject}'" for subject in sorted(stale))
        run.replace(
            "flags",
            unreadable_flags(unreadable, stage="infer"),
            f"stage == 'infer' and subject in ({subjects})",
        )


def _page(work: _Work, n_samples: int) -> str:
    lines = [
        "# Inference",
        "",
        f"Embeddings come from the {work.embedder.source} (space `{work.embedder.space}`).",
        "",
    ]
    if work.model is None:
        lines += ["No model is in service yet: nothing was predicted (a cold start).", ""]
    else:
        card = work.model.card
        lines += [
            f"Predicted by the model in service, `{card.model_id}` ({card.architecture}), which "
            f"also embeds in the space `{card.embedding_space}`.",
            "",
        ]
    lines += [
        markdown_table(
            ["samples", "newly embedded", "newly predicted", "unreadable now"],
            [[n_samples, work.embedded, work.predicted, len(work.unreadable)]],
        ),
        "",
    ]
    if work.labels:
        rows = [[label, n] for label, n in sorted(work.labels.items())]
        lines += ["## Predicted classes", "", markdown_table(["class", "samples"], rows), ""]
    if work.unreadable:
        shown = [[u.sample_id[:12], u.reason, u.uri] for u in work.unreadable[:50]]
        lines += [
            "## Unreadable now",
            "",
            "Readable when they were ingested; flagged, and tried again by the next run.",
            "",
            markdown_table(["sample", "reason", "where"], shown),
            "",
        ]
    return "\n".join(lines)
