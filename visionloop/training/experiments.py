"""Finds models by what the lake recorded of them, and where their bundles lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.inference.model import CARD_FILE, OnnxModel

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.lake.storage import Storage

LOOP, RANDOM = "loop", "random"


def all_experiments(lake: Lake, *, version: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of `experiments`, the oldest first."""
    rows: list[dict[str, Any]] = lake.read("experiments", version=version).to_pylist()
    return sorted(rows, key=lambda row: (row["round_id"], row["trained_at"], row["model_id"]))


def find_experiment(lake: Lake, model_id: str) -> dict[str, Any]:
    """Return the row of a model; the newest of the loop's own arm for an empty id.

    Raises:
        InputError: There is none.
    """
    # The newest version: a model is named by its content, so it is the same in every later one.
    rows = all_experiments(lake)
    if model_id:
        found = [row for row in rows if row["model_id"] == model_id]
    else:
        found = [row for row in rows if row["arm"] == LOOP]
    if not found:
        raise InputError(
            f"the lake has no model {model_id!r}" if model_id else "the lake has no model yet",
            where=f"table experiments of {lake.place}",
            remedy="Run train first, and pass on the model_id that it returns",
        )
    return found[-1]


def in_service(lake: Lake, *, version: str | None = None) -> dict[str, Any] | None:
    """Return the row of the model in service: the newest of the loop's own arm in that state."""
    rows = [
        row
        for row in all_experiments(lake, version=version)
        if row["arm"] == LOOP and row["state"] == "in_service"
    ]
    return rows[-1] if rows else None


def ever_in_service(lake: Lake) -> list[dict[str, Any]]:
    """Return the rows of the loop's models that are in service or were, the oldest first."""
    return [
        row
        for row in all_experiments(lake)
        if row["arm"] == LOOP and row["state"] in ("in_service", "retired")
    ]


def random_arm(lake: Lake, round_id: str) -> dict[str, Any] | None:
    """Return the row of the control arm's model of a round."""
    rows = [
        row for row in all_experiments(lake) if row["arm"] == RANDOM and row["round_id"] == round_id
    ]
    return rows[-1] if rows else None


def version_with(lake: Lake, model_id: str, version: str, *, uri: str = "") -> str:
    """Return a version in which a model is recorded: the given one, or the newest.

    What an earlier try of a task committed is newer than the version that the task was asked to
    read; where the given version has it already, it is handed on so that what follows is cached.

    Args:
        lake: The lake, whose newest version has the model.
        model_id: The model.
        version: The version that is preferred.
        uri: Where the model's bundle must be recorded to lie; empty for anywhere.
    """
    rows = all_experiments(lake, version=version or None)
    there = any(r["model_id"] == model_id and (not uri or r["uri"] == uri) for r in rows)
    return version if version and there else lake.version()


def trained_uri(lake: Lake, model_id: str) -> str:
    """Return where train keeps a model's whole bundle, with state dict and reference outputs."""
    return lake.path("trained", model_id)


def serving_uri(lake: Lake, model_id: str) -> str:
    """Return where export puts what is served of a model."""
    return lake.path("models", model_id)


def store_bundle(storage: Storage, files: dict[str, bytes], uri: str) -> None:
    """Write a bundle's files into the lake, the card last: without a card it is no bundle.

    Args:
        storage: The lake's storage.
        files: Content by name.
        uri: Folder that gets them.
    """
    for name in sorted(files, key=lambda name: (name == CARD_FILE, name)):
        storage.write(f"{uri}/{name}", files[name])


def load_bundle(model_id: str, uri: str, folder: str | Path | None = None) -> OnnxModel:
    """Load a model from the folder that a task was given, or from the lake.

    Args:
        model_id: Whose bundle it must be.
        uri: Its place in the lake.
        folder: A task's input; None, or one that does not exist, for the lake's.

    Raises:
        InputError: The bundle is another model's, or is not whole.
    """
    model = OnnxModel.load(folder if folder is not None and Path(folder).is_dir() else uri)
    if model.card.model_id != model_id:
        raise InputError(
            f"the bundle is of the model {model.card.model_id}, not of {model_id}",
            where=model.uri,
            remedy="Pass the model and the model_id of one and the same train task",
        )
    return model
