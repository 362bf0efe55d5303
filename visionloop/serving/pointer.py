"""The pointer: a small JSON file that names the model in service.

Publishing a model is replacing this file, whole or not at all; every predictor that was started on
it follows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.lake.storage import StorageError, open_storage

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake


@dataclass(frozen=True)
class Pointer:
    """Which model is in service.

    Attributes:
        model_id: The model.
        model_uri: Its bundle.
        published_at: When it went into service, UTC, ISO 8601.
        previous: The model that was in service before; empty for the first.
        previous_uri: Its bundle: what a publish that failed goes back to.
    """

    model_id: str
    model_uri: str
    published_at: str = ""
    previous: str = ""
    previous_uri: str = ""

    def before(self) -> Pointer | None:
        """Return the pointer that this one replaced, None for the first."""
        return Pointer(self.previous, self.previous_uri) if self.previous_uri else None


def pointer_uri(lake: Lake, endpoint: str) -> str:
    """Return where the pointer of an endpoint lies."""
    return lake.path("serving", f"{endpoint}.json")


def is_pointer(uri: str) -> bool:
    """Return whether a URI names a pointer and not a model bundle."""
    return uri.rstrip("/").endswith(".json")


def read_pointer(uri: str) -> Pointer | None:
    """Read a pointer.

    Returns:
        The pointer, or None where nothing was published yet.

    Raises:
        InputError: The file is no pointer.
        StorageError: It cannot be read.
    """
    storage = open_storage(uri)
    try:
        text = storage.read(uri)
    except StorageError:
        if storage.exists(uri):
            raise
        return None
    try:
        held = json.loads(text)
        known = {field.name for field in fields(Pointer)}
        pointer = Pointer(**{name: str(held[name]) for name in known if name in held})
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            "this file is no pointer to a model",
            where=uri,
            remedy='It must hold {"model_id": …, "model_uri": …}; the publish stage writes it',
        ) from None
    return pointer


def write_pointer(uri: str, pointer: Pointer) -> None:
    """Put a model into service: replace the pointer atomically."""
    text = json.dumps(asdict(pointer), indent=2, ensure_ascii=False) + "\n"
    open_storage(uri).write(uri, text.encode("utf-8"))


def delete_pointer(uri: str) -> None:
    """Take the pointer away; predictors keep the model that they have."""
    open_storage(uri).delete(uri)
