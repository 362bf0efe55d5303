"""From the lake's tables to what selection works on: the pool, the labelled, the holdout."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from visionloop.errors import InputError
from visionloop.labeling.answers import skipped_samples
from visionloop.labeling.asked import asked_or_selected
from visionloop.selection.config import SelectionConfig
from visionloop.selection.in_service import (
    age,
    finds_objects,
    is_about_objects,
    labels_of,
    model_in_service,
)
from visionloop.selection.lines import COMMITTEE_SCORES
from visionloop.selection.pool import Pool, Reference
from visionloop.selection.queries import resolve_queries
from visionloop.selection.spaces import Spaces, no_space

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
        labelled: Those of them that have a label: objects where the model in service finds such,
            see `visionloop.selection.in_service.is_about_objects`.
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
    task: str = "",
    extract: Extract | None = None,
) -> Material:
    """Read the lake at one version.

    Args:
        lake: The lake.
        config: Tells which tables are needed.
        classes: Classes of the loop; empty takes those of the model or of the labels.
        version: Lake version; empty for the newest.
        task: Task of the loop; empty lets the labels tell what it is.
        extract: The samples that the pool consists of, with their vectors; None for all.

    Raises:
        InputError: The embedding space is not there, or is not clear.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def read_all(table: str, *columns: str, where: str | None = None) -> pa.Table:
        return lake.read(table, columns=list(columns) or None, where=where, version=version or None)

    read = extract.read if extract else read_all
    measures = MEASURES if _needs_metadata(config) else ()
    samples = read("samples", "sample_id", "split", "fingerprint", *measures)
    models = read("experiments", where="arm == 'loop'").to_pylist()
    model = model_in_service(models)
    space = space_of_lake(lake, config, version)
    named_spaces = [space, *(line.input.space for line in config.strategies)]
    # As columns: of a million samples, rows of Python's would hold more than their embeddings.
    mine = samples.filter(pc.equal(samples["split"], "pool")).sort_by("sample_id")
    holdout = samples.filter(pc.equal(samples["split"], "holdout"))
    del samples
    pa.default_memory_pool().release_unused()  # before the embeddings come
    spaces = extract or Spaces(lake, named_spaces, version)
    ids, excluded = spaces.split(mine["sample_id"].to_pylist())
    answers = read("labels").to_pylist()
    detector = finds_objects(lake, model, version)
    names = labels_of(answers, objects=is_about_objects(detector, answers, task))
    config, wanted = resolve_queries(
        config.model_copy(update={"space": space}), read, labels=names, embedded=spaces.everywhere
    )
    metadata = (
        _metadata(read, ids, _of(mine, ids).select(measures)) if _needs_metadata(config) else {}
    )
    known_classes = list(model["classes"] or []) if model else []
    marked_ids = spaces.embedded(sorted(names))
    marked = _of(mine, marked_ids)
    marked_ids = marked["sample_id"].to_pylist()
    of_marked = spaces.vectors(marked_ids)
    of_wanted = spaces.vectors(wanted) if wanted else {}
    if len(ids) < mine.num_rows:
        mine = _of(mine, ids)
    of_pool = spaces.give_up(ids) if isinstance(spaces, Spaces) else spaces.vectors(ids)
    pool = Pool.build(
        ids,
        embeddings=of_pool,
        scores=deployed_scores(read, ids),
        metadata=metadata,
        **_predictions(read, model, ids, known_classes, detector),
        committee=_committee(read, config, model, models, ids, known_classes),
        classes=known_classes or list(classes),
        fingerprints=mine["fingerprint"].to_pylist(),
        flags=_flags(read, ids, config),
    )
    pool = replace(pool, model=str(model["model_id"]) if model else "")
    if extract:
        pool = replace(pool, harvested=extract.harvested, partial=True)
    place = {sample: i for i, sample in enumerate(ids)} if metadata else {}
    labelled = Reference.build(
        marked_ids,
        embeddings=of_marked,
        fingerprints=marked["fingerprint"].to_pylist(),
        # Of a shard some are not in the pool; no objective that it weighs looks at theirs.
        metadata={name: [values[place[s]] if s in place else None for s in marked_ids]
                  for name, values in metadata.items()},
        labels=[name for sample in marked_ids for name in names[sample]],
    )  # fmt: skip
    taken = asked_or_selected(read) | skipped_samples(answers)
    return Material(
        pool,
        labelled,
        Reference.build(
            holdout["sample_id"].to_pylist(),
            fingerprints=holdout["fingerprint"].to_pylist(),
        ),
        frozenset(taken),
        len(classes or known_classes or {c for own in names.values() for c in own}) or None,
        model["model_id"] if model else "",
        space,
        excluded,
        config,
        Reference.build(wanted, embeddings=of_wanted),
    )


