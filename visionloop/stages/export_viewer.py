"""Exports what a loop knows of its images to a viewer, for work that outgrows a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.interchange.records import Annotated, Box, Problems
    from visionloop.interchange.viewers import Seen
    from visionloop.lake import Lake
    from visionloop.monitoring.live.index import Index
    from visionloop.stages.export_set import Wanted

_AT_ONCE = 5_000
# Columns that have a place of their own in a viewer.
_OWN = frozenset({"uri", "width", "height", "size", "format", "label", "prediction"})


def export_viewer(
    lake: Lake,
    viewer: str,
    target: str,
    wanted: Wanted,
    *,
    media: str = "copy",
    force: bool = False,
    problems: Problems | None = None,
) -> dict[str, Any]:
    """Write samples with labels, predictions, flags and every column, for a viewer to open.

    The predictions are those that the report and the live view show: of the newest model that
    predicted more than the holdout.

    Args:
        lake: The lake.
        viewer: ``fiftyone`` or ``lightly-studio``.
        target: An empty folder, or one that does not exist.
        wanted: Which samples; ``model`` is not looked at.
        media: ``copy``, ``link`` or, for FiftyOne, ``none``: name where images lie on this disk.
        force: Replace the export that is at the target.
        problems: Receives what is wrong.

    Returns:
        A summary in which ``asked`` = ``written`` + all of ``left_out`` + ``not_in_lake``, and
        ``lines``: Python that opens the set.

    Raises:
        InputError: There is no such set of samples or version, or the target cannot be used.
    """
    from visionloop.interchange.records import Problems
    from visionloop.interchange.target import Target
    from visionloop.interchange.viewers import VIEWERS
    from visionloop.interchange.writing import Admission, Holds, Written
    from visionloop.lake.storage import local_path, scheme_of
    from visionloop.monitoring.live.building import build_index
    from visionloop.stages.export_place import refuse_own_place
    from visionloop.stages.export_set import wanted_samples

    if viewer == "lightly-studio" and media == "none":
        raise InputError(
            "LightlyStudio reads images from the set's own folder",
            where="--media none",
            remedy="Use --media copy or link",
        )
    if scheme_of(target) != "file":
        raise InputError(
            "a viewer opens a folder of its own machine", where=target, remedy="Name a local folder"
        )
    refuse_own_place(lake, target)
    version = wanted.version or lake.version()
    samples, asked = wanted_samples(lake, wanted)
    index = build_index(lake, version)
    holds = Holds(labels=1, boxes=True, score=True, attributes=True, metadata=True, split=True,
                  sample_id=True)  # fmt: skip
    problems = problems if problems is not None else Problems()
    written, pending = Written(), _Pending(lake, index, samples["sample_id"])
    with Target(target, force=force) as out:
        admission = Admission(holds, media, True, out, written, problems)  # type: ignore[arg-type]
        writer = VIEWERS[viewer](out)
        counts = {"flagged": 0, "predicted": 0}
        for record, content in admission.admit(pending.records()):
            place = f"{writer.folder}/{record.file}"
            if media == "none":
                if scheme_of(record.uri) != "file" or not local_path(record.uri).is_file():
                    written.left_out["not_on_this_disk"] += 1
                    continue
                place = str(local_path(record.uri))
            content.put(out, place)
            seen = pending.seen(record, place)
            writer.add(seen)
            written.count(record, holds)
            counts["flagged"] += any(tag.startswith("flag:") for tag in seen.tags)
            counts["predicted"] += bool(seen.prediction) or seen.found is not None
        about = {
            "loop": lake.loop,
            "lake_version": version,
            "predictions_of": index.model_id,
            "what": wanted.what,
        }
        writer.finish(about)
        summary = {
            "viewer": viewer,
            **about,
            "asked": asked,
            "not_in_lake": asked - samples.num_rows,
            **{name: held for name, held in written.plain().items() if name != "lost"},
            **counts,
            "media": media,
            "problems": dict(sorted(problems.counts.items())),
        }
        out.finish(summary)
    folder = str(local_path(out.uri))
    return {**summary, "lines": [line.format(folder=folder) for line in writer.lines]}


class _Pending:
    """The records of an export, and what is known of those that were let through."""

    def __init__(self, lake: Lake, index: Index, ids: Any) -> None:
        from visionloop.interchange.viewers import field_names

        self._index, self._ids = index, ids
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._names = field_names([name for name in index.columns if name not in _OWN])
        self._boxes = _labelled(lake, index)
        self._found = _predicted(lake, index)
        classes = index.table["label"]
        self._among_classes = classes.null_count < len(classes)

    def records(self) -> Iterator[Annotated]:
        """Yield a record an image, in the order in which they came in."""
        import numpy as np
        import pyarrow.compute as pc

        from visionloop.interchange.places import stem_of, suffix
        from visionloop.interchange.records import Annotated
        from visionloop.stages.export_set import file_name

        within = pc.is_in(self._index.table["sample_id"], value_set=self._ids.combine_chunks())
        rows = np.flatnonzero(within.to_numpy())
        for start in range(0, len(rows), _AT_ONCE):
            for row in self._index.rows(rows[start : start + _AT_ONCE]):
                sample_id = row["sample_id"]
                name = file_name({**row, "source_uri": row.get("source_uri") or row["uri"]})
                self._rows[sample_id] = row
                yield Annotated(
                    f"{stem_of(name)}-{sample_id[:12]}{suffix(name)}",
                    row["uri"] or "",
                    sample_id,
                    row["width"] or 0,
                    row["height"] or 0,
                    labels=(row["label"],) if row.get("label") else (),
                    boxes=self._boxes.get(sample_id),
                    split=row["split"] or "",
                )

    def seen(self, record: Annotated, place: str) -> Seen:
        """Return all that is known of an image; asked for once."""
        from visionloop.interchange.viewers import Seen

        row = self._rows.pop(record.sample_id)
        tags = [row["split"]] if row["split"] else []
        tags += [f"flag:{kind}" for kind in row["flags"]]
        tags += ["random"] if row["arm"] == "random" else ["picked"] if row["arm"] else []
        confidence = _number(row.get("confidence"))
        return Seen(
            place,
            record.sample_id,
            record.width,
            record.height,
            row["size"] or 0,
            row["format"] or "",
            tuple(tags),
            row.get("label") or "",
            record.boxes,
            row.get("prediction") or "",
            confidence,
            self._found.get(record.sample_id),
            {new: _plain(row[old]) for old, new in self._names.items()},
            self._among_classes,
        )


def _number(value: Any) -> float | None:
    # By its shortest decimal: 0.9 of 32 bits is 0.9.
    return None if value is None or not math.isfinite(value) else float(str(value))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str | list):
        return value
    return _number(value) if hasattr(value, "__float__") else value


def _labelled(lake: Lake, index: Index) -> dict[str, tuple[Box, ...]]:
    from visionloop.labeling.answers import latest_boxes
    from visionloop.stages.export_set import boxes_of

    if "objects" not in index.columns:
        return {}
    rows = latest_boxes(lake.read("labels", version=index.version).to_pylist())
    return {sample: boxes_of(row["boxes"]) or () for sample, row in rows.items()}


def _predicted(lake: Lake, index: Index) -> dict[str, tuple[Box, ...]]:
    import pyarrow.compute as pc

    from visionloop.stages.export_set import boxes_of

    found: dict[str, tuple[Box, ...]] = {}
    if "predicted_objects" not in index.columns:
        return found
    columns = ["sample_id", "model_id", "boxes"]
    for batch in lake.batches("predictions", columns=columns, version=index.version):
        own = batch.filter(pc.equal(batch["model_id"], index.model_id))
        for sample, boxes in zip(
            own["sample_id"].to_pylist(), own["boxes"].to_pylist(), strict=True
        ):
            found[sample] = boxes_of(boxes) or ()
    return found
