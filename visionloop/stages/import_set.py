"""Imports an annotated set: its images, then what it says of them, and nothing said twice."""

from __future__ import annotations

import hashlib
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from visionloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.interchange.formats import ReadOptions
    from visionloop.interchange.records import Annotated, Problems, Reading
    from visionloop.lake import Lake, Run

_BATCH = 10_000
_PART_OF_ID = re.compile(r"-([0-9a-f]{12})(?:\.[A-Za-z0-9]+)?\Z")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Importing:
    """How a set is imported.

    Attributes:
        ingest: Take the set's images into the lake; otherwise only those count that it has.
        copy: Copy their bytes into the lake.
        model: What the set says are predictions of this model; empty: labels.
        annotator: Who annotated it, where the set does not say; empty: the set's address.
        replace_imports: A label that an earlier import brought gives way to a different one.
    """

    ingest: bool = True
    copy: bool = False
    model: str = ""
    annotator: str = ""
    replace_imports: bool = False


@dataclass
class Imported:
    """What became of a set's records: `records` = `matched` + `unmatched` + `repeated`.

    Attributes:
        lake_version: The lake's version with what was imported.
        records: Images that the set speaks of.
        matched: Those that are samples of the lake.
        unmatched: Those that are not: unreadable, missing, or never ingested.
        repeated: Those whose bytes another image of the set has.
        labels: What became of the classes of whole images: new, same, replaced, conflict, several.
        boxes: What became of the images' boxes, likewise; mismatch: of another image size.
        n_boxes: Boxes written.
        predictions: Predictions written.
        metadata: Samples that got metadata.
        lost: What the lake cannot hold: ``attributes`` of boxes, ``scores`` of labels.
        ingest: Counts of the ingest.
        classes: Classes of the set.
    """

    lake_version: str = ""
    records: int = 0
    matched: int = 0
    unmatched: int = 0
    repeated: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    n_boxes: int = 0
    predictions: int = 0
    metadata: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    ingest: dict[str, int] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)


def import_set(
    loop: LoopConfig,
    name: str,
    uri: str,
    how: Importing,
    *,
    problems: Problems,
    options: ReadOptions | None = None,
) -> Imported:
    """Import an annotated set into a lake.

    A person's label is never overwritten: where the set says something else, the sample is flagged
    `label_conflict`. Boxes are rows of `labels` of the task ``detection``; the loop trains
    classifiers, so they are stored and exported.

    Args:
        loop: The configuration, with its lake.
        name: The set's format, see `visionloop.interchange.formats.FORMATS`.
        uri: Where it lies.
        how: How it is imported.
        problems: Receives what is wrong with it.
        options: What is to be known of it.

    Raises:
        InputError: There is no such set, it has classes that the configuration lacks, or the
            model's name is one of the loop's own.
    """
    from visionloop.interchange.formats import read_set
    from visionloop.lake import Lake
    from visionloop.lake.storage import normalise

    reading = read_set(name, uri, problems=problems, options=options)
    imported = Imported()
    with tempfile.TemporaryFile() as spool:
        _spool(reading, spool, imported)
        imported.classes = reading.classes
        lake = Lake.open(loop.lake, catalog=loop.catalog, loop=loop.name)
        if not how.model:
            _check_classes(loop, spool, uri)
        else:
            _check_model(lake, how.model)
        if how.ingest:
            _ingest(loop, lake, reading, spool, how, imported)
        inputs = {"format": name, "uri": normalise(uri), "model": how.model}
        with lake.run(stage="import", run_id=_run_id(), inputs=inputs) as run:
            _write(run, loop, reading, spool, how, imported)
            counts = {
                "in": imported.records,
                "ok": imported.matched,
                "duplicates": imported.repeated,
                "skipped": imported.unmatched,
            }
            imported.lake_version = run.commit(counts=counts)
    return imported


def _run_id() -> str:
    # A run of its own: it must not count as a sign of life of the round that is open.
    import uuid

    return f"import-{uuid.uuid4().hex[:12]}"


def _spool(reading: Reading, spool: IO[bytes], imported: Imported) -> None:
    """Read the set once, and keep its records on the disk."""
    from visionloop.progress import progress

    with progress("read", unit="images") as bar:
        for record in reading:
            pickle.dump(record, spool, pickle.HIGHEST_PROTOCOL)
            imported.records += 1
            bar.advance()


