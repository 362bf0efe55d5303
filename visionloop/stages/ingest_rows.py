"""Writes what an ingest found into the lake, a part at a time, as one version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.erasing.tombstones import REASON, Tombstones
from visionloop.lake.schemas import ERASED
from visionloop.lake.storage.interface import stored_generation
from visionloop.media import records
from visionloop.media.holdout import HOLDOUT, RESERVED
from visionloop.media.intake import NEW, Listing
from visionloop.media.known import Words, files_of
from visionloop.media.metadata import MENDED, Problem, metadata_table
from visionloop.media.outcomes import KINDS, Rows, ids_of, texts_of
from visionloop.media.parts import sidecars_of
from visionloop.media.places import Met, meet
from visionloop.media.reading import METADATA, OPENED
from visionloop.stages.ingest_copies import copies_of_holdout
from visionloop.stages.ingest_groups import count_unjudged, groups_of_rows
from visionloop.stages.ingest_kept import copy_known
from visionloop.stages.ingest_labels import labels_of
from visionloop.stages.ingest_places import change_samples, settle_places

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake, Run
    from visionloop.media.metadata import Sidecar
    from visionloop.media.pieces import Part, Pieces
    from visionloop.progress import Progress
    from visionloop.stages.artifacts import Artifact

# What is written at once: so many rows of files, or so many bytes.
ROWS, BYTES = 20_000, 64 << 20
HELD = ["sample_id", "split", "group_key", "fingerprint", "round_id"]


@dataclass
class Ingest:
    """One ingest, from its listing to its rows.

    Attributes:
        run: The run that it belongs to.
        lake: Its lake.
        loop: The configuration.
        listing: What the sources hold.
        kept: What became of it.
        bar: Shows how far it is recorded.
        now: The time of its rows, UTC.
        counts: What else is worth counting.
    """

    run: Run
    lake: Lake
    loop: LoopConfig
    listing: Listing
    kept: Pieces
    bar: Progress
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    counts: Counter[str] = field(default_factory=Counter)
    _flags: list[pa.Table] = field(default_factory=list)

    def parts(self, *, with_pictures: bool = False) -> Iterator[Part]:
        """Yield what became of the files, in the order of the listing."""
        for name in self.listing.pieces:
            yield from self.kept.read(name, with_pictures=with_pictures)

    def flag(self, problems: Iterable[Problem]) -> None:
        """Count what a person should know of some samples, and flag them when it is written.

        Problems of one kind that a sample has make one flag if they come together.
        """
        rest = iter(problems)
        while some := list(islice(rest, ROWS)):
            table = records.flag_rows(some, self.now)
            self.counts.update(f"n_{kind}" for kind in table["kind"].to_pylist())
            self._flags.append(table)

    def write_flags(self) -> None:
        """Write the flags that there are now."""
        if self._flags:
            self.run.append("flags", pa.concat_tables(self._flags))
            self._flags.clear()

    def files(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the table `files` as this ingest found it."""
        yield from self.lake.batches("files", columns=columns, version=self.run.base)


def write_rows(ingest: Ingest, dataset: Artifact | None) -> tuple[Rows, pa.Table]:
    """Write all rows of an ingest.

    Args:
        ingest: The ingest.
        dataset: Receives a row for each file.

    Returns:
        Its files as far as deciding needs them, and the samples that the lake had before, as
        `HELD`.

    Raises:
        InputError: A label is of a class that the configuration lacks, or nothing has the column
            that is to group the holdout.
    """
    run, loop = ingest.run, ingest.loop
    ingest.bar.note("reads what is known")
    rows = Rows.of(ingest.parts())
    held = run.read("samples", columns=HELD)
    met = meet(ingest.files(), ingest.listing.changes, rows, _marks(ingest, rows))
    rows.decide(ids_of(held["sample_id"]), met.at_place, ids_of([]))
    rows.name_known({file: sample for file, (sample, _) in met.renewed.items()})
    labels = labels_of(ingest, rows)
    groups = groups_of_rows(ingest, rows, _metadata_schema(run).names)
    splits, joined = records.splits_of(
        rows, groups, loop.holdout, records.Earlier(held, _learnt_from(run))
    )
    drawn = {one for one, split in splits.items() if split == HOLDOUT} | set(joined)
    count_unjudged(ingest, rows, groups, held, drawn)
    ingest.bar.note("compares with the holdout")
    copies = copies_of_holdout(ingest, rows, held, splits, joined)
    # Of a new sample the split is written, of an earlier one it is changed.
    splits |= dict.fromkeys(copies, RESERVED)
    copied = copy_known(ingest)
    run.refuse_stale("files", "samples")
    moved = settle_places(ingest, rows, met) | copied
    change_samples(run, dict.fromkeys(copies, RESERVED) | dict.fromkeys(joined, HOLDOUT), moved)
    _write_parts(ingest, rows, splits, groups, met, dataset)
    for some in labels:
        run.append("labels", some)
        ingest.counts["n_labels"] += some.num_rows
        ingest.write_flags()
    ingest.counts.update(n_holdout=Counter(splits.values())[HOLDOUT] + len(joined))
    ingest.counts.update(met.count(_opened(ingest, rows)))
    return rows, held