def space_of_lake(lake: Lake, config: SelectionConfig, version: str) -> str:
    """Return the base space of the newest inference, or the only one there is.

    The base space, not the model's own: it covers all samples, is the same in every round, and does
    not carry the blind spots of a model that has seen few labels. Spaces are never mixed: where
    several could be meant and nothing tells, that is an error.

    Args:
        lake: The lake.
        config: Its `space`, where it names one.
        version: Lake version; empty for the newest.

    Raises:
        InputError: See above, or the configuration names a space that is not there.
    """
    spaces = lake.spaces(version=version or None)
    if config.space:
        if config.space not in spaces:
            raise no_space(config.space, spaces)
        return config.space
    base = space_of_inference(lake, version)
    if base in spaces:
        return base
    if len(spaces) > 1:
        raise InputError(
            f"the lake has {len(spaces)} embedding spaces and nothing tells which to select in",
            where="selection.space",
            remedy=f"Name one of {', '.join(spaces)}",
        )
    return spaces[0] if spaces else ""


def space_of_inference(lake: Lake, version: str) -> str:
    """Return the base space that the newest `infer` up to a version wrote; empty where none did.

    Args:
        lake: The lake.
        version: Lake version; empty for the newest.
    """
    runs = lake.stage_runs().sort_by("sequence").to_pylist()
    space = ""
    for row in runs:
        if row["stage"] == "infer":
            space = json.loads(row["outputs"] or "{}").get("space", space)
        if version and row["version"] == version:
            break
    return str(space)


def _predictions(
    read: Any,
    model: dict[str, Any] | None,
    ids: list[str],
    classes: list[str],
    detector: bool | None,
) -> dict[str, Any]:
    """Return what the model in service predicted, as arguments of `Pool.build`."""
    if model is None or not classes or detector is None:
        return {}
    rows = read(
        "predictions",
        "sample_id",
        "probabilities",
        "boxes",
        where=f"model_id == '{model['model_id']}'",
    )
    if detector:
        # Null: it was not looked for objects there.
        found = dict(zip(rows["sample_id"].to_pylist(), rows["boxes"].to_pylist(), strict=True))
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
    for row in sorted(alike, key=age, reverse=True):
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


def deployed_scores(read: Any, ids: list[str]) -> dict[str, np.ndarray]:
    """Return the newest harvested uncertainty of some samples; none where none was harvested.

    Args:
        read: Reads columns of a table of the lake: ``read(table, *columns)``.
        ids: The samples.

    Returns:
        float64 [n] by score, such as `deployed_margin`; NaN where a sample was not harvested.
    """
    rows = read("confidences", "sample_id", "occurred_at", "event_id", "row", *SCORES).to_pylist()
    place = {sample: i for i, sample in enumerate(ids)} if rows else {}
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
    rows = read("flags", "subject", "kind", where="subject_type == 'sample'").to_pylist()
    place = {sample: i for i, sample in enumerate(ids)} if rows else {}
    result = {kind: np.zeros(len(ids), dtype=np.bool_) for kind in config.flags_left_out}
    for row in rows:
        if row["kind"] in result and row["subject"] in place:
            result[row["kind"]][place[row["subject"]]] = True
    return result


def _needs_metadata(config: SelectionConfig) -> bool:
    return any(line.input.type == "METADATA" for line in config.strategies)


def _of(samples: pa.Table, ids: list[str]) -> pa.Table:
    """Return the rows of some samples, in the order in which they are there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return samples.filter(pc.is_in(samples["sample_id"], value_set=pa.array(ids, pa.string())))


def _metadata(read: Any, ids: list[str], measures: pa.Table) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {n: measures[n].to_pylist() for n in measures.column_names}
    table = read("metadata")
    place = {sample: i for i, sample in enumerate(ids)}
    rows = [place.get(sample) for sample in table["sample_id"].to_pylist()]
    for name in table.column_names:
        if name in _NOT_METADATA:
            continue
        values: list[Any] = [None] * len(ids)
        for row, value in zip(rows, table[name].to_pylist(), strict=True):
            if row is not None and value is not None:
                values[row] = value
        columns[name] = values
    return columns