def _spooled(spool: IO[bytes]) -> Iterator[Annotated]:
    spool.seek(0)
    while True:
        try:
            yield pickle.load(spool)  # written by this process, to a file without a name
        except EOFError:
            return


def _check_classes(loop: LoopConfig, spool: IO[bytes], where: str) -> None:
    from visionloop.validation import nearest

    if not loop.classes:
        return
    found = {label for record in _spooled(spool) for label in record.labels}
    strange = sorted(found - set(loop.classes))
    if strange:
        named = ", ".join(f"`{label}`" + nearest(label, loop.classes) for label in strange[:5])
        raise InputError(
            f"{len(strange)} classes of the set are not in the configuration: {named}",
            where=where,
            remedy="Correct the set, or add the classes to `classes:`; nothing was stored",
        )


def _check_model(lake: Lake, model: str) -> None:
    if not _MODEL.fullmatch(model):
        raise InputError(
            "a model's name has letters, digits, dots, dashes and underscores, at most 63",
            where=f"--model {model}",
        )
    if model in lake.read("experiments", columns=["model_id"])["model_id"].to_pylist():
        raise InputError(
            "the loop trained a model of this name, whose predictions are its own",
            where=f"--model {model}",
            remedy="Give another name",
        )


def _ingest(
    loop: LoopConfig,
    lake: Lake,
    reading: Reading,
    spool: IO[bytes],
    how: Importing,
    imported: Imported,
) -> None:
    """Take the set's images in: shards as they are, other images through a list of them."""
    from visionloop.config import load_config
    from visionloop.stages.ingest import ingest

    source: dict[str, Any] = {"copy": how.copy, "metadata": "none"}
    listed = ""
    if reading.format == "webdataset":
        source |= {"uri": reading.uri, "kind": "tar"}
    else:
        uris = [record.uri for record in _spooled(spool) if record.uri]
        if not uris:
            return
        text = "".join(f"{uri}\n" for uri in uris).encode()
        # Named by what it lists: a shorter list is another source, and marks no file as removed.
        digest = hashlib.sha256(text).hexdigest()[:12]
        listed = lake.path("imports", f"{reading.format}-{digest}.txt")
        lake.storage.write(listed, text)
        source |= {"uri": listed, "kind": "list"}
    config = load_config(loop.text(), overrides={"sources": [source]})
    try:
        found = ingest(config=config.text())
    finally:
        if listed:
            lake.storage.delete(listed)
    counts = found._asdict()
    names = ("n_files", "n_new", "n_duplicates", "n_unreadable", "n_skipped")
    imported.ingest = {name: counts[name] for name in names}


def _write(
    run: Run,
    loop: LoopConfig,
    reading: Reading,
    spool: IO[bytes],
    how: Importing,
    imported: Imported,
) -> None:
    from visionloop.media.records import flag_rows
    from visionloop.stages.import_rows import LabelRows, PredictionRows, metadata_rows

    now = datetime.now(UTC)
    annotator = how.annotator or reading.uri
    places = _Places(run)
    problems = reading.problems
    labels = LabelRows(
        run, loop.task, annotator, now, imported, problems, replace=how.replace_imports
    )
    predictions = PredictionRows(how.model, loop.classes, reading.classes, now, imported, problems)
    known: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for record, sample_id, size in places.found(_spooled(spool)):
        if not sample_id:
            imported.unmatched += 1
            problems.add("not_in_lake", record.file, "", record.uri or "no file")
            continue
        if sample_id in seen:
            imported.repeated += 1
            if not how.model:
                labels.compare(record, sample_id)
            continue
        seen.add(sample_id)
        imported.matched += 1
        if record.sample_id and record.sample_id.lower() != sample_id:
            told = f"the set was made of {record.sample_id}, and {sample_id} lies there"
            problems.add("changed_bytes", record.file, "", told)
        imported.lost["attributes"] += sum(bool(box.attributes) for box in record.boxes or ())
        imported.lost["scores"] += not how.model and record.score is not None
        (predictions if how.model else labels).add(record, sample_id, size)
        if more := _known(record, how):
            known[sample_id] = more
    if how.model:
        predictions.write(run)
    else:
        run.append("labels", labels.table())
    odd = labels.odd + metadata_rows(run, known, imported)
    run.append("flags", _not_flagged(run, _of_import(flag_rows(odd, now))))


