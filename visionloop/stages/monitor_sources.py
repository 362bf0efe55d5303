"""The monitor's look at what comes in as a whole: cameras gone silent, and classes never seen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table, markdown_text
from visionloop.stages.monitor_part import Look, Part
from visionloop.words import counted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from visionloop.monitoring.silence import Silence
    from visionloop.monitoring.unseen import Named, Unseen

SILENT, UNSEEN = "camera_silent", "unseen_class"
_IMAGES = 6


def check_sources(look: Look) -> Part:
    """Flag cameras that should have been heard from, and classes that nobody knows.

    Args:
        look: What the monitor looks at.

    Returns:
        What was found. The run's outputs hold under ``cameras`` how many are silent, heard, and too
        new to say.
    """
    from visionloop.monitoring.standing import write_standing
    from visionloop.monitoring.unjudged import of_silences

    judged = _silences(look)
    unseen = _unseen(look)
    silent = [one for one in judged if one.state == "silent"]
    newest = _newest(look, {one.camera for one in silent}) if silent else {}
    rows = [_silent_row(one, newest.get(one.camera, []), look.now) for one in silent]
    rows += [_unseen_row(one, look.now) for one in unseen]
    new = write_standing(look.run, [SILENT, UNSEEN], rows)
    states = {
        state: sum(one.state == state for one in judged) for state in ("silent", "heard", "too few")
    }
    metrics = {"n_cameras_silent": float(len(silent)), "n_classes_unseen": float(len(unseen))}
    few = of_silences(judged, look.loop.monitoring.silence_min_gaps)
    return Part(new, metrics, _page(judged, unseen), {"cameras": states}, few)


def _silences(look: Look) -> list[Silence]:
    from visionloop.monitoring.silence import silences

    thresholds = look.loop.monitoring
    if not thresholds.silence_significance:
        return []
    heard = _heard(look)
    # When the sources were looked at last: after that, nothing could be heard.
    runs = look.lake.stage_runs(where="stage == 'ingest'")["started_at"].to_pylist()
    arrivals = [moment for moments in heard.values() for moment in moments[-1:].tolist()]
    told = [one for one in runs if one] + [one.replace(tzinfo=UTC) for one in arrivals]
    until = max((one for one in told if one <= look.now), default=None)
    return silences(heard, until, thresholds) if until else []


def _cameras(look: Look, *columns: str) -> pa.Table:
    """Return a table with the camera of each sample, and columns of ``samples``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from visionloop.monitoring.cameras import camera_column, camera_names

    wanted = ["sample_id", "source", *columns]
    # A table gives its columns in its own order.
    samples = look.run.read("samples", columns=wanted).select(wanted)
    # Of the metadata, which can have hundreds of columns, only those that may name a camera.
    there = look.run.read("metadata", where="sample_id == ''").column_names
    asked = [one for one in look.loop.monitoring.camera_columns if one in there]
    metadata = look.run.read("metadata", columns=["sample_id", *asked]) if asked else None
    column = camera_column(metadata, look.loop.monitoring.camera_columns)
    if metadata is None or not column:
        return samples.rename_columns(["sample_id", "camera", *columns])
    named = pa.table(
        {"sample_id": metadata["sample_id"], "camera": camera_names(metadata, column)}
    ).filter(pc.is_valid(camera_names(metadata, column)))
    of_cameras = samples.join(named, "sample_id", join_type="inner")
    told = pc.is_in(samples["source"], value_set=pc.unique(of_cameras["source"]))
    # A source of which nobody says which camera it is: another one's metadata tell nothing of it.
    whole = samples.filter(pc.invert(told))
    whole = whole.append_column("camera", whole["source"])
    names = ["sample_id", "camera", *columns]
    return pa.concat_tables([of_cameras.select(names), whole.select(names)])


