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
from visionloop.selection.pool import Pool, Reference

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.lake import Lake

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
    """

    pool: Pool
    labelled: Reference
    holdout: Reference
    taken: frozenset[str]
    n_classes: int | None
    model_id: str
    space: str
    excluded: Mapping[str, int]


def read_material(
    lake: Lake,
    config: SelectionConfig,
    *,
    classes: Collection[str] = (),
    version: str = "",
) -> Material:
    """Read the lake at one version.

    Args:
        lake: The lake.
        config: Tells which tables are needed.
        classes: Classes of the loop; empty takes those of the model or of the labels.
        version: Lake version; empty for the newest.

    Raises:
        InputError: The embedding space is not there, or is not clear.
    """

    def read(table: str, *columns: str, where: str | None = None) -> pa.Table:
        return lake.read(table, columns=list(columns) or None, where=where, version=version or None)

    measures = MEASURES if _needs_metadata(config) else ()
    samples = read("samples", "sample_id", "split", "fingerprint", *measures)
    model = _model_in_service(read("experiments", where="arm == 'loop'"))
    space = _space(lake, config, version)
    embedded, vectors = lake.embeddings(space, version=version or None) if space else ([], None)
    place = {sample: row for row, sample in enumerate(embedded)}
    everyone = samples.to_pylist()
    mine = [row for row in everyone if row["split"] == "pool"]
    inside = [row for row in mine if not space or row["sample_id"] in place]
    ids = [row["sample_id"] for row in inside]
    answers = read("labels").to_pylist()
    names = latest_labels(answers)
    metadata = _metadata(read, inside, measures) if _needs_metadata(config) else {}

    def embeddings_of(rows: list[int]) -> dict[str, Any]:
        return {} if vectors is None else {space: vectors[[place[ids[i]] for i in rows]]}

    known_classes = list(model["classes"] or []) if model else []
    prints = [row["fingerprint"] for row in inside]
    pool = Pool.build(
        ids,
        embeddings=embeddings_of(list(range(len(ids)))),
        scores=_deployed(read, ids),
        metadata=metadata,
        probabilities=_probabilities(read, model, ids, known_classes),
        classes=known_classes or list(classes),
        fingerprints=prints,
        flags=_flags(read, ids, config),
    )
    rows = [i for i, sample in enumerate(ids) if sample in names]
    labelled = Reference.build(
        [ids[i] for i in rows],
        embeddings=embeddings_of(rows),
        fingerprints=[prints[i] for i in rows],
        metadata={name: [values[i] for i in rows] for name, values in metadata.items()},
    )
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
        {f"not embedded in {space}": len(mine) - len(inside)} if len(mine) > len(inside) else {},
    )


def _model_in_service(experiments: pa.Table) -> dict[str, Any] | None:
    serving = [row for row in experiments.to_pylist() if row["state"] == "in_service"]
    return max(serving, key=lambda row: (str(row["trained_at"]), row["model_id"]), default=None)


def _space(lake: Lake, config: SelectionConfig, version: str) -> str:
    """Return the base space of the newest inference, or the only one there is.

    The base space, not the model's own: it covers all samples, is the same in every round, and does
    not carry the blind spots of a model that has seen few labels. Spaces are never mixed: where
    several could be meant and nothing tells, that is an error.
    """
    spaces = lake.spaces(version=version or None)
    if config.space:
        if config.space not in spaces:
            raise InputError(
                f"the lake has no embeddings of the space {config.space!r}",
                where="selection.space",
                remedy=f"Use one of {', '.join(spaces)}" if spaces else "Run the stage infer first",
            )
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


def _probabilities(
    read: Any, model: dict[str, Any] | None, ids: list[str], classes: list[str]
) -> np.ndarray | None:
    if model is None or not classes:
        return None
    rows = read(
        "predictions", "sample_id", "probabilities", where=f"model_id == '{model['model_id']}'"
    )
    place = {sample: i for i, sample in enumerate(ids)}
    result = np.full((len(ids), len(classes)), np.nan, dtype=np.float32)
    found = zip(rows["sample_id"].to_pylist(), rows["probabilities"].to_pylist(), strict=True)
    for sample, values in found:
        if sample in place and values is not None:
            if len(values) != len(classes):
                raise InputError(
                    f"a prediction has {len(values)} probabilities for {len(classes)} classes",
                    where=f"predictions of {model['model_id']}, sample {sample}",
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