def _known(record: Annotated, how: Importing) -> dict[str, Any]:
    """Return what becomes metadata: also the split, and classes of which none can be chosen."""
    more = dict(record.metadata)
    if record.split:
        more.setdefault("split", record.split)
    if len(record.labels) > 1 and not how.model:
        more.setdefault("labels", list(record.labels))
    return more


def _not_flagged(run: Run, flags: pa.Table) -> pa.Table:
    """Return those of some flags that the lake does not have: the same set may come again."""
    import pyarrow as pa

    from visionloop.media.records import among, some_at_a_time

    columns = ["subject", "kind", "evidence"]
    held: set[tuple[str, ...]] = set()
    for some in some_at_a_time(flags["subject"].to_pylist()):
        rows = run.read("flags", columns=columns, where=among("subject", some)).to_pylist()
        held |= {tuple(row[name] for name in columns) for row in rows}
    found = zip(*(flags[name].to_pylist() for name in columns), strict=True)
    return flags.filter(pa.array([one not in held for one in found], pa.bool_()))


def _of_import(flags: pa.Table) -> pa.Table:
    import pyarrow as pa

    place = flags.schema.get_field_index("stage")
    return flags.set_column(place, "stage", pa.array(["import"] * flags.num_rows, pa.string()))


def _digest(uri: str) -> str:
    from visionloop.lake.anywhere import Anywhere
    from visionloop.lake.storage import StorageError

    try:
        return hashlib.sha256(Anywhere().read(uri)).hexdigest()
    except StorageError:
        return ""


class _Places:
    """Finds the sample of each record: by the place of its file, else by its id, bytes or name.

    Args:
        run: Reads the lake.
    """

    def __init__(self, run: Run) -> None:
        import pyarrow.compute as pc

        files = run.read("files", columns=["uri", "sample_id", "state"])
        good = files.filter(pc.not_equal(pc.fill_null(files["sample_id"], ""), ""))
        # Of a file that was overwritten its newest bytes are meant.
        removed = pc.equal(pc.fill_null(good["state"], ""), "removed")
        there = good["uri"].filter(pc.invert(removed))
        again = pc.is_in(good["uri"], value_set=there.combine_chunks())
        good = good.filter(pc.invert(pc.and_(removed, again)))
        self._uris = good["uri"].combine_chunks()
        self._ids = good["sample_id"].combine_chunks()
        samples = run.read("samples", columns=["sample_id", "width", "height"])
        self._samples = samples["sample_id"].combine_chunks()
        self._width, self._height = samples["width"], samples["height"]
        self._names: Any = None

    def found(
        self, records: Iterator[Annotated]
    ) -> Iterator[tuple[Annotated, str, tuple[int, int]]]:
        """Yield each record with its sample's id, empty for none, and size in pixels."""
        from itertools import islice

        import pyarrow as pa
        import pyarrow.compute as pc

        while batch := list(islice(records, _BATCH)):
            uris = pa.array([record.uri for record in batch], pa.string())
            places = pc.index_in(uris, self._uris).to_pylist()
            ids = [
                self._ids[place].as_py() if place is not None else self._by_name(record)
                for record, place in zip(batch, places, strict=True)
            ]
            rows = pc.index_in(pa.array(ids, pa.string()), self._samples).to_pylist()
            for record, sample_id, row in zip(batch, ids, rows, strict=True):
                if row is None:
                    yield record, "", (0, 0)
                else:
                    size = (self._width[row].as_py() or 0, self._height[row].as_py() or 0)
                    yield record, sample_id, size

    def _by_name(self, record: Annotated) -> str:
        if record.sample_id:
            return record.sample_id.lower()
        if record.uri:
            # Its own place is known, and the lake does not have it; perhaps it has these bytes.
            return _digest(record.uri)
        import pyarrow.compute as pc

        from visionloop.labeling.tables import FileNames

        if self._names is None:
            pairs = zip(self._uris.to_pylist(), self._ids.to_pylist(), strict=True)
            self._names = FileNames(dict(pairs))
        meant = self._names.find(record.file)
        if len(meant) != 1 and (named := _PART_OF_ID.search(record.file)):
            # Of several samples with one name an export puts a part of the id behind it.
            begins = pc.starts_with(self._samples, named[1])
            meant = set(self._samples.filter(begins).to_pylist())
        return str(meant.pop()) if len(meant) == 1 else ""
