"""Exports a set of a lake's samples, with what is known of them, to another tool's format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.words import round_id_of

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.interchange.formats import WriteOptions
    from visionloop.interchange.records import Annotated, Box, Problems
    from visionloop.interchange.writing import Holds
    from visionloop.lake import Lake

# What the parts of a lake are called by those who train on a set.
SPLITS = {"pool": "train", "holdout": "val"}
_BATCH = 10_000
_NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f\x85\u2028\u2029]|(?<=\A[A-Za-z]):")


@dataclass(frozen=True)
class Wanted:
    """Which samples are exported, and what is told of them.

    Attributes:
        what: ``all``, ``split:NAME``, ``requests:ROUND`` (what a round asked about and nobody has
            answered), or a set as in `visionloop.selection.queries`, for example
            ``round:0002``, ``label:cat`` or ``training_set:ID``.
        version: Lake version to read at; empty for the newest.
        model: Tell what this model predicted instead of the labels; empty: the labels of people.
            Of the requests that people answer without the model's answer nothing is told.
        splits: Whether each sample's split goes along.
        task: The task whose labels count.
    """

    what: str = "all"
    version: str = ""
    model: str = ""
    splits: bool = True
    task: str = "classification"


def export_set(
    lake: Lake,
    name: str,
    target: str,
    wanted: Wanted,
    *,
    media: str = "copy",
    force: bool = False,
    unannotated: bool = False,
    problems: Problems | None = None,
    options: WriteOptions | None = None,
) -> dict[str, Any]:
    """Write samples of a lake as a set of another format.

    The tables' rows are held as Arrow columns, about 500 bytes a sample; images and records pass
    through.

    Args:
        lake: The lake.
        name: The format, see `visionloop.interchange.formats.FORMATS`.
        target: Where the set goes, see `visionloop.interchange.formats.write_set`.
        wanted: Which samples.
        media: ``copy``, ``link`` or ``none``.
        force: Replace the export that is at the target.
        unannotated: Export samples too that nobody labelled.
        problems: Receives what is wrong.
        options: How it is written; classes that it names come first.

    Returns:
        The summary of `write_set`, with ``asked`` = ``records`` + ``not_in_lake``.

    Raises:
        InputError: There is no such set of samples, model, version or format, or the target is a
            place of the lake or of its sources.
    """
    import pyarrow as pa

    from visionloop.interchange.formats import WriteOptions, module_of, write_set
    from visionloop.stages.export_place import refuse_own_place

    refuse_own_place(lake, target)
    holds = module_of(name).HOLDS
    version = wanted.version or lake.version()
    wanted = replace(wanted, version=version)
    samples, asked = wanted_samples(lake, wanted)
    options = options or WriteOptions()
    metadata = lake.read("metadata", version=version)
    own = [f for f in metadata.schema if f.name not in ("sample_id", "raw", "round_id", "run_id")]
    export = _Export(lake, wanted, samples, metadata.select(["sample_id", *(f.name for f in own)]))
    classes, again = export.classes_and_names(list(options.classes), holds)
    options = replace(options, classes=tuple(classes), columns=pa.schema(own))
    about = {
        "what": wanted.what,
        "lake": lake.uri,
        "loop": lake.loop,
        "lake_version": version,
        "model": wanted.model,
        "asked": asked,
        "not_in_lake": asked - samples.num_rows,
    }
    return write_set(
        name,
        export.records(again),
        target,
        media=media,
        force=force,
        unannotated=unannotated,
        problems=problems,
        options=options,
        about=about,
    )


def wanted_samples(lake: Lake, wanted: Wanted) -> tuple[pa.Table, int]:
    """Return the wanted samples in the order of their ids, and how many were asked for.

    Args:
        lake: The lake.
        wanted: What is exported.

    Raises:
        InputError: The name is that of no set of samples.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from visionloop.labeling.answers import is_models, latest_labels
    from visionloop.selection.queries import KINDS, members
    from visionloop.stages.export_requests import requests_to_export

    columns = ["sample_id", "uri", "source_uri", "width", "height", "format", "split"]
    samples = lake.read("samples", columns=columns, version=wanted.version).sort_by("sample_id")
    kind, _, name = wanted.what.partition(":")
    if kind in ("round", "requests"):
        name = round_id_of(name)
    if wanted.what == "all":
        return samples, samples.num_rows
    if kind == "split":
        names = {ours for ours in (name, *(o for o, t in SPLITS.items() if t == name))}
        found = samples.filter(pc.is_in(samples["split"], pa.array(sorted(names))))
        asked = found.num_rows
    elif kind == "requests" and name:
        ids = requests_to_export(lake, wanted.version, wanted.task, name)
        found = samples.filter(pc.is_in(samples["sample_id"], pa.array(sorted(ids), pa.string())))
        asked = len(ids)
    elif kind in KINDS and name:

        def read(table: str, *names: str, where: Any = None) -> pa.Table:
            return lake.read(table, columns=list(names), where=where, version=wanted.version)

        labels: dict[str, tuple[str, ...]] = {}
        if kind == "label":
            rows = lake.read("labels", version=wanted.version).to_pylist()
            own = latest_labels((row for row in rows if not is_models(row)), wanted.task)
            labels = {sample: (label,) for sample, label in own.items()}
        ids = members(kind, name, read, labels)
        found = samples.filter(pc.is_in(samples["sample_id"], pa.array(sorted(ids), pa.string())))
        asked = len(ids)
    else:
        raise InputError(
            f"{wanted.what!r} names no set of samples",
            where="--what",
            remedy="Use all, split:NAME, requests:ROUND, "
            + ", ".join(f"{kind}:…" for kind in KINDS),
        )
    if not found.num_rows:
        raise InputError(
            f"{wanted.what!r} names no sample of the lake"
            + (f" ({asked} ids, none of which it has)" if asked else ""),
            where=f"version {wanted.version}",
            remedy="Look the name up, or choose another version of the lake",
        )
    return found, asked


