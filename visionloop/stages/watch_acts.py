"""What `watch` does to the lake and the endpoint: its decision, its acts, and a person's word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError, StaleRead, VisionloopError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.monitoring.acting import Act
    from visionloop.monitoring.acting_state import Swap
    from visionloop.monitoring.watching import Decision

# What was decided longer ago is no reason to move a model any more.
_PATIENCE = timedelta(days=1)


def record(lake: Lake, decision: Decision, run_id: str) -> str:
    """Write a decision and its acts, all of it or nothing, unless somebody decided meanwhile.

    Args:
        lake: The lake.
        decision: The decision.
        run_id: The run that watches; run again, it replaces its own decision, but no act.

    Returns:
        The version with it.

    Raises:
        StaleRead: A decision was written since this one looked: it has to look again.
    """
    from visionloop.monitoring.watching import plain

    signed = run_id or "watch"
    common = {
        "decided_at": decision.sight.now,
        # By its own name also when it was started by hand: the round's holder is another run, and
        # this is no sign that it is alive.
        "run_id": signed,
        "round_id": decision.round_id,
    }
    row = {
        "decision": "watch",
        "subject": decision.round_id,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "inputs": decision.inputs(),
        **common,
    }
    acts = [
        {
            "decision": act.decision,
            "subject": act.subject,
            "outcome": act.outcome,
            "reason": act.reason,
            "inputs": plain({**act.inputs, "lake_version": decision.sight.version}),
            **common,
        }
        for act in decision.acts
    ]
    outputs = {
        "decision": decision.outcome,
        "reason": decision.reason,
        "acts": [act.reason for act in decision.acts],
    }
    base = decision.sight.version
    with lake.run(
        stage="watch", round_id=decision.round_id, run_id=signed, base_version=base
    ) as run:
        run.refuse_stale("decisions")
        if run_id:
            run.replace("decisions", _rows([row]), f"decision == 'watch' and run_id == '{run_id}'")
        else:
            run.append("decisions", _rows([row]))
        run.append("decisions", _rows(acts))
        return run.commit(outputs=outputs)


def record_act(
    lake: Lake, act: Act, version: str, *, stage: str, round_id: str = "", run_id: str = ""
) -> None:
    """Write an act that was decided outside a watch, unless somebody decided meanwhile.

    Args:
        lake: The lake.
        act: The act.
        stage: What decided it.
        version: The version that it was decided at.
        round_id: The round; empty for the open one.
        run_id: The run that decided.

    Raises:
        StaleRead: A decision was written since: it has to be looked again.
    """
    from visionloop.monitoring.watching import plain

    with lake.run(stage=stage, round_id=round_id, run_id=run_id, base_version=version) as run:
        run.refuse_stale("decisions")
        row = {
            "decision": act.decision,
            "subject": act.subject,
            "outcome": act.outcome,
            "reason": act.reason,
            "inputs": plain({**act.inputs, "lake_version": version}),
            "decided_at": datetime.now(UTC),
            "run_id": run.run_id,
            "round_id": run.round_id,
        }
        run.append("decisions", _rows([row]))
        run.commit(outputs={"decision": act.decision, "reason": act.reason})


def finish_rollback(loop: LoopConfig, lake: Lake, *, held_by: str, run_id: str) -> str:
    """Do the rollback that was decided and is not done, also by a watch that was killed.

    One that cannot be done is given up, and written down: the same model is not rolled back by rule
    a second time. Where another model came into service, there is nothing to take back any more.
    Where something was busy or did not answer, or another model's rollout took its place, nothing
    is known of what can be done: it is left to the next watch, for a day.

    Args:
        loop: The configuration.
        lake: The lake.
        held_by: Which live run holds the open round: it may be publishing, and is waited for.
        run_id: The run that watches.

    Returns:
        What became of it, one sentence; empty where there was nothing to do.
    """
    from visionloop.monitoring.acting_state import FAILED, OVERTAKEN, ROLLBACK
    from visionloop.stages.rollback import Overtaken, roll_back_as_decided
    from visionloop.stages.watch_service import acts_that_stand

    swap = acts_that_stand(lake).called_for
    if swap is None:
        return ""
    if held_by:
        return f"The rollback to {swap.model_id} waits: a round is being run by {held_by}."
    try:
        done = roll_back_as_decided(loop, lake, swap, run_id=run_id or "watch")
    except StaleRead:
        raise  # the whole watch looks again, and goes on from what stands then
    except Overtaken as error:
        told = f"Model {swap.model_id} need not come back: {error.what}."
        _write(lake, ROLLBACK, swap.model_id, OVERTAKEN, told, _of(swap), run_id)
        return told
    except VisionloopError as error:
        if _may_pass(error) and datetime.now(UTC) - swap.at < _PATIENCE:
            why = error.what.rstrip(". ")
            return f"The rollback to {swap.model_id} waits for the next watch: {why}."
        told = f"Model {swap.model_id} was not brought back: {error.what.rstrip('. ')}."
        _write(lake, ROLLBACK, swap.model_id, FAILED, told, _of(swap), run_id)
        return told
    after = "" if done.in_service == swap.model_id else f"; {done.in_service} came after it"
    return f"Model {swap.model_id} is in service again, in the place of {swap.before}{after}."


def unblock(loop: LoopConfig, lake: Lake, because: str) -> str:
    """Let models be published again, on a person's word.

    What blocks now is excused for as long as it holds without a break; once it is gone and comes
    again, it blocks again.

    Args:
        loop: The configuration.
        lake: The lake.
        because: The person's reason.

    Returns:
        The version with it.

    Raises:
        InputError: No reason was given, or nothing is blocked.
    """
    from visionloop.monitoring.acting_rules import block_rules
    from visionloop.stages.watch_service import look_at_service

    if not because.strip():
        raise InputError(
            "nobody said why models may be published again",
            remedy='Say so: visionloop watch --unblock --because "the labels were corrected"',
        )
    version = lake.version()
    service = look_at_service(loop, lake, version, n_comparisons=0)
    if service.acts.block is None:
        raise InputError(
            "publication is not blocked",
            where=f"endpoint {loop.endpoint} of {lake.place}",
            remedy="Nothing needs to be done",
        )
    rules = block_rules(service, loop.watch, frozenset())
    grounds = {ground for rule in rules for ground in rule.grounds}
    # What cannot be told at this moment may hold all the same.
    grounds |= service.acts.block.grounds
    inputs = {
        "by": "hand",
        "excused": sorted(grounds),
        "blocked_since": service.acts.block.since.isoformat(),
        "lake_version": version,
    }
    reason = f"Models may be published again, since a person says so: {because.strip()}"
    return _write(lake, "unblock", loop.endpoint, "by_hand", reason, inputs, "")


def _may_pass(error: BaseException | None) -> bool:
    """Return whether an error came of what was busy or did not answer, which may pass."""
    from visionloop.cluster.refusals import Refused, Unreachable
    from visionloop.cluster.transport import PASSING
    from visionloop.lake.lock import LakeBusy
    from visionloop.lake.storage import StorageError
    from visionloop.serving.endpoint import NoAnswer
    from visionloop.serving.inference_service.record import Displaced

    while error is not None and not isinstance(error, InputError):
        if isinstance(error, Unreachable | NoAnswer | StorageError | LakeBusy | Displaced):
            return True
        if isinstance(error, Refused) and error.status in PASSING:
            return True
        error = error.__cause__
    return False


def _of(swap: Swap) -> dict[str, Any]:
    return {"by": "rule", "before": swap.before, "called_for": swap.at.isoformat()}


def _write(
    lake: Lake,
    decision: str,
    subject: str,
    outcome: str,
    reason: str,
    inputs: dict[str, Any],
    run_id: str,
) -> str:
    from visionloop.monitoring.watching import plain

    row = {
        "decision": decision,
        "subject": subject,
        "outcome": outcome,
        "reason": reason,
        "inputs": plain(inputs),
        "decided_at": datetime.now(UTC),
        "run_id": run_id or "watch",
    }
    with lake.run(stage="watch", run_id=run_id or "watch") as run:
        run.append("decisions", _rows([{**row, "round_id": run.round_id}]))
        return run.commit(outputs={"decision": decision, "reason": reason})


def _rows(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    return pa.Table.from_pylist(rows, schema=arrow_schema("decisions"))
