"""What is remembered of a rollout while it goes on, so that a killed one is finished and not begun.

A small JSON file among the lake's leases: nothing holds the lake's lock while a model is tried. It
goes once the decision is a row of the lake.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.lake.storage import open_storage

if TYPE_CHECKING:
    from visionloop.lake import Lake

TRYING, PROMOTING, ROLLING_BACK = "trying", "promoting", "rolling_back"


@dataclass
class Rollout:
    """A rollout.

    Attributes:
        model_id: The model that is rolled out.
        previous: The model before; empty for the first.
        state: ``trying``, ``promoting`` or ``rolling_back``: the latter two are decided.
        reason: Why it was decided so.
        tried_since: When the model began to get traffic, UTC, ISO 8601; empty before.
        smoke: What it answered to a known image.
        tally: Requests and errors so far, see `visionloop.serving.inference_service.metrics`.
        judged: The figures that decided.
    """

    model_id: str
    previous: str = ""
    state: str = TRYING
    reason: str = ""
    tried_since: str = ""
    smoke: dict[str, Any] = field(default_factory=dict)
    tally: dict[str, Any] = field(default_factory=dict)
    judged: dict[str, Any] = field(default_factory=dict)

    @property
    def began(self) -> datetime | None:
        """When the model began to get traffic."""
        return datetime.fromisoformat(self.tried_since) if self.tried_since else None

    def begin(self) -> None:
        """Note that the model gets traffic from now on."""
        self.tried_since = self.tried_since or datetime.now(UTC).isoformat()

    def decide(self, state: str, reason: str, judged: dict[str, Any] | None = None) -> None:
        """Note what was decided; what was decided before stays.

        Args:
            state: ``promoting`` or ``rolling_back``.
            reason: One sentence.
            judged: The figures.
        """
        if self.state == TRYING:
            self.state, self.reason, self.judged = state, reason, judged or {}


def record_uri(lake: Lake, endpoint: str) -> str:
    """Return where the record of an endpoint's rollout lies."""
    return lake.path("leases", f"{endpoint}.rollout.json")


def read_record(uri: str) -> Rollout | None:
    """Read a record; None where no rollout is under way.

    Raises:
        InputError: The file is no record.
        StorageError: It cannot be read.
    """
    storage = open_storage(uri)
    if not storage.exists(uri):
        return None
    try:
        held = json.loads(storage.read(uri))
        known = {one.name for one in fields(Rollout)}
        return Rollout(**{name: value for name, value in held.items() if name in known})
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            "this file is no record of a rollout",
            where=uri,
            remedy="Remove it; the rollout that it belonged to begins anew",
        ) from None


def write_record(uri: str, rollout: Rollout) -> None:
    """Replace the record atomically; a rollback that somebody else decided meanwhile is taken over.

    Args:
        uri: Where it lies.
        rollout: What is kept; changed where a person rolled the same model back.
    """
    held = read_record(uri)
    if held and held.model_id == rollout.model_id and held.state == ROLLING_BACK:
        rollout.decide(held.state, held.reason, held.judged)
    open_storage(uri).write(uri, (json.dumps(asdict(rollout), indent=2) + "\n").encode())


def delete_record(uri: str) -> None:
    """Take the record away: the rollout is over."""
    storage = open_storage(uri)
    if storage.exists(uri):
        storage.delete(uri)
