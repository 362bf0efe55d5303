"""Putting an earlier model back into service by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import InputError
from visionloop.stages.opening import open_stage
from visionloop.stages.service_records import (
    IN_SERVICE,
    ROLLED_BACK,
    record_decision,
    set_states,
)
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.serving.pointer import Pointer


class RollbackOutputs(NamedTuple):
    """What `rollback` returns.

    Attributes:
        lake_version: Lake version after it.
        in_service: Id of the model in service now.
        rolled_back: Id of the model that was taken out of service, or out of its canary.
    """

    lake_version: str
    in_service: str
    rolled_back: str


@stage
def rollback(
    *, config: str, lake: str = "", model_id: str = "", run_id: str = ""
) -> RollbackOutputs:
    """Put an earlier model back into service.

    Without a name a canary that is under way is ended, also one that a running publish tries;
    where there is none, the model that was in service before the current one comes back.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        model_id: The model; empty for the one before.
        run_id: The run, written on every row.

    Raises:
        InputError: There is no such model, or none before, or it is in service already.
        VisionloopError: It did not come up; the model that was in service is again.
    """
    from visionloop.serving.pointer import pointer_uri, read_pointer

    loop, opened = open_stage(config, lake)
    pointer = read_pointer(pointer_uri(opened, loop.endpoint))
    if pointer is None:
        raise InputError(
            "no model is in service, so none can be rolled back",
            where=f"endpoint {loop.endpoint} of {opened.uri}",
            remedy="Publish one first: visionloop run round --config loop.yaml",
        )
    if loop.serving.kserve is not None and not model_id:
        found = _end_canary(loop, opened, pointer, run_id)
        if found is not None:
            return found
    target, uri = _target(opened, pointer, model_id)
    with opened.run(stage="rollback", run_id=run_id) as run:
        figures = _bring_back(loop, opened, target, uri)
        set_states(run, {target: IN_SERVICE, pointer.model_id: ROLLED_BACK})
        reason = f"put back by hand in the place of {pointer.model_id}"
        inputs = {"before": pointer.model_id, "named": bool(model_id), **figures}
        record_decision(run, "rollback", target, "published", reason, inputs)
        version = run.commit(outputs={"in_service": target})
    if loop.serving.kserve is not None:
        from visionloop.stages.kserve_publish import forget

        forget(loop, opened)
    return RollbackOutputs(version, target, pointer.model_id)


def _target(lake: Lake, pointer: Pointer, model_id: str) -> tuple[str, str]:
    """Return the model to bring back and its bundle, which must be whole."""
    from visionloop.inference import OnnxModel

    wanted = model_id or pointer.previous
    if not wanted:
        raise InputError(
            f"{pointer.model_id} is the first model in service: there is none before it",
            remedy="Name a model: visionloop rollback MODEL --config loop.yaml",
        )
    if wanted == pointer.model_id:
        raise InputError(
            f"{wanted} is in service already", remedy="Name another, or none for the one before"
        )
    rows = lake.read("experiments", where=f"model_id == '{wanted}'").to_pylist()
    uri = pointer.previous_uri if wanted == pointer.previous else ""
    uri = uri or next((str(row["uri"]) for row in rows if row["uri"]), "")
    if not uri:
        known = lake.read("experiments", columns=["model_id", "uri"]).to_pylist()
        from visionloop.validation import nearest

        names = sorted({str(row["model_id"]) for row in known if row["uri"]})
        raise InputError(
            f"the lake has no exported model {wanted!r}{nearest(wanted, names)}",
            where=f"table experiments of {lake.uri}",
            remedy=f"Name one of {', '.join(names[-5:])}" if names else "Publish one first",
        )
    if any(row["state"] in ("trained", "rejected") for row in rows):
        raise InputError(
            f"{wanted} never passed its gate",
            where=f"table experiments of {lake.uri}",
            remedy="Name a model that was in service",
        )
    OnnxModel.load(uri)
    return wanted, uri


def _bring_back(loop: LoopConfig, lake: Lake, target: str, uri: str) -> dict[str, Any]:
    if loop.serving.kserve is None:
        from visionloop.serving.pointer import pointer_uri
        from visionloop.stages.publish import move_pointer

        move_pointer(loop, pointer_uri(lake, loop.endpoint), target, uri)
        return {"url": loop.serving.url}
    from visionloop.serving.inference_service.endpoint import Served
    from visionloop.stages.kserve_publish import roll_out

    return roll_out(loop, lake, Served(target, uri), tried=False, harvest=lambda: None).figures


def _end_canary(
    loop: LoopConfig, lake: Lake, pointer: Pointer, run_id: str
) -> RollbackOutputs | None:
    """End a canary that is under way; None where none is."""
    from visionloop.serving.inference_service.endpoint import Served
    from visionloop.serving.inference_service.record import (
        ROLLING_BACK,
        TRYING,
        read_record,
        record_uri,
        write_record,
    )
    from visionloop.stages.kserve_publish import open_rollouts

    kept = record_uri(lake, loop.endpoint)
    record = read_record(kept)
    if record is None or record.state != TRYING or record.model_id == pointer.model_id:
        return None
    # First the word, which a publish that is running obeys, then the traffic.
    record.decide(ROLLING_BACK, "rolled back by hand")
    write_record(kept, record)
    open_rollouts(loop, lake).withdraw(Served(pointer.model_id, pointer.model_uri))
    with lake.run(stage="rollback", run_id=run_id) as run:
        set_states(run, {record.model_id: ROLLED_BACK})
        record_decision(
            run, "rollback", record.model_id, ROLLED_BACK, "its canary was ended by hand",
            {"in_service": pointer.model_id, "tally": record.tally},
        )  # fmt: skip
        version = run.commit(outputs={"in_service": pointer.model_id})
    return RollbackOutputs(version, pointer.model_id, record.model_id)
