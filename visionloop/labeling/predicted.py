"""What the model in service takes samples for that people are asked about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from visionloop.lake import parts
from visionloop.selection.in_service import age, model_in_service

if TYPE_CHECKING:
    import numpy as np

    from visionloop.lake import Lake


def predictions(
    lake: Lake, ids: Collection[str], version: str = ""
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the model in service, and its rows of `predictions` by sample; empty without one.

    Args:
        lake: The lake.
        ids: The samples.
        version: Lake version to read at; empty for the newest.
    """
    model = _model(lake, version)
    if model is None:
        return "", {}
    rows = _rows(lake, model, ids, ["sample_id", "label", "confidence", "boxes"], version)
    said = {row["sample_id"]: row for row in rows if row["label"] is not None or row["boxes"]}
    return str(model["model_id"]), said


def unseen(
    lake: Lake, ids: Collection[str], classes: Sequence[str], version: str = ""
) -> dict[str, np.ndarray]:
    """Return what the newest model that did not train on a sample gives each class, by sample.

    None of a model with other classes, or in another order. Which models did not train on a sample
    the table `training_sets` tells.

    Args:
        lake: The lake.
        ids: The samples.
        classes: C classes of the loop.
        version: Lake version to read at; empty for the newest.

    Returns:
        float64 [C] of each sample that such a model has predicted.
    """
    import numpy as np

    models = lake.read("experiments", where="arm == 'loop'", version=version or None).to_pylist()
    alike = {row["model_id"]: row for row in models if list(row["classes"] or []) == [*classes]}
    wanted = set(ids)
    if not alike or not wanted:
        return {}
    trained: dict[str, set[str]] = defaultdict(set)
    columns = ["training_set", "sample_id"]
    for batch in parts.batches(lake, "training_sets", columns, None, version):
        for name, sample in zip(
            batch["training_set"].to_pylist(), batch["sample_id"].to_pylist(), strict=True
        ):
            if sample in wanted:
                trained[name].add(sample)
    rows = parts.rows_of(
        lake,
        "predictions",
        wanted,
        columns=["sample_id", "model_id", "probabilities"],
        version=version,
    )
    newest: dict[str, tuple[str, str]] = {}
    found = {}
    for row in rows.to_pylist():
        model, sample, values = alike.get(row["model_id"]), row["sample_id"], row["probabilities"]
        if model is None or not values or len(values) != len(classes):
            continue
        if sample in trained[model["training_set"]] or age(model) <= newest.get(sample, ("", "")):
            continue
        newest[sample] = age(model)
        found[sample] = np.asarray(values, dtype=np.float64)
    return found


def _model(lake: Lake, version: str) -> dict[str, Any] | None:
    models = lake.read("experiments", where="arm == 'loop'", version=version or None).to_pylist()
    return model_in_service(models)


def _rows(
    lake: Lake, model: dict[str, Any], ids: Collection[str], columns: list[str], version: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parts.rows_of(
        lake,
        "predictions",
        ids,
        columns=columns,
        where=f"model_id == '{model['model_id']}'",
        version=version,
    ).to_pylist()
    return rows