def _opened(ingest: Ingest, rows: Rows) -> set[tuple[str, str]]:
    """Return URI and stored generation of each container that was opened."""
    if not rows.of_kind(OPENED).any():
        return set()
    tables = (part.rows.filter(pc.equal(part.rows["state"], OPENED)) for part in ingest.parts())
    return {
        (row["uri"], stored_generation(row["generation"] or ""))
        for table in tables
        for row in table.select(["uri", "generation"]).to_pylist()
    }


def _learnt_from(run: Run) -> bool:
    """Return whether a sample of the pool may have been seen by a person or a model already."""
    tables = ("selections", "label_requests", "training_sets")
    return any(run.read(name, columns=["sample_id"]).num_rows for name in tables)


def _metadata_schema(run: Run) -> pa.Schema:
    return run.read("metadata", where="sample_id == ''").schema


def _marks(ingest: Ingest, rows: Rows) -> dict[tuple[int, int], str]:
    """Return the mark of the sidecars of each known file whose sidecars alone were read."""
    if not rows.of_kind(METADATA).any():
        return {}
    marks = {}
    for part in ingest.parts():
        only = part.rows.filter(pc.equal(part.rows["state"], METADATA))
        words = files_of(only["uri"].to_pylist(), only["generation"].to_pylist())
        for (a, b), mark in zip(words, only["sidecar"].to_pylist(), strict=True):
            marks[int(a), int(b)] = mark
    return marks


def _write_parts(
    ingest: Ingest,
    rows: Rows,
    splits: Mapping[str, str],
    groups: Mapping[int, str],
    met: Met,
    dataset: Artifact | None,
) -> None:
    """Write files, samples, thumbnails and metadata; memory holds some tens of thousands."""
    schema = records.metadata_schema(rows.types, _metadata_schema(ingest.run))
    speaks = _speakers(ingest.run, met)
    roots = ingest.listing.roots
    waiting: dict[str, list[pa.Table]] = {"files": [], "samples": [], "thumbnails": []}
    sidecars: dict[str, Sidecar] = {}
    erased: set[tuple[str, str]] = set()
    renewed: dict[str, Sidecar] = {}
    everywhere = rows.of_kind(NEW)
    start = weight = n_waiting = 0

    def flush() -> None:
        for name, held in waiting.items():
            if held:
                ingest.run.append(name, pa.concat_tables(held))
                held.clear()
        _write_metadata(ingest, sidecars, renewed, schema, met.narrowed)
        # A pattern that fits none of a million files makes a million flags.
        ingest.write_flags()

    ingest.bar.begin(len(rows))
    with _Dataset(dataset, roots) as told:
        for part in ingest.parts(with_pictures=True):
            table, n = part.rows, part.rows.num_rows
            new = everywhere[start : start + n]
            words = files_of(table["uri"].to_pylist(), table["generation"].to_pylist())
            waiting["files"].append(
                records.file_rows(_without(table, words, met.again), roots, ingest.now)
            )
            if new.any():
                mine = [groups.get(row, "") for row in range(start, start + n)]
                waiting["samples"].append(
                    records.sample_rows(table, new, roots, splits, mine, ingest.now)
                )
                if part.pictures is not None:
                    ids = table["sample"].filter(pa.array(new))
                    waiting["thumbnails"].append(records.thumbnail_rows(part.pictures, ids))
            ids_ = texts_of(table["sample"]).to_pylist()
            for row, sidecar in enumerate(sidecars_of(table)):
                file = (int(words[row, 0]), int(words[row, 1]))
                if sidecar is not None and new[row]:
                    sidecars[ids_[row]] = sidecar
                elif sidecar is not None and file in speaks:
                    renewed[speaks[file]] = sidecar
            erased |= _erased_files(table)
            told.add(table, rows, start)
            ingest.bar.advance(n)
            start += n
            weight += part.rows.nbytes + (part.pictures.nbytes if part.pictures is not None else 0)
            n_waiting += n
            if weight > BYTES or n_waiting > ROWS:
                flush()
                weight = n_waiting = 0
        flush()
    if erased:
        held = Tombstones.of(ingest.lake, version=ingest.run.base)
        ingest.run.append(ERASED, held.with_more([], erased).rows(held, ingest.now))


