"""All that the lake knows of one image, in words: for the page of that image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.monitoring.ages import with_ages
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.live.columns import METADATA, moment, told
from visionloop.monitoring.live.index import Index
from visionloop.monitoring.report.reading import Reader, named_model
from visionloop.monitoring.telling import evidence_lines, evidence_of
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.lake import Lake

# So many inferences of an image in production are told, the newest first.
INFERENCES = 20
# Spaces of so many vectors are searched for neighbours without being asked to.
CHEAP_VECTORS = 50_000
NEIGHBOURS = 12


@dataclass(frozen=True)
class Flag:
    """A flag of the image.

    Attributes:
        kind: Its name.
        title: Its kind in words.
        severity: ``info``, ``warning`` or ``error``.
        meaning: What it says.
        lines: The evidence, a line each.
        images: Ids of images that it names.
        at: When it was flagged.
    """

    kind: str
    title: str
    severity: str
    meaning: str
    lines: tuple[str, ...]
    images: tuple[str, ...]
    at: datetime | None


@dataclass(frozen=True)
class Event:
    """Something that happened to the image: when, in which round, and what."""

    at: datetime | None
    round_id: str
    text: str


@dataclass(frozen=True)
class Details:
    """What is known of an image.

    Attributes:
        facts: Columns of the index with a value: title, name, value in words, value as it stands.
        metadata: Fields of the sidecar with a value, the same.
        labels: Rows of ``labels``, the newest first: label, origin, round, time.
        predictions: Model in words, what it said, confidence, each class with its probability.
        flags: Its flags, the newest first.
        why: Why it was picked, in words, a tuple a pick: round, words.
        events: What happened to it, in order.
    """

    facts: tuple[tuple[str, str, str], ...]
    metadata: tuple[tuple[str, str, str], ...]
    labels: tuple[Mapping[str, Any], ...]
    predictions: tuple[Mapping[str, Any], ...]
    flags: tuple[Flag, ...]
    why: tuple[tuple[str, tuple[str, ...]], ...]
    events: tuple[Event, ...]


def details_of(lake: Lake, index: Index, sample_id: str) -> Details:
    """Return what is known of an image that the index holds.

    Args:
        lake: The lake.
        index: Its images.
        sample_id: The image.

    Raises:
        VisionloopError: The lake cannot be read.
    """
    from pyiceberg.expressions import EqualTo

    from visionloop.monitoring.report.galleries import why

    def read(table: str, key: str = "sample_id") -> list[dict[str, Any]]:
        where = EqualTo(term=key, value=sample_id)
        rows: list[dict[str, Any]] = lake.read(
            table, where=where, version=index.version
        ).to_pylist()
        return rows

    row = index.rows([index.row_of(sample_id)])[0]
    models = _models(lake, index.version)
    labels = sorted(read("labels"), key=lambda one: _moment(one["created_at"]), reverse=True)
    predictions = sorted(
        read("predictions"), key=lambda one: _moment(one["predicted_at"]), reverse=True
    )
    picks = sorted(read("selections"), key=lambda one: one["round_id"], reverse=True)
    held = lake.read("flags", where=EqualTo(term="subject", value=sample_id), version=index.version)
    # Of an image no silence is told, which alone asks when the sources were looked at.
    aged = with_ages(held, datetime.now(UTC), None).to_pylist()
    flags = [one for one in aged if one["subject_type"] in ("sample", "label")]
    flags.sort(key=lambda one: _moment(one["flagged_at"]), reverse=True)
    asked = read("label_requests")
    trained = read("training_sets")
    inferred = sorted(
        read("confidences"), key=lambda one: _moment(one["occurred_at"]), reverse=True
    )[:INFERENCES]
    return Details(
        _facts(index, row, metadata=False),
        _facts(index, row, metadata=True),
        tuple(_label(one, index.upcoming) for one in labels),
        tuple(_prediction(one, models) for one in predictions),
        tuple(flag_of(one, index.upcoming) for one in flags),
        tuple((round_name(one["round_id"]), why(one)) for one in picks),
        _events(row, labels, predictions, picks, flags, asked, trained, inferred, models),
    )


def _facts(
    index: Index, row: Mapping[str, Any], *, metadata: bool
) -> tuple[tuple[str, str, str], ...]:
    found = []
    for name, column in index.columns.items():
        value = row[name]
        if name.startswith(METADATA) is metadata and (text := index.words(name, value)):
            found.append((column.title, name, text))
    return tuple(found)


@dataclass(frozen=True)
class _Models:
    """Names and classes of models by id, and the model of each training set."""

    names: Mapping[str, str]
    classes: Mapping[str, tuple[str, ...]]
    of_set: Mapping[str, str]

    def words(self, model_id: str | None) -> str:
        return f"the {named_model(self.names, model_id)}"


def _models(lake: Lake, version: str) -> _Models:
    reader = Reader(lake, version)
    return _Models(
        reader.model_names,
        {row["model_id"]: tuple(row["classes"] or ()) for row in reader.experiments},
        {row["training_set"]: row["model_id"] for row in reader.experiments if row["training_set"]},
    )


def _label(row: Mapping[str, Any], upcoming: str = "") -> dict[str, Any]:
    said = row["label"] if row["label"] is not None else _without(row)
    boxes = [
        f"{box['label'] or 'an object'} at {told(box['x_min'])}, {told(box['y_min'])} to "
        f"{told(box['x_max'])}, {told(box['y_max'])} pixels"
        for box in row["boxes"] or ()
    ]
    return {
        "said": said,
        "boxes": boxes,
        "origin": _ORIGINS.get(row["origin"] or "", row["origin"] or "somebody"),
        "round": round_name(row["round_id"] or "", upcoming),
        "at": moment(row["created_at"]),
        "answers": row["n_annotations"],
        "quality": told(row["quality"]),
    }


def _without(row: Mapping[str, Any]) -> str:
    words = {
        "skipped": "skipped: it cannot be labelled",
        "conflict": "people disagree",
        "withdrawn": "taken back",
    }
    return words.get(row["origin"] or "", "objects")


_ORIGINS = {
    "import": "an import",
    "oracle": "the oracle",
    "csv": "a CSV file",
    "label_studio": "Label Studio",
    "model": "a model, by itself",
}


def _prediction(row: Mapping[str, Any], models: _Models) -> dict[str, Any]:
    classes = models.classes.get(row["model_id"], ())
    values = row["probabilities"] or []
    pairs = list(zip(classes, values, strict=True)) if len(classes) == len(values) else []
    pairs.sort(key=lambda pair: -pair[1])
    objects = [
        f"{box['label'] or 'an object'}" + (f", {max(box['scores']):.1%}" if box["scores"] else "")
        for box in row["boxes"] or ()
    ]
    sure = row["confidence"]
    return {
        "model": models.words(row["model_id"]),
        "said": row["label"] or "",
        "objects": objects,
        "confidence": f"{sure:.2%} sure as answered" if sure is not None else "",
        "classes": [(name, f"{value:.2%}") for name, value in pairs[:5]],
        "more": max(0, len(pairs) - 5),
        "at": moment(row["predicted_at"]),
    }


def flag_of(row: Mapping[str, Any], upcoming: str = "") -> Flag:
    """Return a row of ``flags`` in words.

    Args:
        row: The row.
        upcoming: Id of the round that was not opened yet.
    """
    kind = KINDS.get(row["kind"])
    images = evidence_of(row).get("images") or ()
    return Flag(
        row["kind"],
        kind.title if kind else row["kind"].replace("_", " ").capitalize(),
        kind.severity if kind else "warning",
        kind.meaning if kind else "",
        tuple(evidence_lines(row, upcoming)),
        tuple(str(one) for one in images if one != row["subject"]),
        row["flagged_at"],
    )


def _events(
    row: Mapping[str, Any],
    labels: list[dict[str, Any]],
    predictions: list[dict[str, Any]],
    picks: list[dict[str, Any]],
    flags: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    trained: list[dict[str, Any]],
    inferred: list[dict[str, Any]],
    models: _Models,
) -> tuple[Event, ...]:
    """Return what happened to an image, the oldest first."""
    events = [Event(row["ingested_at"], row["round"] or "", f"Came in from {row['source']}")]
    for one in flags:
        title = KINDS[one["kind"]].title if one["kind"] in KINDS else one["kind"].replace("_", " ")
        events.append(Event(one["flagged_at"], one["round_id"] or "", f"Flagged: {title}"))
    for one in predictions:
        said = f" as {one['label']}" if one["label"] else ""
        words = f"Predicted{said} by {models.words(one['model_id'])}"
        events.append(Event(one["predicted_at"], one["round_id"] or "", words))
    for one in picks:
        arm = "Drawn at random" if one["arm"] == "random" else "Picked for labelling"
        events.append(Event(one["selected_at"], one["round_id"] or "", arm))
    for one in asked:
        recalled = ", and the question was taken back" if one["recalled"] else ""
        words = f"Its label was asked for ({one['purpose'] or 'training'}){recalled}"
        events.append(Event(one["requested_at"], one["round_id"] or "", words))
    for one in labels:
        label = _label(one)
        words = f"Labelled {label['said']} by {label['origin']}"
        if one["label"] is None:
            words = f"Answered: {label['said']}"
        events.append(Event(one["created_at"], one["round_id"] or "", words))
    for one in trained:
        if one["training_set"] in models.of_set:
            # A training set has no time of its own; its round has.
            who = models.words(models.of_set[one["training_set"]])
            events.append(Event(None, one["round_id"] or "", f"Trained on by {who}"))
    for one in inferred:
        said = f": {one['label']}" if one["label"] else ""
        words = f"Seen in production at {one['endpoint']}{said}"
        events.append(Event(one["occurred_at"], one["round_id"] or "", words))
    return tuple(sorted(events, key=lambda one: (one.round_id, one.at is None, _moment(one.at))))


def _moment(value: datetime | None) -> float:
    return value.timestamp() if value is not None else float("-inf")


def neighbours_of(lake: Lake, index: Index, sample_id: str) -> list[tuple[str, float]]:
    """Return the images nearest to one in the index's space, with cosine distances, nearest first.

    Cost: a pass over all vectors of the space, a part at a time.

    Args:
        lake: The lake.
        index: Its images.
        sample_id: The image.

    Returns:
        Nothing where the image, or the lake, has no vector.
    """
    import numpy as np

    if not index.space:
        return []
    found, vector = lake.embeddings(index.space, [sample_id], version=index.version)
    if not found:
        return []
    query = vector[0] / max(float(np.linalg.norm(vector[0])), 1e-12)
    best: list[tuple[float, str]] = []
    for ids, block in lake.embedding_blocks(index.space, version=index.version):
        norms = np.maximum(np.sqrt(np.einsum("ij,ij->i", block, block)), 1e-12)
        likeness = (block @ query) / norms
        likeness[~np.isfinite(likeness)] = -np.inf
        count = min(NEIGHBOURS + 1, len(likeness))
        top = np.argpartition(-likeness, count - 1)[:count]
        names = ids.take(_places(top)).to_pylist()
        best += [(float(likeness[place]), name) for place, name in zip(top, names, strict=True)]
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[: NEIGHBOURS + 1]
    return [(name, max(0.0, 1 - like)) for like, name in best if name != sample_id][:NEIGHBOURS]


def _places(places: Any) -> Any:
    import pyarrow as pa

    return pa.array(places)


def is_cheap(lake: Lake, index: Index) -> bool:
    """Whether neighbours are looked for without being asked for."""
    from visionloop.lake.parts import rows_of_space

    if not index.space:
        return False
    return rows_of_space(lake, index.space, index.version) <= CHEAP_VECTORS
