"""Stage `ingest`: find what is new at the sources, verify it, and record every file once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from visionloop.errors import InputError
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_dataset,
    write_page,
)
from visionloop.stages.foresight import check_training
from visionloop.stages.opening import open_stage
from visionloop.stages.shard_list import list_shards
from visionloop.stages.sources import check_sources, label_files
from visionloop.task import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.lake import Run
    from visionloop.media.intake import Found, Intake, Known
    from visionloop.media.metadata import Problem


class IngestOutputs(NamedTuple):
    """What `ingest` returns; n_files = n_new + n_duplicates + n_unreadable + n_skipped.

    Attributes:
        lake_version: Lake version with the new files.
        round_id: The round opened or resumed; the coming one where none was opened.
        n_files: Media files found at the sources.
        n_new: Samples that the lake did not have.
        n_unreadable: New files whose bytes are no image.
        n_skipped: Files known before, and files whose bytes could not be had.
        n_duplicates: New files whose bytes another file held already.
        n_shards: Shards that what lacks an embedding or a prediction is spread over; 0 where
            `infer` does it alone.
        shards: Their names, for `infer_shard`.
    """

    lake_version: str
    round_id: str
    n_files: int
    n_new: int
    n_unreadable: int
    n_skipped: int
    n_duplicates: int
    n_shards: int
    shards: list[str]


@stage
def ingest(
    *,
    config: str,
    lake: str = "",
    round_id: str = "",
    run_id: str = "",
    open_round: bool = False,
    take_over: bool = False,
    fan_out: bool = False,
    shard_size: int = 0,
    files: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> IngestOutputs:
    """Ingest what is new at the configuration's sources.

    A file is new when the lake has no row of its URI and generation; a file whose bytes changed is
    found again under its new generation, and the old row stays. Files are left out of the counts
    only when they are no media by their role, see `visionloop.media.listing`.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        round_id: The round; empty for the open one, or the one that comes next.
        run_id: The run that ingests.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from whoever holds it.
        fan_out: List the shards of what `infer` has to do, where that is much.
        shard_size: Samples in a shard; 0 takes the configuration's.
        files: Receives the new files: uri, outcome, reason, sample_id, source.
        metrics: Receives the counts and the rate.
        page: Receives a Markdown page.

    Raises:
        InputError: A source does not exist, a label is of a class that the configuration lacks,
            after this the lake has no readable image at all, or the round that is to be opened
            could never train.
        StorageError: A source may not be listed.
    """
    from visionloop.media.intake import list_sources, take_in
    from visionloop.progress import progress

    loop, opened = open_stage(config, lake)
    check_sources(loop)
    if open_round:
        check_training(loop.training)
        round_id = opened.rounds.open(
            run_id, take_over=take_over, lease_minutes=loop.rounds.lease_minutes
        ).round_id
    inputs = {"sources": [source.uri for source in loop.sources]}
    with opened.run(stage="ingest", round_id=round_id, run_id=run_id, inputs=inputs) as run:
        known = _known_files(run)
        held = run.read(
            "samples", columns=["sample_id", "split", "group_key", "fingerprint", "round_id"]
        )
        sources = list_sources(loop.sources, known, label_files(loop))
        total = sum(len(listed.fresh) for listed in sources)
        with progress("ingest", total=total, unit="files") as bar:
            intake = take_in(
                opened, sources, known, held["sample_id"].to_pylist(), advance=bar.advance
            )
            rate = bar.rate
        extras = _write(run, loop, intake, known, held)
        counts = _counts(intake)
        if intake.found:
            # A resumed round counts what it had taken in before it was interrupted, too.
            before = held["round_id"].to_pylist().count(run.round_id)
            run.set_round(counts={"files": counts["in"], "new": before + counts["ok"]})
        version = run.commit(counts=counts, outputs=extras)
        round_id = run.round_id
    names = {"in": "n_files", "ok": "n_new"}
    shown = {names.get(name, f"n_{name}"): n for name, n in counts.items()}
    log_metrics(metrics, {**shown, **extras, "files_per_second": rate})
    write_dataset(files, _dataset(intake.found))
    write_page(page, _page(intake, counts, extras, rate))
    if not held.num_rows and not counts["ok"]:
        raise _nothing_readable(loop, counts, intake)
    shards = list_shards(loop, opened, version, shard_size) if fan_out else []
    return IngestOutputs(
        version,
        round_id,
        counts["in"],
        counts["ok"],
        counts["unreadable"],
        counts["skipped"],
        counts["duplicates"],
        len(shards),
        shards,
    )


def _known_files(run: Run) -> Known:
    """Return what needs no second reading; what could not be had before is tried again."""
    rows = run.read("files", columns=["uri", "generation", "state", "sample_id"])
    columns = [rows[name].to_pylist() for name in ("uri", "generation", "state", "sample_id")]
    return {
        (uri, generation): sample_id or ""
        for uri, generation, state, sample_id in zip(*columns, strict=True)
        if state != "skipped"
    }


def _write(
    run: Run, loop: LoopConfig, intake: Intake, known: Known, held: pa.Table
) -> dict[str, int]:
    """Write the rows of everything found, and return what else is worth counting."""
    from visionloop.media import records

    now = datetime.now(UTC)
    earlier = records.Earlier(held, _learnt_from(run))
    samples, moved = records.sample_rows(intake.found, loop.holdout, earlier, now)
    existing = run.read("metadata", where="sample_id == ''").schema
    metadata, problems = records.metadata_rows(intake.found, existing)
    labels, unknown_labels, conflicts = _labels(run, loop, intake, known, now)
    problems += conflicts
    run.append("files", records.file_rows(intake.found, now))
    run.append("samples", samples)
    if moved:
        these = f"sample_id in ({', '.join(repr(sample_id) for sample_id in moved)})"
        run.replace("samples", records.moved_rows(run.read("samples", where=these)), these)
    run.append("metadata", metadata)
    run.append("labels", labels)
    run.append("flags", records.flag_rows(problems, now))
    kinds = Counter(kind for kind, _ in {(p.kind, p.sample_id) for p in problems})
    return {
        "n_holdout": samples["split"].to_pylist().count("holdout") + len(moved),
        "n_labels": labels.num_rows,
        "n_unknown_labels": unknown_labels,
        "n_bad_sidecar": kinds["bad_sidecar"],
        "n_metadata_conflict": kinds["metadata_conflict"],
        "n_label_conflict": kinds["label_conflict"],
    }


def _learnt_from(run: Run) -> bool:
    """Return whether a sample of the pool may have been seen by a person or a model already."""
    tables = ("selections", "label_requests", "training_sets")
    return any(run.read(table, columns=["sample_id"]).num_rows for table in tables)


def _labels(
    run: Run, loop: LoopConfig, intake: Intake, known: Known, now: datetime
) -> tuple[pa.Table, int, list[Problem]]:
    """Return the labels that sources bring for samples without any, and what is odd about them."""
    from visionloop.labeling.answers import is_skip, latest_labels
    from visionloop.labeling.tables import folder_label, labels_of_files
    from visionloop.media.metadata import Problem
    from visionloop.media.records import rows_of

    uris = {uri: sample_id for (uri, _), sample_id in known.items() if sample_id}
    uris |= {
        item.examined.info.uri: item.examined.sample_id for item in intake.of("new", "duplicate")
    }
    brought: dict[str, tuple[str, str]] = {}
    unknown = 0
    problems: list[Problem] = []
    for source in loop.sources:
        if source.labels == "folder":
            for item in intake.of("new", "duplicate"):
                if item.source is not source:
                    continue
                sample_id, label = item.examined.sample_id, folder_label(item.examined.info.uri)
                first, _ = brought.setdefault(sample_id, (label, source.uri))
                if first != label:
                    told = f"a copy lies in {label!r}, the first file in {first!r}"
                    problems.append(Problem(sample_id, "label_conflict", told))
        elif source.labels != "none":
            named, strange = labels_of_files(source.labels, uris)
            unknown += len(strange)
            for sample_id, label in named.items():
                if is_skip(label, loop.classes):
                    continue
                brought.setdefault(sample_id, (label, source.labels))
    _check_classes(loop, brought)
    # A label that comes for a sample which somebody had skipped is welcome.
    labelled = latest_labels(run.read("labels").to_pylist(), loop.task)
    rows = [
        {
            "sample_id": sample_id,
            "task": loop.task,
            "label": label,
            "annotator": where,
            "origin": "import",
            "created_at": now,
        }
        for sample_id, (label, where) in sorted(brought.items())
        if sample_id not in labelled
    ]
    return rows_of("labels", rows), unknown, problems


def _check_classes(loop: LoopConfig, brought: Mapping[str, tuple[str, str]]) -> None:
    strange = sorted({pair for pair in brought.values() if pair[0] not in loop.classes})
    if loop.classes and strange:
        from visionloop.validation import nearest

        named = ", ".join(f"`{label}`" + nearest(label, loop.classes) for label, _ in strange[:5])
        raise InputError(
            f"{len(strange)} classes of imported labels are not in the configuration: {named}",
            where=strange[0][1],
            remedy="Correct the labels, or add the classes to `classes:`; nothing was stored",
        )


def _counts(intake: Intake) -> dict[str, int]:
    outcomes = intake.outcomes
    return {
        "in": outcomes.total(),
        "ok": outcomes["new"],
        "duplicates": outcomes["duplicate"],
        "unreadable": outcomes["unreadable"],
        "skipped": outcomes["skipped"] + outcomes["known"],
    }


def _dataset(found: Sequence[Found]) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, list[str | None]] = {
        "uri": [item.examined.info.uri for item in found],
        "outcome": [item.outcome for item in found],
        "reason": [item.reason for item in found],
        "sample_id": [i.examined.sample_id if i.examined.inspection else None for i in found],
        "source": [item.source.uri for item in found],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _nothing_readable(loop: LoopConfig, counts: Mapping[str, int], intake: Intake) -> InputError:
    where = ", ".join(source.uri for source in loop.sources)
    if not counts["in"]:
        return InputError(
            "the sources hold no images",
            where=where,
            remedy="Put images there, or correct `sources`",
        )
    reasons = Counter(item.reason for item in intake.found if item.reason)
    told = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return InputError(
        f"none of the {counts['in']} files can be read as an image{': ' if told else ''}{told}",
        where=where,
        remedy="Point `sources` at JPEG, PNG, GIF, BMP, TIFF, WebP, JPEG 2000 or AVIF images",
    )


def _page(intake: Intake, counts: Mapping[str, int], extras: Mapping[str, int], rate: float) -> str:
    from visionloop.media.intake import OUTCOMES

    rows = [
        [uri, found.total(), *(found[name] for name in OUTCOMES)]
        for uri, found in intake.per_source.items()
    ]
    beside = intake.beside
    parts = [
        "# Ingest",
        f"{counts['in']:,} files = {counts['ok']:,} new samples + {counts['duplicates']:,} exact "
        f"copies + {counts['unreadable']:,} unreadable + {counts['skipped']:,} skipped (known "
        f"before, or not to be had). {rate:,.0f} files a second.",
        markdown_table(["source", "files", *OUTCOMES], rows),
        f"Beside them, not counted as media: {beside['sidecars']:,} sidecars, "
        f"{beside['labels']:,} tables of labels, {beside['hidden']:,} hidden files.",
    ]
    reasons = Counter((item.outcome, item.reason) for item in intake.found if item.reason)
    if reasons:
        told = [[outcome, reason, n] for (outcome, reason), n in sorted(reasons.items())]
        parts.append(markdown_table(["outcome", "reason", "files"], told))
    words = {
        "n_holdout": "samples were put into the holdout",
        "n_labels": "labels were imported",
        "n_unknown_labels": "rows of labels name no known file",
        "n_bad_sidecar": "sidecars could not be read; their images stay, without metadata",
        "n_metadata_conflict": "samples have metadata that does not fit its column, kept in `raw`",
        "n_label_conflict": "pictures lie in folders of several classes; the first one counts",
    }
    notes = [f"- {extras[name]:,} {text}." for name, text in words.items() if extras[name]]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"
