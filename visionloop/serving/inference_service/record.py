"""What is remembered of a rollout while it goes on, so that a killed one is finished and not begun.

A small JSON file among the lake's leases: nothing holds the lake's lock while a model is tried. It
goes once the decision is a row of the lake.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError, VisionloopError
from visionloop.lake.lock import writer_lock
from visionloop.lake.storage import open_storage
from visionloop.serving.pointer import Pointer, pointer_uri, read_pointer, write_pointer

if TYPE_CHECKING:
    from visionloop.lake import Lake

TRYING, PROMOTING, ROLLING_BACK = "trying", "promoting", "rolling_back"
ROLLED_BACK = "rolled_back"


class Overruled(VisionloopError):
    """Somebody ended this rollout, or began another: it changes nothing any more."""


class Displaced(Overruled):
    """Another rollout was begun in the place of this one; nobody has said that it shall not be."""


@dataclass
class Rollout:
    """A rollout.

    Attributes:
        model_id: The model that is rolled out.
        previous: The model before; empty for the first.
        model_uri: Bundle of the model that is rolled out.
        state: ``trying``; decided, ``promoting`` or ``rolling_back``; and ``rolled_back``, once the
            model before has all the traffic.
        reason: Why it was decided so.
        tried_since: When the model began to get traffic, UTC, ISO 8601; empty before.
        smoke: What it answered to a known image.
        tally: Requests and errors so far, see `visionloop.serving.inference_service.metrics`.
        judged: The figures that decided.
    """

    model_id: str
    previous: str = ""
    model_uri: str = ""
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


def change_record(
    lake: Lake, endpoint: str, change: Callable[[Rollout | None], Rollout | None]
) -> None:
    """Replace a record by what becomes of it; nobody else changes it between read and write.

    Args:
        lake: The lake.
        endpoint: Name of the endpoint.
        change: Gets what is there, None for none, and returns what shall be. What it raises leaves
            the record as it is.
    """
    uri = record_uri(lake, endpoint)
    with writer_lock(lake.catalog_uri, f"{lake.loop}.{endpoint}.rollout"):
        held = read_record(uri)
        found = change(held)
        if found is not None:
            open_storage(uri).write(uri, (json.dumps(asdict(found), indent=2) + "\n").encode())
        elif held is not None:
            open_storage(uri).delete(uri)


@dataclass
class Claim:
    """One process's hold on an endpoint's rollout: it lasts until somebody else takes over.

    Attributes:
        lake: The lake.
        endpoint: Name of the endpoint.
        record: What this process knows and decides.
        in_service: The model that the pointer named when the rollout began; empty for none.
    """

    lake: Lake
    endpoint: str
    record: Rollout
    in_service: str

    def take(self, *, anew: bool) -> None:
        """Begin the rollout, or go on with it; a rollout of another model ends with this.

        Args:
            anew: It goes on with none: one of the model that was rolled back is over.

        Raises:
            Overruled: The same rollout was ended meanwhile, or another model came into service.
        """
        self._change(lambda held: anew and held.state == ROLLED_BACK, first=True)

    def save(self) -> None:
        """Keep the record.

        Raises:
            Overruled: The rollout was ended, or another one was begun; nothing is written.
        """
        self._change(lambda held: False, first=False)

    def check(self) -> None:
        """See that the rollout is still this process's.

        Raises:
            Overruled: It is not.
        """
        self._demand(read_record(record_uri(self.lake, self.endpoint)))

    def move(self, pointer: Pointer) -> None:
        """Put the model into service, unless the rollout was ended meanwhile.

        Raises:
            Overruled: It was; the pointer stays.
        """

        def change(held: Rollout | None) -> Rollout | None:
            self._demand(held)
            write_pointer(pointer_uri(self.lake, self.endpoint), pointer)
            self.in_service = pointer.model_id
            return self.record

        change_record(self.lake, self.endpoint, change)

    def _change(self, is_over: Callable[[Rollout], bool], *, first: bool) -> None:
        def change(held: Rollout | None) -> Rollout | None:
            other = held is None or held.model_id != self.record.model_id or is_over(held)
            if first and other:
                self._demand_pointer()
            else:
                self._demand(held)
            return self.record

        change_record(self.lake, self.endpoint, change)

    def _demand_pointer(self) -> None:
        pointer = read_pointer(pointer_uri(self.lake, self.endpoint))
        now = pointer.model_id if pointer else ""
        if now != self.in_service:
            raise Overruled(f"{now or 'no model'} was put into service meanwhile")

    def _demand(self, held: Rollout | None) -> None:
        self._demand_pointer()
        if held is None:
            raise Displaced("its rollout was ended meanwhile")
        if held.model_id != self.record.model_id:
            raise Displaced(f"the rollout of {held.model_id} took its place")
        if held.state in (ROLLING_BACK, ROLLED_BACK) and self.record.state != held.state:
            raise Overruled(held.reason)


def end_rollout(lake: Lake, endpoint: str, reason: str, *, besides: str = "") -> Rollout | None:
    """Tell whoever rolls a model out that it is over, and note that the traffic must follow.

    Args:
        lake: The lake.
        endpoint: Name of the endpoint.
        reason: One sentence.
        besides: A model whose rollout goes on.

    Returns:
        The rollout that was under way; None for none.
    """
    ended: list[Rollout] = []

    def change(held: Rollout | None) -> Rollout | None:
        if held is not None and held.state != ROLLED_BACK and held.model_id != besides:
            if held.state != ROLLING_BACK:
                held.state, held.reason = ROLLING_BACK, reason
            ended.append(held)
        return held

    change_record(lake, endpoint, change)
    return ended[0] if ended else None


def note_rolled_back(lake: Lake, endpoint: str, model_id: str) -> None:
    """Note that the model before has all the traffic again.

    The record stays: a publish of the model that is tried again finds that it was rolled back.

    Args:
        lake: The lake.
        endpoint: Name of the endpoint.
        model_id: The model that was rolled back.
    """

    def change(held: Rollout | None) -> Rollout | None:
        if held is not None and held.model_id == model_id and held.state == ROLLING_BACK:
            held.state = ROLLED_BACK
        return held

    change_record(lake, endpoint, change)


def delete_record(lake: Lake, endpoint: str, model_id: str) -> None:
    """Take the record of a model's rollout away: it is over. That of another one stays.

    Args:
        lake: The lake.
        endpoint: Name of the endpoint.
        model_id: The model.
    """

    def change(held: Rollout | None) -> Rollout | None:
        return None if held is not None and held.model_id == model_id else held

    change_record(lake, endpoint, change)
