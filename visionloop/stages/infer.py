"""Stage `infer`: every sample embedded, and predicted with the model in service; one commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import StaleRead, VisionloopError
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.models_in_use import models_in_use
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.inference.images import Loaded
    from visionloop.inference.pending import Models, Pending
    from visionloop.inference.results import Finished
    from visionloop.lake import Lake
    from visionloop.lake.run import Run


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
class _Added:
    """What was added to the lake."""

    embedded: int = 0
    predicted: int = 0
    from_shards: int = 0
    unreadable: list[Loaded[Any]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@stage
def infer(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    n_shards: int = 0,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> InferOutputs:
    """Embed and predict the samples that lack either, and commit it all at once.

    Each sample is embedded once in the base space, and once more in the space of the model in
    service, ``model_<id>``; two spaces never mix. What `infer_shard` tasks, or an earlier try, have
    finished is taken from their files, and only the rest is worked on here. A sample that cannot
    be read now is flagged, and tried again by the next run.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        n_shards: Shards that the work was spread over: then no more than
            ``cluster.inline_samples`` that lack in their files are worked on here.
        metrics: Receives the counts and images per second.
        page: Receives a Markdown page: which embeddings and which model were used.

    Raises:
        InputError: The weights or the model cannot be used.
        VisionloopError: The files of the shards are not there.
    """
    from visionloop.inference.embedding import finish
    from visionloop.inference.images import flag_unreadable
    from visionloop.inference.pending import find_pending
    from visionloop.inference.results import held_results, remove_done
    from visionloop.progress import progress

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    media = opened.media(version=lake_version or None)
    # What is done is looked up where the work will be added: at the newest version. A task that is
    # tried again after its commit finds nothing left to add.
    version = opened.version()
    if not media:
        write_page(page, "# Inference\n\nThe lake holds no samples yet.\n")
        return InferOutputs(version, "", "", 0, 0)
    with opened.run(stage="infer", round_id=round_id, base_version=version) as run:
        models = models_in_use(loop, opened, media, lake_version)
        pending = find_pending(opened, media, models, version)
        held = held_results(opened, models)
        # The shards of this run have just tried; what an earlier one could not read is tried here.
        finished = {name for file in held for name in (file.names if n_shards else file.done)}
        rest = pending.without(finished)
        _refuse_too_many(rest, n_shards, loop)
        with progress("infer", total=len(rest.ids()), unit="images") as bar:
            held += finish(opened, media, rest, models, bar)
            rate = bar.rate
        added = _add(opened, run, models, pending, held)
        added.from_shards = len(finished.intersection(pending.ids()))
        todo = set(pending.ids())
        flag_unreadable(opened, run, added.unreadable, todo, stage="infer")
        version = run.commit(
            counts={
                "in": len(todo),
                "ok": len(todo) - len(added.unreadable),
                "unreadable": len(added.unreadable),
            },
            outputs={
                "space": models.embedder.space,
                "source": models.embedder.source,
                "model_id": models.model_id,
                "model_space": models.model_space,
            },
        )
    remove_done(opened, models, media, held)
    log_metrics(
        metrics,
        {
            "n_samples": len(media),
            "n_embedded": added.embedded,
            "n_predicted": added.predicted,
            "n_from_shards": added.from_shards,
            "n_unreadable": len(added.unreadable),
            "images_per_second": rate,
        },
    )
    write_page(page, _page(models, added, len(media)))
    return InferOutputs(
        version, models.model_id, models.embedder.space, added.embedded, added.predicted
    )


def _refuse_too_many(rest: Pending, n_shards: int, loop: LoopConfig) -> None:
    """Refuse to do alone, without an accelerator, what was listed for many tasks with one."""
    left, few = len(rest.ids()), loop.cluster.inline_samples
    if n_shards and left > few:
        raise VisionloopError(
            f"{left} samples were listed in shards, and no shard has left a file of them",
            where="the lake's folder `shards`",
            remedy="Start the pipeline again: it lists them anew. For one task to do them all, "
            f"raise cluster.inline_samples (now {few})",
        )


def _add(
    lake: Lake, run: Run, models: Models, pending: Pending, files: Iterable[Finished]
) -> _Added:
    """Add what is finished and still wanted, a file at a time; count it."""
    from visionloop.inference.results import read_result

    added = _Added()
    unreadable: dict[str, Loaded[Any]] = {}
    left = pending
    for file in files:
        wanted = left.only(file.names)
        if not wanted.ids():
            continue
        table = read_result(lake, file.uri)
        if table is None:
            raise StaleRead(
                "another run has committed what this one was about to",
                where=file.uri,
                remedy="Start the pipeline again: it goes on from what both have written",
            )
        unreadable |= {one.sample_id: one for one in _unreadable(table)}
        _add_file(run, table, wanted, models, added)
        # A sample may be finished twice, by two runs at once: it is added once. One that could not
        # be read may have been read by a later try.
        left = left.without(file.done)
    missing = set(left.ids())
    added.unreadable = [one for name, one in sorted(unreadable.items()) if name in missing]
    return added


def _unreadable(table: pa.Table) -> list[Loaded[Any]]:
    from visionloop.inference.images import Loaded

    rows = table.select(["sample_id", "uri", "reason", "detail"]).to_pylist()
    return [
        Loaded(row["sample_id"], row["uri"], None, row["reason"], row["detail"])
        for row in rows
        if row["reason"]
    ]


def _add_file(run: Run, table: pa.Table, wanted: Pending, models: Models, added: _Added) -> None:
    added.embedded += _add_vectors(
        run, table, "vector", models.embedder.space, wanted.to_embed, wanted.broken
    )
    if models.model is None:
        return
    _add_vectors(
        run, table, "model_vector", models.model_space, wanted.to_embed_with_model, wanted.broken
    )
    predictions = _predictions(table, wanted.to_predict, models)
    run.append("predictions", predictions)
    added.predicted += predictions.num_rows
    for label in predictions["label"].to_pylist():
        added.labels[label] = added.labels.get(label, 0) + 1


def _add_vectors(
    run: Run,
    table: pa.Table,
    column: str,
    space: str,
    wanted: set[str],
    broken: dict[str, set[str]],
) -> int:
    """Add the wanted vectors to their space, and put those that were broken right."""
    from visionloop.inference.results import vectors_of

    rows, vectors = vectors_of(table, column)
    names = table["sample_id"].to_pylist()
    mend = broken.get(space, set())
    total = 0
    for anew in (False, True):
        places = [
            i for i, row in enumerate(rows) if names[row] in wanted and (names[row] in mend) == anew
        ]
        ids = [names[rows[i]] for i in places]
        run.append_embeddings(space, ids, vectors[places], anew=anew)
        total += len(ids)
    return total


def _predictions(table: pa.Table, wanted: set[str], models: Models) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from visionloop.inference.predicted_rows import predicted_rows

    assert models.model is not None
    card = models.model.card
    mine = pc.is_in(table["sample_id"], value_set=pa.array(sorted(wanted), pa.string()))
    rows = table.filter(pc.and_(mine, pc.is_valid(table["probabilities"])))
    n = rows.num_rows
    flat = rows["probabilities"].combine_chunks().flatten()
    probabilities = np.asarray(flat, dtype=np.float32).reshape(n, len(card.classes))
    return predicted_rows(
        rows["sample_id"], probabilities, card.model_id, card.classes, rows["predicted_at"]
    )


def _page(models: Models, added: _Added, n_samples: int) -> str:
    lines = [
        "# Inference",
        "",
        f"Embeddings come from the {models.embedder.source} (space `{models.embedder.space}`).",
        "",
    ]
    if models.model is None:
        lines += ["No model is in service yet: nothing was predicted (a cold start).", ""]
    else:
        card = models.model.card
        lines += [
            f"Predicted by the model in service, `{card.model_id}` ({card.architecture}), which "
            f"also embeds in the space `{card.embedding_space}`.",
            "",
        ]
    if models.ran_on:
        lines += [f"Networks ran on: {models.ran_on}.", ""]
    lines += [
        markdown_table(
            ["samples", "newly embedded", "newly predicted", "unreadable now", "from shards"],
            [
                [
                    n_samples,
                    added.embedded,
                    added.predicted,
                    len(added.unreadable),
                    added.from_shards,
                ]
            ],
        ),
        "",
    ]
    if added.labels:
        rows = [[label, n] for label, n in sorted(added.labels.items())]
        lines += ["## Predicted classes", "", markdown_table(["class", "samples"], rows), ""]
    if added.unreadable:
        shown = [[u.sample_id[:12], u.reason, u.uri] for u in added.unreadable[:50]]
        lines += [
            "## Unreadable now",
            "",
            "Readable when they were ingested; flagged, and tried again by the next run.",
            "",
            markdown_table(["sample", "reason", "where"], shown),
            "",
        ]
    return "\n".join(lines)