class _Sorted:
    """A table's rows by sample id, given out in ascending order; memory holds Arrow columns."""

    def __init__(self, table: pa.Table, ids: pa.ChunkedArray) -> None:
        import pyarrow.compute as pc

        if table.num_rows:
            table = table.filter(pc.is_in(table["sample_id"], ids.combine_chunks()))
        self._table = table.sort_by("sample_id")
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._next: dict[str, Any] | None = None
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first sample."""
        self._rows = _plain_rows(self._table)
        self._next = next(self._rows, None)

    def of(self, sample_id: str) -> list[dict[str, Any]]:
        """Return the rows of a sample; ids are asked for in ascending order."""
        found = []
        while self._next is not None and self._next["sample_id"] <= sample_id:
            if self._next["sample_id"] == sample_id:
                found.append(self._next)
            self._next = next(self._rows, None)
        return found


def _plain_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for start in range(0, table.num_rows, _BATCH):
        yield from table.slice(start, _BATCH).to_pylist()


class _Export:
    """The records of an export."""

    def __init__(self, lake: Lake, wanted: Wanted, samples: pa.Table, metadata: pa.Table) -> None:
        from visionloop.labeling.requests import blind_samples

        self._wanted, self._samples = wanted, samples
        ids = samples["sample_id"]
        self._metadata = _Sorted(metadata, ids)
        self._fixed: _Sorted | None = None
        self._blind: set[str] = set()
        kind, _, name = wanted.what.partition(":")
        version = wanted.version
        if wanted.model:
            known = lake.read("predictions", columns=["model_id"], version=version)["model_id"]
            if wanted.model not in known.unique().to_pylist():
                raise InputError(
                    f"the lake has no predictions of a model {wanted.model!r}",
                    where="--model",
                    remedy="Name one of "
                    + (
                        ", ".join(sorted(known.unique().to_pylist())[:10]) or "none: there are none"
                    ),
                )
            told = _equal(lake.read("predictions", version=version), "model_id", wanted.model)
            self._said = _Sorted(told, ids)
            self._detects = len(told["boxes"].combine_chunks().flatten()) > 0
            if kind == "requests":
                asked = _equal(lake.read("label_requests", version=version), "round_id", name)
                drawn = lake.read("selections", where="arm == 'random'", version=version)
                self._blind = blind_samples(asked.to_pylist(), drawn.to_pylist())
        else:
            self._said = _Sorted(lake.read("labels", version=version), ids)
            if kind == "training_set":
                rows = lake.read("training_sets", version=version)
                self._fixed = _Sorted(_equal(rows, "training_set", name), ids)

    def classes_and_names(self, classes: list[str], holds: Holds) -> tuple[list[str], set[str]]:
        """Return the classes of what a format can hold, and the names that several images have."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found: set[str] = set()
        chunks: list[pa.Array] = []
        names: list[str] = []
        for record in self.records(set()):
            found.update(record.labels if holds.labels else ())
            found.update(box.label for box in (record.boxes if holds.boxes else None) or ())
            names.append(_key(record.file))
            if len(names) == _BATCH:
                chunks.append(pa.array(names))
                names.clear()
        counted = pc.value_counts(pa.chunked_array([*chunks, pa.array(names, pa.string())]))
        several = {pair["values"] for pair in counted.to_pylist() if pair["counts"] > 1}
        return [*classes, *sorted(found - set(classes))], several

    def records(self, again: set[str]) -> Iterator[Annotated]:
        """Yield a record for each sample, in the order of their ids.

        Args:
            again: Names that several images have: these get a part of their id.
        """
        from visionloop.interchange.places import stem_of, suffix
        from visionloop.interchange.records import Annotated

        for held in (self._metadata, self._said, self._fixed):
            if held is not None:
                held.rewind()
        for sample in _plain_rows(self._samples):
            sample_id = sample["sample_id"]
            file = file_name(sample)
            if _key(file) in again:
                file = f"{stem_of(file)}-{sample_id[:12]}{suffix(file)}"
            metadata = next(iter(self._metadata.of(sample_id)), {})
            record = Annotated(
                file,
                sample["uri"] or "",
                sample_id,
                sample["width"] or 0,
                sample["height"] or 0,
                metadata={
                    key: value
                    for key, value in metadata.items()
                    if value is not None and key != "sample_id"
                },
                split=self._split(sample["split"]),
            )
            yield self._with_annotations(record)

    def _split(self, split: str | None) -> str:
        return SPLITS.get(split or "", split or "") if self._wanted.splits else ""

    def _with_annotations(self, record: Annotated) -> Annotated:
        from visionloop.labeling.answers import MODEL, is_models, latest_answers, latest_boxes

        rows = self._said.of(record.sample_id)
        if record.sample_id in self._blind:
            return record
        if self._wanted.model:
            said = rows[-1] if rows else {}
            return replace(
                record,
                labels=(said["label"],) if said.get("label") else (),
                score=said.get("confidence"),
                probabilities=tuple(said.get("probabilities") or ()),
                boxes=boxes_of(said.get("boxes")) if self._looked(said) else None,
                origin=self._wanted.model if rows else "",
            )
        if self._fixed is not None:
            # A label of a model would come back as a person's: formats hold no origin.
            fixed = [r for r in self._fixed.of(record.sample_id)[:1] if r["origin"] != MODEL]
            return replace(record, labels=tuple(row["label"] for row in fixed if row["label"]))
        rows = [row for row in rows if not is_models(row)]
        answer = latest_answers(rows, self._wanted.task).get(record.sample_id) or {}
        objects = latest_boxes(rows).get(record.sample_id) or {}
        return replace(
            record,
            labels=(answer["label"],) if answer.get("label") else (),
            boxes=boxes_of(objects.get("boxes")),
            origin=answer.get("annotator") or objects.get("annotator") or "",
            seconds=answer.get("seconds"),
        )

    def _looked(self, said: Mapping[str, Any]) -> bool:
        """Return whether a model looked for objects: earlier versions stored null as no boxes."""
        return self._detects or not said.get("label")