def _heard(look: Look) -> dict[str, np.ndarray[Any, Any]]:
    """Return when something came from each camera; what one ingest brought came at one moment."""
    from visionloop.monitoring.cameras import by_camera

    table = _cameras(look, "ingested_at")
    moments = table.group_by(["camera", "ingested_at"]).aggregate([]).drop_null()
    moments = moments.sort_by([("camera", "ascending"), ("ingested_at", "ascending")])
    at = moments["ingested_at"].cast("int64").to_numpy().astype("datetime64[us]")
    return {camera: at[rows] for camera, rows in by_camera(moments["camera"])}


def _newest(look: Look, cameras: set[str]) -> dict[str, list[str]]:
    """Return the newest samples of some cameras, the last thing that was heard of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _cameras(look, "ingested_at")
    table = table.filter(
        pc.is_in(table["camera"], value_set=pa.array(sorted(cameras), pa.string()))
    )
    table = table.sort_by([("ingested_at", "descending"), ("sample_id", "ascending")])
    newest: dict[str, list[str]] = {}
    for camera, sample in zip(
        table["camera"].to_pylist(), table["sample_id"].to_pylist(), strict=True
    ):
        if len(newest.setdefault(camera, [])) < _IMAGES:
            newest[camera].append(sample)
    return newest


def _silent_row(one: Silence, images: list[str], now: datetime) -> dict[str, Any]:
    from visionloop.monitoring.findings import SINCE, flag_row

    what = "gaps between its arrivals" if one.of == "gaps" else "days' longest gaps"
    evidence = {
        "reference": f"{one.n:,} {what} before",
        "unit": "hours",
        "images": images,
        SINCE: one.last.replace(tzinfo=UTC).isoformat(),
        "last_heard": f"{one.last:%Y-%m-%d %H:%M} UTC",
        "usual_gap_hours": one.usual_hours,
        "longest_gap_hours": one.longest_hours,
        "level": one.level,
    }
    return flag_row(one.camera, "camera", SILENT, one.hours, one.threshold_hours, evidence, now)


def _unseen(look: Look) -> list[Unseen]:
    from visionloop.monitoring.unseen import unseen_classes
    from visionloop.selection.in_service import model_in_service

    models = look.run.read("experiments", where="arm == 'loop'").to_pylist()
    model = model_in_service(models)
    learned = list(model["classes"] or []) if model else []
    known = set(look.loop.classes or learned)
    if not known:
        return []
    return unseen_classes(
        [*_of_labels(look, known), *_of_refused(look, known), *_of_replies(look, known)]
        + ([] if not look.loop.classes else _of_labels(look, set(learned), only=known)),
        look.loop.classes,
        learned,
    )


def _of_labels(look: Look, known: set[str], only: set[str] | None = None) -> list[Named]:
    """Return the classes that the labels which count now name, other than those that are known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from visionloop.labeling.answers import latest_boxes, latest_labels

    if not known:
        return []
    table = look.run.read("labels").combine_chunks()
    in_boxes = pc.struct_field(pc.list_flatten(table["boxes"]), "label")
    values = pa.array(sorted(known), pa.string())
    # Of a million labels only those of samples with a strange class become rows of Python's.
    strange = pc.and_(
        pc.is_valid(table["label"]), pc.invert(pc.is_in(table["label"], value_set=values))
    )
    rows = pc.list_parent_indices(table["boxes"]).filter(
        pc.and_(pc.is_valid(in_boxes), pc.invert(pc.is_in(in_boxes, value_set=values)))
    )
    samples = pc.unique(
        pa.chunked_array(
            [*table["sample_id"].filter(strange).chunks, *table["sample_id"].take(rows).chunks],
            pa.string(),
        )
    )
    answers = table.filter(pc.is_in(table["sample_id"], value_set=samples)).to_pylist()
    said: dict[str, list[str]] = {}
    for sample, label in latest_labels(answers).items():
        said.setdefault(label, []).append(sample)
    for sample, row in latest_boxes(answers).items():
        for box in row["boxes"] or []:
            if box["label"] is not None:
                said.setdefault(box["label"], []).append(sample)
    return [
        _named(label, "labels", ids)
        for label, ids in said.items()
        if label not in known and (only is None or label in only)
    ]


