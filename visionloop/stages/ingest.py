"""Stage `ingest`: find what is new at the sources, verify it, and record every file once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from visionloop.errors import InputError, VisionloopError
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.foresight import check_training
from visionloop.stages.opening import open_stage
from visionloop.stages.shard_list import list_shards
from visionloop.stages.sources import check_sources
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.media.intake import Listing
    from visionloop.media.outcomes import Rows
    from visionloop.media.pieces import Pieces

# So long a killed ingest may wait for being started again, behind other ingests of its loop.
_LEFT = timedelta(days=1)


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
    listing: str = "",
    fan_out: bool = False,
    shard_size: int = 0,
    files: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> IngestOutputs:
    """Ingest what is new at the configuration's sources.

    A file is new when the lake has no row of its URI and generation; a file whose bytes changed is
    found again under its new generation. Files are left out of the counts only when they are no
    media by their role, see `visionloop.media.listing`. What is examined is kept some thousand
    files at a time: a second try goes on behind it.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        round_id: The round; empty for the open one, or the one that comes next.
        run_id: The run that ingests.
        open_round: Open the next round, or resume the open one.
        take_over: Take an open round from whoever holds it.
        listing: Name of the listing to commit, from `list_files`; empty lists the sources now.
        fan_out: List the shards of what `infer` has to do, where that is much.
        shard_size: Samples in a shard; 0 takes the configuration's.
        files: Receives the new files: uri, outcome, reason, sample_id, source, detail, offset.
        metrics: Receives the counts and the rate.
        page: Receives a Markdown page.

    Raises:
        InputError: A source does not exist, a label is of a class that the configuration lacks,
            nothing has the column `holdout.group_by`, after this the lake has no readable image at
            all, or the round that is to be opened could never train.
        StorageError: A source may not be listed.
        VisionloopError: Files that were listed for several tasks were not examined by them.
    """
    from visionloop.media.sources import REPEATED, ROW
    from visionloop.progress import progress
    from visionloop.stages.ingest_listing import examine_pieces
    from visionloop.stages.ingest_rows import Ingest, write_rows

    loop, opened = open_stage(config, lake)
    check_sources(loop)
    if open_round:
        check_training(loop.training)
        round_id = opened.rounds.open(
            run_id, take_over=take_over, lease_minutes=loop.rounds.lease_minutes
        ).round_id
    inputs = {"sources": [source.uri for source in loop.sources]}
    with opened.run(stage="ingest", round_id=round_id, run_id=run_id, inputs=inputs) as run:
        listed, kept = _listed(loop, opened, run.base, listing, shard_size)
        with progress("ingest", total=listed.weight, unit="files") as bar:
            examine_pieces(loop, kept, listed.work(kept), bar)
            rate = bar.rate
        with progress("record", unit="files") as bar:
            work = Ingest(run, opened, loop, listed, kept, bar)
            rows, held = write_rows(work, files)
        work.counts["n_unmatched_rows"] = listed.beside.pop(ROW, 0)
        work.counts["n_repeated"] = listed.beside.pop(REPEATED, 0)
        extras = {name: work.counts[name] for name in EXTRAS}
        per_source = _per_source(listed, rows)
        counts = _counts(per_source)
        if len(rows):
            # A resumed round counts what it had taken in before it was interrupted, too.
            before = held["round_id"].to_pylist().count(run.round_id)
            run.set_round(counts={"files": counts["in"], "new": before + counts["ok"]})
        version = run.commit(counts=counts, outputs=extras)
        round_id = run.round_id
    kept.remove(set(listed.pieces), listed.orders, listing)
    kept.remove_left(datetime.now(UTC) - _LEFT)
    names = {"in": "n_files", "ok": "n_new"}
    shown = {names.get(name, f"n_{name}"): n for name, n in counts.items()}
    log_metrics(metrics, {**shown, **extras, "files_per_second": rate})
    write_page(page, _page(per_source, listed, rows, counts, extras, rate))
    if not held.num_rows and not counts["ok"]:
        raise _nothing_readable(loop, counts, rows)
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


# What is counted beside the files, with what the page says of it.
EXTRAS = {
    "n_holdout": "samples were put into the holdout",
    "n_without_group": "new samples have nothing in `holdout.group_by`; each is its own group",
    "n_holdout_copy": "samples show a picture of the holdout again; they are reserved",
    "n_unjudged_groups": "groups came and none is in the holdout, which has no room for a whole "
    "one: raise holdout.fraction or max_samples",
    "n_labels": "labels were imported",
    "n_unknown_labels": "rows of labels name no known file",
    "n_bad_sidecar": "sidecars could not be read; their images stay, without metadata",
    "n_metadata_conflict": "samples have metadata that differ by origin or do not fit their column",
    "n_path_mismatch": "samples have a path that does not fit their source's `pattern`",
    "n_unmatched_rows": "rows of tables of metadata name no file of their source",
    "n_repeated": "lines of lists repeat an earlier one; the first one's metadata stand",
    "n_label_conflict": "samples have a label that differs from their first one, which stays",
    "n_renewed_metadata": "known samples have new metadata, since what is said of them changed",
    "n_removed": "known files are gone or were overwritten; they are marked as removed",
    "n_back": "files that had been removed are back",
    "n_read_otherwise": "rows are of videos or tars that are read in another way now (other "
    "frames, labels); nothing is gone",
    "n_copied": "known images were copied into the lake, since their source says `copy: true` now",
    "n_not_copied": "known images could not be copied into the lake: they are gone or overwritten",
    "n_moved": "samples lie elsewhere now: where they were they are not any more",
    "n_media_missing": "samples have no file any more; they are flagged and not selected",
}


def _listed(
    loop: LoopConfig, lake: Lake, version: str, name: str, shard_size: int
) -> tuple[Listing, Pieces]:
    """Return what the sources hold, as it was listed or as it is now, and where it is kept."""
    from visionloop.media.pieces import Pieces
    from visionloop.stages.ingest_listing import list_now

    size = shard_size or loop.cluster.shard_size
    kept = Pieces(lake)
    listed = kept.read_listing(name) if name else None
    if listed is not None and listed.files_at != lake.snapshot("files", version=version):
        listed = None  # another run has committed files: what is new has to be told again
    if listed is None:
        listed = list_now(loop, lake, version, kept, order_size=size)
    elif (left := sum(p.weight for p in kept.unfinished(listed))) > loop.cluster.inline_samples:
        raise VisionloopError(
            f"{left:,} files were listed for several tasks, and not all of these have left theirs",
            where=f"listing {name}",
            remedy="Start the pipeline again: it lists them anew, and what is finished is kept",
        )
    if len(listed.pieces) == 1 and listed.few and not listed.few[0].is_container:
        # One piece has no part that could be kept before the others.
        return listed, Pieces(lake, in_memory=True)
    return listed, kept


def _per_source(listed: Listing, rows: Rows) -> dict[str, Counter[str]]:
    found = rows.counts(listed.roots)
    return {root: known + found.get(root, Counter()) for root, known in listed.per_source.items()}


def _counts(per_source: Mapping[str, Counter[str]]) -> dict[str, int]:
    outcomes: Counter[str] = sum(per_source.values(), Counter())
    return {
        "in": outcomes.total(),
        "ok": outcomes["new"],
        "duplicates": outcomes["duplicate"],
        "unreadable": outcomes["unreadable"],
        "skipped": outcomes["skipped"] + outcomes["known"],
    }


# What else than another source helps, by what was wrong with the files.
_REMEDIES = {
    "unsupported": "name tars by `kind: tar` and videos by `video`, as docs/ingest.md shows",
    "cannot_read": "give this user the right to read what is there, and run this again",
}


def _nothing_readable(loop: LoopConfig, counts: Mapping[str, int], rows: Rows) -> InputError:
    where = ", ".join(source.uri for source in loop.sources)
    if not counts["in"]:
        return InputError(
            "the sources hold no images",
            where=where,
            remedy="Put images there, or correct `sources`",
        )
    reasons: Counter[str] = Counter()
    for (_, reason), n in rows.reasons().items():
        reasons[reason] += n
    told = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return InputError(
        f"none of the {counts['in']} files can be read as an image{': ' if told else ''}{told}",
        where=where,
        remedy="; ".join(
            [
                "Point `sources` at JPEG, PNG, GIF, BMP, TIFF, WebP, JPEG 2000 or AVIF images",
                *(remedy for reason, remedy in _REMEDIES.items() if reasons[reason]),
            ]
        ),
    )


def _page(
    per_source: Mapping[str, Counter[str]],
    listed: Listing,
    rows: Rows,
    counts: Mapping[str, int],
    extras: Mapping[str, int],
    rate: float,
) -> str:
    from visionloop.media.intake import OUTCOMES

    told = [
        [uri, found.total(), *(found[name] for name in OUTCOMES)]
        for uri, found in per_source.items()
    ]
    names = {"sidecar": "sidecars", "labels": "tables of labels", "hidden": "hidden files"}
    beside = {name: listed.beside[name] for name in names} | dict(listed.beside)
    parts = [
        "# Ingest",
        f"{counts['in']:,} files = {counts['ok']:,} new samples + {counts['duplicates']:,} exact "
        f"copies + {counts['unreadable']:,} unreadable + {counts['skipped']:,} skipped (known "
        f"before, or not to be had). {rate:,.0f} files a second.",
        markdown_table(["source", "files", *OUTCOMES], told),
        "Beside them, not counted as media: "
        + ", ".join(f"{n:,} {names.get(name, name)}" for name, n in beside.items())
        + ".",
    ]
    if reasons := rows.reasons():
        lines = [[outcome, reason, n] for (outcome, reason), n in sorted(reasons.items())]
        parts.append(markdown_table(["outcome", "reason", "files"], lines))
    notes = [f"- {extras[name]:,} {text}." for name, text in EXTRAS.items() if extras[name]]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"
