"""Putting an earlier model back into service, by hand or because the watch decided so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import InputError, VisionloopError
from visionloop.stages.opening import open_stage
from visionloop.stages.service_records import (
    ROLLED_BACK,
    mark_in_service,
    record_decision,
    set_states,
)
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.monitoring.acting_state import Swap
    from visionloop.serving.pointer import Pointer


class Overtaken(InputError):
    """Another model came into service before the one that was to be taken back was: it stays."""


class RollbackOutputs(NamedTuple):
    """What a rollback returns.

    Attributes:
        lake_version: Lake version after it.
        in_service: Id of the model in service now; another one may have come after it.
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

    What is under way ends first, also what a running publish tries or promotes: the model in
    service has all the traffic again. Without a name that is all; where nothing was under way, the
    model that was in service before the current one comes back. An InferenceService that is not
    there is not made.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        model_id: The model; empty for the newest one before that was not itself rolled back.
        run_id: The run, written on every row.

    Raises:
        InputError: There is no such model, or none before that was not rolled back, or it is in
            service already.
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
    if loop.serving.kserve is not None:
        if model_id and model_id != pointer.model_id:
            _target(opened, pointer, model_id)
        ended = _end_rollout(loop, opened, pointer, run_id)
        if ended is not None and model_id in ("", pointer.model_id):
            return ended
    target, uri = _target(opened, pointer, model_id)
    reason = f"put back by hand in the place of {pointer.model_id}"
    inputs = {"by": "hand", "before": pointer.model_id, "named": bool(model_id)}
    return _swap(loop, opened, target, uri, reason, inputs, run_id)


def roll_back_as_decided(
    loop: LoopConfig, lake: Lake, swap: Swap, *, run_id: str
) -> RollbackOutputs:
    """Do what the watch has decided, or the rest of it where a watch was killed halfway.

    Args:
        loop: The configuration.
        lake: The lake.
        swap: What was decided.
        run_id: The run, written on every row.

    Raises:
        Overtaken: Another model is in service by now.
        Displaced: The rollout of another model took its place, and may fail: it may be tried again.
        InputError: The model to bring back cannot be used.
        VisionloopError: It did not come up; the model that was in service is again.
    """
    from visionloop.serving.pointer import pointer_uri, read_pointer

    pointer = read_pointer(pointer_uri(lake, loop.endpoint))
    if pointer is None or pointer.model_id != swap.model_id:
        _demand(loop, lake, pointer, swap.before)
    if pointer is not None and pointer.model_id == swap.before:
        if loop.serving.kserve is not None:
            _end_rollout(loop, lake, pointer, run_id, by="by rule of the watch")
        _target(lake, pointer, swap.model_id)
    inputs = {"by": "rule", "before": swap.before, "called_for": swap.at.isoformat()}
    return _swap(loop, lake, swap.model_id, swap.uri, swap.why, inputs, run_id)


def _swap(
    loop: LoopConfig,
    lake: Lake,
    target: str,
    uri: str,
    reason: str,
    inputs: dict[str, Any],
    run_id: str,
) -> RollbackOutputs:
    from visionloop.serving.pointer import pointer_uri, read_pointer

    before = inputs["before"]
    with lake.run(stage="rollback", run_id=run_id) as run:
        figures = _bring_back(loop, lake, target, uri, before)
        record_decision(run, "rollback", target, "published", reason, inputs | figures)
        # Read once the lake is this run's alone: a publish may have moved it again.
        pointer = read_pointer(pointer_uri(lake, loop.endpoint))
        in_service = pointer.model_id if pointer else ""
        if in_service == target:
            mark_in_service(run, target, rolled_back=before)
        else:
            set_states(run, {before: ROLLED_BACK})
        version = run.commit(outputs={"in_service": in_service})
    if loop.serving.kserve is not None:
        from visionloop.stages.kserve_publish import forget

        forget(loop, lake, target)
    return RollbackOutputs(version, in_service, before)


def _target(lake: Lake, pointer: Pointer, model_id: str) -> tuple[str, str]:
    """Return the model to bring back and its bundle, which must be whole."""
    from visionloop.inference import OnnxModel

    wanted = model_id or _the_one_before(lake, pointer)
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
            where=f"table experiments of {lake.place}",
            remedy=f"Name one of {', '.join(names[-5:])}" if names else "Publish one first",
        )
    if any(row["state"] in ("trained", "rejected") for row in rows):
        raise InputError(
            f"{wanted} never passed its gate",
            where=f"table experiments of {lake.place}",
            remedy="Name a model that was in service",
        )
    OnnxModel.load(uri)
    return wanted, uri