def _of_refused(look: Look, known: set[str]) -> list[Named]:
    """Return the classes of answers that were refused for them, of samples without a label yet."""
    from visionloop.labeling.merging import UNKNOWN_CLASS

    rows = look.run.read(
        "annotations", columns=["sample_id", "label"], where=f"reason == '{UNKNOWN_CLASS}'"
    ).to_pylist()
    if not rows:
        return []
    labelled = set(look.run.read("labels", columns=["sample_id"])["sample_id"].to_pylist())
    said: dict[str, list[str]] = {}
    for row in rows:
        if row["label"] and row["label"] not in known and row["sample_id"] not in labelled:
            said.setdefault(row["label"], []).append(row["sample_id"])
    return [_named(label, "answers that were refused", ids) for label, ids in said.items()]


def _of_replies(look: Look, known: set[str]) -> list[Named]:
    """Return the classes that deployed models answered with."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = look.run.read("confidences", columns=["endpoint", "label", "sample_id"])
    values = pa.array(sorted(known), pa.string())
    table = table.filter(
        pc.and_(pc.is_valid(table["label"]), pc.invert(pc.is_in(table["label"], value_set=values)))
    )
    said: dict[tuple[str, str], list[str | None]] = {}
    for row in table.to_pylist():
        said.setdefault((row["label"], row["endpoint"] or ""), []).append(row["sample_id"])
    return [_named(label, f"replies of {endpoint}", ids) for (label, endpoint), ids in said.items()]


def _named(label: str, where: str, ids: list[Any]) -> Named:
    from visionloop.monitoring.unseen import Named

    samples = tuple(sorted({one for one in ids if one})[:_IMAGES])
    return Named(label, where, samples, len(ids))


def _unseen_row(one: Unseen, now: datetime) -> dict[str, Any]:
    evidence = {
        "reference": f"{counted(len(one.known), 'class', 'classes')} of {one.unknown_to}",
        "unit": "times it was named",
        "images": one.samples[:_IMAGES],
        "unknown_to": one.unknown_to,
        "known": list(one.known[:50]),
        "named_in": {place.where: place.n for place in one.named},
    }
    from visionloop.monitoring.findings import flag_row

    return flag_row(one.label, "class", UNSEEN, float(one.n), 0.0, evidence, now)


def _page(judged: list[Silence], unseen: list[Unseen]) -> str:
    """Return the section about cameras, empty where there is nothing to say."""
    silent = [one for one in judged if one.state == "silent"]
    parts = []
    if judged:
        few = sum(one.state == "too few" for one in judged)
        parts.append("## Cameras\n")
        parts.append(
            f"{counted(len(silent), 'camera')} silent, {len(judged) - len(silent) - few:,} heard "
            f"from, {few:,} with too few arrivals to say."
        )
    if silent:
        rows = [
            (
                markdown_text(one.camera),
                f"{one.hours:,.1f}",
                f"{one.usual_hours:,.1f}",
                f"{one.threshold_hours:,.1f}",
            )
            for one in sorted(silent, key=lambda one: -one.hours / one.threshold_hours)
        ]
        header = ["camera", "silent for (hours)", "usual gap (hours)", "limit (hours)"]
        parts.append("\n" + markdown_table(header, rows))
    if unseen:
        header = ["class", "unknown to", "named", "in"]
        rows_of = [
            (
                markdown_text(one.label),
                one.unknown_to,
                one.n,
                markdown_text(", ".join(place.where for place in one.named)),
            )
            for one in unseen
        ]
        parts.append("\n## Classes never seen\n\n" + markdown_table(header, rows_of))
    return "\n".join(parts) + "\n" if parts else ""
