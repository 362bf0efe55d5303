"""What the model in service takes samples for that people are asked about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from visionloop.lake import parts
from visionloop.selection.in_service import model_in_service

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


def probabilities(
    lake: Lake, ids: Collection[str], classes: Sequence[str], version: str = ""
) -> dict[str, np.ndarray]:
    """Return what the model in service gives each class, float32 [C], by sample.

    None of a model with other classes, or in another order.

    Args:
        lake: The lake.
        ids: The samples: such as it did not train on.
        classes: The loop's classes.
        version: Lake version to read at; empty for the newest.
    """
    import numpy as np

    model = _model(lake, version)
    if model is None or list(model["classes"] or []) != list(classes):
        return {}
    rows = _rows(lake, model, ids, ["sample_id", "probabilities"], version)
    return {
        row["sample_id"]: np.asarray(row["probabilities"], dtype=np.float32)
        for row in rows
        if row["probabilities"]
    }


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