def _equal(table: pa.Table, column: str, value: str) -> pa.Table:
    import pyarrow.compute as pc

    # Compared here: a name is a person's text and must not become part of a filter.
    return table.filter(pc.equal(table[column], value))


def _key(file: str) -> str:
    from visionloop.interchange.places import stem_of

    return stem_of(file).casefold()


def file_name(sample: Mapping[str, Any]) -> str:
    """Return what a sample's image is called in a set: as where it was found first.

    Args:
        sample: Row of the table `samples`.
    """
    from visionloop.interchange.places import IMAGES, suffix
    from visionloop.lake.storage import name_of

    # A line break ends a line of a list; with a backslash or a drive no tar's member is read.
    found = _NO_NAME.sub("_", name_of(sample["source_uri"] or sample["uri"] or ""))
    name = found or str(sample["sample_id"])
    if suffix(name) in IMAGES:
        return name
    kind = str(sample["format"] or "jpeg").lower()
    return f"{name}.{'jpg' if kind == 'jpeg' else kind}"


def boxes_of(rows: list[dict[str, Any]] | None) -> tuple[Box, ...] | None:
    """Return the boxes of a row of `labels` or `predictions`, None where nobody looked for any."""
    from visionloop.interchange.records import Box

    if rows is None:
        return None
    boxes = []
    for row in rows:
        scores = [float(score) for score in row["scores"] or ()]
        boxes.append(
            Box(
                row["x_min"],
                row["y_min"],
                row["x_max"],
                row["y_max"],
                row["label"] or "",
                max(scores, default=None),
                tuple(scores) if len(scores) > 1 else (),
            )
        )
    return tuple(boxes)