def _the_one_before(lake: Lake, pointer: Pointer) -> str:
    """Return the newest model that was in service before the current one, none rolled back.

    The pointer names the model whose place the current one took. After a rollback that is the one
    that was taken back; the rows of the decisions then tell what came before.
    """
    remedy = "Name a model: visionloop rollback MODEL --config loop.yaml"
    current, replaced = pointer.model_id, pointer.previous
    if not replaced:
        raise InputError(
            f"{current} is the first model in service: there is none before it", remedy=remedy
        )
    rows = lake.read("experiments", columns=["model_id", "state"]).to_pylist()
    bad = {row["model_id"] for row in rows if row["state"] == ROLLED_BACK}
    if replaced not in bad:
        return replaced
    came = lake.read(
        "decisions",
        columns=["subject", "decided_at"],
        where="decision in ('publish', 'rollback') and outcome == 'published'",
    ).to_pylist()
    served = [row["subject"] for row in sorted(came, key=lambda row: row["decided_at"])]
    earlier = served[: served.index(current)] if current in served else []
    found = next((model for model in reversed(earlier) if model not in bad), "")
    if not found:
        raise InputError(
            f"{replaced} was rolled back, and no other model was in service before {current}",
            where=f"table decisions of {lake.place}",
            remedy=remedy,
        )
    return found


def _demand(loop: LoopConfig, lake: Lake, pointer: Pointer | None, before: str) -> None:
    """Refuse to take a model back that is not in service any more.

    Raises:
        Overtaken: It is so.
    """
    now = pointer.model_id if pointer else "no model"
    if now != before:
        raise Overtaken(
            f"{now} is in service by now, not {before}",
            where=f"endpoint {loop.endpoint} of {lake.place}",
            remedy="See `visionloop lake status`; if it shall not stay, roll back again",
        )


def _bring_back(loop: LoopConfig, lake: Lake, target: str, uri: str, before: str) -> dict[str, Any]:
    from visionloop.serving.pointer import pointer_uri, read_pointer

    demand = partial(_demand, loop, lake, before=before)
    if loop.serving.kserve is None:
        from visionloop.stages.publish import move_pointer

        move_pointer(loop, lake, target, uri, demand=demand)
        return {"url": loop.serving.url}
    from visionloop.serving.inference_service.endpoint import Served
    from visionloop.serving.inference_service.record import Displaced
    from visionloop.stages.kserve_publish import roll_out

    found = roll_out(
        loop, lake, Served(target, uri), tried=False, harvest=lambda: None, demand=demand
    )
    if not found.published:
        demand(read_pointer(pointer_uri(lake, loop.endpoint)))
        kind = Displaced if found.displaced else VisionloopError
        raise kind(
            f"{target} is not in service: {found.reason}",
            where=f"endpoint {loop.endpoint} of {lake.place}",
            remedy="See what is in service with `visionloop lake status`, and roll back again",
        )
    return found.figures


def _end_rollout(
    loop: LoopConfig, lake: Lake, pointer: Pointer, run_id: str, *, by: str = "by hand"
) -> RollbackOutputs | None:
    """End what is under way, and give the model in service everything; None where nothing is."""
    from visionloop.serving.inference_service.endpoint import Served
    from visionloop.serving.inference_service.record import end_rollout, note_rolled_back
    from visionloop.stages.kserve_publish import open_rollouts

    rollouts = open_rollouts(loop, lake)
    live = rollouts.live()
    if live is None:
        raise InputError(
            f"namespace {rollouts.endpoint.namespace} has no InferenceService "
            f"{rollouts.endpoint.name}, and a rollback makes none",
            where="serving.kserve.namespace",
            remedy="Set it to the namespace that the models are published to",
        )
    current = Served(pointer.model_id, pointer.model_uri)
    # First the word, which a publish that is running obeys, then the traffic.
    record = end_rollout(lake, loop.endpoint, f"rolled back {by}", besides=current.model_id)
    if record is None and rollouts.is_settled(current):
        return None
    other = Served(record.model_id, record.model_uri) if record else None
    rollouts.withdraw(current, other)
    tried = record.model_id if record else _tried(live, current.model_id)
    with lake.run(stage="rollback", run_id=run_id) as run:
        reason = f"its canary was ended {by}"
        inputs = {"in_service": current.model_id, "tally": record.tally if record else {}}
        record_decision(run, "rollback", tried, ROLLED_BACK, reason, inputs)
        mark_in_service(run, current.model_id, rolled_back=tried)
        version = run.commit(outputs={"in_service": current.model_id})
    if record:
        note_rolled_back(lake, loop.endpoint, record.model_id)
    return RollbackOutputs(version, current.model_id, tried)


def _tried(live: dict[str, Any], current: str) -> str:
    """Return which model an InferenceService has beside, or in the place of, the one in service."""
    from visionloop.serving.events import MODEL_ANNOTATION

    spec = live.get("spec") or {}
    held = [spec.get("predictor") or {}]
    held += [canary.get("predictor") or {} for canary in spec.get("canary") or []]
    found = [str((one.get("annotations") or {}).get(MODEL_ANNOTATION) or "") for one in held]
    return next((model for model in found if model and model != current), "")