def _without(part: pa.Table, words: Words, files: set[tuple[int, int]]) -> pa.Table:
    """Return the rows of a part but those of some files, which keep the row that they have."""
    if not files:
        return part
    return part.filter(pa.array([(a, b) not in files for a, b in words.tolist()], pa.bool_()))


def _erased_files(part: pa.Table) -> set[tuple[str, str]]:
    """Return URI and generation of a part's files that hold what was erased."""
    mine = part.filter(pc.equal(pc.coalesce(part["reason"].cast(pa.string()), ""), REASON))
    return set(zip(mine["uri"].to_pylist(), mine["generation"].to_pylist(), strict=True))


def _write_metadata(
    ingest: Ingest,
    new: dict[str, Sidecar],
    renewed: dict[str, Sidecar],
    schema: pa.Schema,
    narrowed: Collection[str],
) -> None:
    """Add the metadata of new samples, and put that of known ones in the place of the old."""
    table, problems = metadata_table(new, schema)
    ingest.run.append("metadata", table)
    ingest.flag(problems)
    if renewed:
        table, problems = metadata_table(renewed, schema)
        found = list(problems)
        for some in records.some_at_a_time(sorted(renewed)):
            mine = table.filter(pc.is_in(table["sample_id"], pa.array(some)))
            held = ingest.run.read("metadata", where=records.among("sample_id", some))
            mine = records.changed_metadata(mine, held, narrowed)
            changed = set(mine["sample_id"].to_pylist())
            # What is as it was has its flags already; what was mended keeps none.
            _withdraw(ingest.run, changed)
            ingest.flag(one for one in found if one.sample_id in changed)
            ingest.counts["n_renewed_metadata"] += len(changed)
            if changed:
                these = records.among("sample_id", sorted(changed))
                ingest.run.replace("metadata", mine, these)
    new.clear()
    renewed.clear()


def _withdraw(run: Run, samples: Collection[str]) -> None:
    """Take back what was flagged of metadata that others have taken the place of."""
    from pyiceberg.expressions import And

    of_metadata = records.among("kind", sorted(MENDED))
    for some in records.some_at_a_time(sorted(samples)):
        these = And(records.among("subject", some), of_metadata)
        held = run.read("flags", where=these)
        if held.num_rows:
            run.replace("flags", held.slice(0, 0), these)


def _speakers(run: Run, met: Met) -> dict[tuple[int, int], str]:
    """Return the sample of each file with changed sidecars that speaks for it.

    It is the file that the sample was first found in, or lies in now; a further copy does not.
    """
    places: dict[str, set[str]] = {}
    for some in records.some_at_a_time(sorted({one for one, _ in met.renewed.values() if one})):
        these = records.among("sample_id", some)
        table = run.read("samples", columns=["sample_id", "uri", "source_uri"], where=these)
        for row in table.to_pylist():
            places[row["sample_id"]] = {row["uri"], row["source_uri"]}
    renewed = met.renewed.items()
    return {file: sample for file, (sample, uri) in renewed if uri in places.get(sample, ())}


_NAMES = ("uri", "outcome", "reason", "sample_id", "source", "detail")
_OF_A_FILE = {**dict.fromkeys(_NAMES, pa.string()), "offset": pa.int64()}


class _Dataset:
    """Writes what became of each file as Parquet, for the person who opens the run."""

    _SCHEMA = pa.schema(list(_OF_A_FILE.items()))

    def __init__(self, artifact: Artifact | None, roots: list[str]) -> None:
        self._artifact, self._roots = artifact, roots
        self._rows = 0

    def __enter__(self) -> _Dataset:
        if self._artifact is not None:
            from pathlib import Path

            import pyarrow.parquet as pq

            path = Path(self._artifact.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, self._SCHEMA)
        return self

    def add(self, table: pa.Table, rows: Rows, start: int) -> None:
        """Add a part, whose first row is the given one of all."""
        if self._artifact is None:
            return
        kinds = [KINDS[kind] for kind in rows.kind[start : start + table.num_rows].tolist()]
        columns: dict[str, Any] = {
            "uri": table["uri"],
            "outcome": pa.array(kinds, pa.string()),
            "reason": rows.reason.slice(start, table.num_rows).cast(pa.string()),
            "sample_id": texts_of(table["sample"]),
            "source": pa.array([self._roots[n] for n in table["source"].to_pylist()], pa.string()),
            "detail": table["detail"],
            "offset": table["offset"],
        }
        some = ~np.isin(kinds, (METADATA, OPENED))
        part = pa.table(columns, schema=self._SCHEMA).filter(pa.array(some))
        self._writer.write_table(part)
        self._rows += part.num_rows

    def __exit__(self, *_: object) -> None:
        if self._artifact is not None:
            self._writer.close()
            self._artifact.metadata["rows"] = self._rows
            self._artifact.metadata["columns"] = ", ".join(self._SCHEMA.names)
