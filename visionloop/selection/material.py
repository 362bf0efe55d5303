"""From the lake's tables to what selection works on: the pool, the labelled, the holdout."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visionloop.errors import InputError
from visionloop.labeling.answers import latest_labels, skipped_samples
from visionloop.selection.config import SelectionConfig
from visionloop.selection.lines import COMMITTEE_SCORES
from visionloop.selection.pool import Pool, Reference, named
from visionloop.selection.queries import resolve_queries

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.lake import Lake
    from visionloop.selection.extract import Extract

SCORES = ("margin", "least_confidence", "entropy")
# What the lake measures of every image counts as metadata, beside what the sidecars brought.
MEASURES = ("width", "height", "sharpness", "brightness", "contrast")
_NOT_METADATA = frozenset({"sample_id", "raw", "round_id", "run_id"})


@dataclass(frozen=True)
class Material:
    """All that one selection needs to know.

    Args:
        pool: Embedded samples of the split `pool`, labelled or not.
        labelled: Those of them that have a label.
        holdout: The frozen holdout.
        taken: Ids that were selected, or sent to labelling, before.
        n_classes: Number of classes, None when nothing tells.
        model_id: The model in service, whose predictions are used; "" on a cold start.
        space: The embedding space; "" when there is none.
        excluded: Samples of the split that are not in the pool, by reason.
        config: The configuration with what the lake tells filled in: the space, sets of samples.
        queries: The samples that SIMILARITY finds more of, wherever they are in the lake.
    """

    pool: Pool
    labelled: Reference
    holdout: Reference
    taken: frozenset[str]
    n_classes: int | None
    model_id: str
    space: str
    excluded: Mapping[str, int]
    config: SelectionConfig
    queries: Reference


def read_material(
    lake: Lake,
    config: SelectionConfig,
    *,
    classes: Collection[str] = (),
    version: str = "",
    extract: Extract | None = None,
) -> Material:
    """Read the lake at one version.

    Args:
        lake: The lake.
        config: Tells which tables are needed.
        classes: Classes of the loop; empty takes those of the model or of the labels.
        version: Lake version; empty for the newest.
        extract: The samples that the pool consists of, with their vectors; None for all.

    Raises:
        InputError: The embedding space is not there, or is not clear.
    """

    def read_all(table: str, *columns: str, where: str | None = None) -> pa.Table:
        return lake.read(table, columns=list(columns) or None, where=where, version=version or None)

    read = extract.read if extract else read_all
    measures = MEASURES if _needs_metadata(config) else ()
    samples = read("samples", "sample_id", "split", "fingerprint", *measures)
    models = read("experiments", where="arm == 'loop'").to_pylist()
    model = model_in_service(models)
    space = space_of_lake(lake, config, version)
    named_spaces = [space, *(line.input.space for line in config.strategies)]
    spaces = extract or _Spaces(lake, named_spaces, version)
    everyone = samples.to_pylist()
    mine = [row for row in everyone if row["split"] == "pool"]
    inside, excluded = spaces.split(mine)
    ids = [row["sample_id"] for row in inside]
    answers = read("labels").to_pylist()
    names = latest_labels(answers)
    config, wanted = resolve_queries(
        config.model_copy(update={"space": space}), read, labels=names, embedded=spaces.everywhere
    )
    metadata = _metadata(read, inside, measures) if _needs_metadata(config) else {}
    known_classes = list(model["classes"] or []) if model else []
    prints = [row["fingerprint"] for row in inside]
    pool = Pool.build(
        ids,
        embeddings=spaces.vectors(ids),
        scores=_deployed(read, ids),
        metadata=metadata,
        **_predictions(read, model, ids, known_classes),
        committee=_committee(read, config, model, models, ids, known_classes),
        classes=known_classes or list(classes),
        fingerprints=prints,
        flags=_flags(read, ids, config),
    )
    marked = spaces.embedded([row for row in mine if row["sample_id"] in names])
    marked_ids = [row["sample_id"] for row in marked]
    place = {sample: i for i, sample in enumerate(ids)} if metadata else {}
    labelled = Reference.build(
        marked_ids,
        embeddings=spaces.vectors(marked_ids),
        fingerprints=[row["fingerprint"] for row in marked],
        # Of an extract some are not in the pool; no objective that it is for looks at theirs.
        metadata={name: [values[place[s]] if s in place else None for s in marked_ids]
                  for name, values in metadata.items()},
        labels=[names[sample] for sample in marked_ids],
    )  # fmt: skip
    holdout = [row for row in everyone if row["split"] == "holdout"]
    taken = set(read("label_requests", "sample_id")["sample_id"].to_pylist())
    taken |= set(read("selections", "sample_id")["sample_id"].to_pylist())
    taken |= skipped_samples(answers)
    return Material(
        pool,
        labelled,
        Reference.build(
            [row["sample_id"] for row in holdout],
            fingerprints=[row["fingerprint"] for row in holdout],
        ),
        frozenset(taken),
        len(classes or known_classes or set(names.values())) or None,
        model["model_id"] if model else "",
        space,
        excluded,
        config,
        Reference.build(wanted, embeddings=spaces.vectors(wanted) if wanted else {}),
    )


class _Spaces:
    """The embeddings that a selection needs, each space read once.

    Attributes:
        everywhere: Samples that have an embedding in every one of them.
    """

    def __init__(self, lake: Lake, names: list[str], version: str) -> None:
        self._place: dict[str, dict[str, int]] = {}
        self._vectors: dict[str, Any] = {}
        have = lake.spaces(version=version or None)
        for name in dict.fromkeys(name for name in names if name):
            if name not in have:
                raise _no_space(name, have)
            embedded, vectors = lake.embeddings(name, version=version or None)
            self._place[name] = {sample: row for row, sample in enumerate(embedded)}
            self._vectors[name] = vectors
        members = [set(place) for place in self._place.values()]
        self.everywhere: set[str] = set.intersection(*members) if members else set()

    def split(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Return the rows of samples with all embeddings, and how many others, by space."""
        excluded: dict[str, int] = {}
        for name, place in self._place.items():
            left = [row for row in rows if row["sample_id"] in place]
            if len(left) < len(rows):
                excluded[f"not embedded in {name}"] = len(rows) - len(left)
            rows = left
        return rows, excluded

    def embedded(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of samples with all embeddings."""
        return self.split(rows)[0]

    def vectors(self, ids: list[str]) -> dict[str, Any]:
        """Return the vectors of some samples, by space.

        Raises:
            InputError: A sample has none.
        """
        result = {}
        for name, place in self._place.items():
            missing = [sample for sample in ids if sample not in place]
            if missing:
                raise no_vector(missing, name)
            result[name] = self._vectors[name][[place[sample] for sample in ids]]
        return result


def model_in_service(models: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the loop's model in service among rows of `experiments`, None on a cold start."""
    return max((row for row in models if row["state"] == "in_service"), key=_age, default=None)


def no_vector(sample_ids: list[str], space: str) -> InputError:
    """Return the error of samples that were asked for and have no vector."""
    return InputError(
        f"{len(sample_ids)} samples have no embedding in the space {space!r}: " + named(sample_ids),
        where="selection.strategies",
        remedy="Give the ids of samples of this lake, or run the stage infer first",
    )


def _age(model: dict[str, Any]) -> tuple[str, str]:
    return str(model["trained_at"]), str(model["model_id"])


def _no_space(name: str, have: Collection[str]) -> InputError:
    return InputError(
        f"the lake has no embeddings of the space {name!r}",
        where="selection.space",
        remedy=f"Use one of {', '.join(have)}" if have else "Run the stage infer first",
    )


def space_of_lake(lake: Lake, config: SelectionConfig, version: str) -> str:
    """Return the base space of the newest inference, or the only one there is.

    The base space, not the model's own: it covers all samples, is the same in every round, and does
    not carry the blind spots of a model that has seen few labels. Spaces are never mixed: where
    several could be meant and nothing tells, that is an error.
    """
    spaces = lake.spaces(version=version or None)
    if config.space:
        if config.space not in spaces:
            raise _no_space(config.space, spaces)
        return config.space
    base = _space_of_inference(lake, version)
    if base in spaces:
        return base
    if len(spaces) > 1:
        raise InputError(
            f"the lake has {len(spaces)} embedding spaces and nothing tells which to select in",
            where="selection.space",
            remedy=f"Name one of {', '.join(spaces)}",
        )
    return spaces[0] if spaces else ""


def _space_of_inference(lake: Lake, version: str) -> str:
    runs = lake.stage_runs().sort_by("sequence").to_pylist()
    space = ""
    for row in runs:
        if row["stage"] == "infer":
            space = json.loads(row["outputs"] or "{}").get("space", space)
        if version and row["version"] == version:
            break
    return str(space)


def _predictions(
    read: Any, model: dict[str, Any] | None, ids: list[str], classes: list[str]
) -> dict[str, Any]:
    """Return what the model in service predicted, as arguments of `Pool.build`."""
    import pyarrow.compute as pc

    if model is None or not classes:
        return {}
    rows = read(
        "predictions",
        "sample_id",
        "probabilities",
        "boxes",
        where=f"model_id == '{model['model_id']}'",
    )
    # A list that is null comes back empty, so a classifier is told by its probabilities.
    longest = pc.max(pc.list_value_length(rows["probabilities"])).as_py() or 0
    if rows.num_rows and not longest:
        boxes = [given or [] for given in rows["boxes"].to_pylist()]
        found = dict(zip(rows["sample_id"].to_pylist(), boxes, strict=True))
        return {"boxes": [found.get(sample) for sample in ids]}
    return {"probabilities": _probabilities(rows, model["model_id"], ids, len(classes))}


def _committee(
    read: Any,
    config: SelectionConfig,
    model: dict[str, Any] | None,
    models: list[dict[str, Any]],
    ids: list[str],
    classes: list[str],
) -> np.ndarray | None:
    """Return what the newest models predicted, float32 [M, n, C]; None where nobody asks."""
    scores = {line.input.score for line in config.strategies}
    if model is None or not scores & set(COMMITTEE_SCORES):
        return None
    alike = [row for row in models if list(row["classes"] or []) == classes]
    members = []
    for row in sorted(alike, key=_age, reverse=True):
        found = read(
            "predictions", "sample_id", "probabilities", where=f"model_id == '{row['model_id']}'"
        )
        answers = _probabilities(found, row["model_id"], ids, len(classes))
        if np.isfinite(answers).any():
            members.append(answers)
        if len(members) == config.committee:
            break
    return np.stack(members) if members else None


def _probabilities(rows: pa.Table, model_id: str, ids: list[str], classes: int) -> np.ndarray:
    place = {sample: i for i, sample in enumerate(ids)}
    result = np.full((len(ids), classes), np.nan, dtype=np.float32)
    found = zip(rows["sample_id"].to_pylist(), rows["probabilities"].to_pylist(), strict=True)
    for sample, values in found:
        if sample in place and values:
            if len(values) != classes:
                raise InputError(
                    f"a prediction has {len(values)} probabilities for {classes} classes",
                    where=f"predictions of {model_id}, sample {sample}",
                )
            result[place[sample]] = values
    return result


def _deployed(read: Any, ids: list[str]) -> dict[str, np.ndarray]:
    """Return the newest harvested uncertainty of each sample, by score; NaN where none was."""
    rows = read("confidences", "sample_id", "occurred_at", "event_id", "row", *SCORES).to_pylist()
    place = {sample: i for i, sample in enumerate(ids)}
    known = [row for row in rows if row["sample_id"] in place]
    if not known:
        return {}
    known.sort(key=lambda row: (str(row["occurred_at"]), row["event_id"], row["row"] or 0))
    result = {f"deployed_{name}": np.full(len(ids), np.nan) for name in SCORES}
    for row in known:
        for name in SCORES:
            value = row[name]
            result[f"deployed_{name}"][place[row["sample_id"]]] = np.nan if value is None else value
    # Stored as float32: 1 + 1e-7 is still 1.
    return {name: np.clip(values, 0.0, 1.0) for name, values in result.items()}


def _flags(read: Any, ids: list[str], config: SelectionConfig) -> dict[str, np.ndarray]:
    if not config.exclude_flags:
        return {}
    rows = read("flags", "subject", "kind", where="subject_type == 'sample'").to_pylist()
    place = {sample: i for i, sample in enumerate(ids)}
    result = {kind: np.zeros(len(ids), dtype=np.bool_) for kind in config.exclude_flags}
    for row in rows:
        if row["kind"] in result and row["subject"] in place:
            result[row["kind"]][place[row["subject"]]] = True
    return result


def _needs_metadata(config: SelectionConfig) -> bool:
    return any(line.input.type == "METADATA" for line in config.strategies)


def _metadata(
    read: Any, inside: list[dict[str, Any]], measures: Collection[str]
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [row[name] for row in inside] for name in measures}
    table = read("metadata")
    place = {row["sample_id"]: i for i, row in enumerate(inside)}
    rows = [place.get(sample) for sample in table["sample_id"].to_pylist()]
    for name in table.column_names:
        if name in _NOT_METADATA:
            continue
        values: list[Any] = [None] * len(inside)
        for row, value in zip(rows, table[name].to_pylist(), strict=True):
            if row is not None and value is not None:
                values[row] = value
        columns[name] = values
    return columns
