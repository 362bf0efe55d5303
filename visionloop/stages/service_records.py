"""What the lake keeps of a model's way into and out of service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionloop.lake import Run

IN_SERVICE, RETIRED, ROLLED_BACK = "in_service", "retired", "rolled_back"


def mark_in_service(run: Run, model_id: str, *, rolled_back: str = "") -> None:
    """Let one model of the loop be in service; whichever was is retired.

    What the one before contradicted is withdrawn: nobody has asked this one yet.

    Args:
        run: The run that writes.
        model_id: The model.
        rolled_back: The model whose place it takes, which is not retired but rolled back.
    """
    from visionloop.monitoring.disagreement import KIND
    from visionloop.monitoring.standing import write_standing

    states = {rolled_back: ROLLED_BACK} if rolled_back else {}
    served = False
    for row in run.read("experiments", where="arm == 'loop'").to_pylist():
        if row["model_id"] == model_id:
            served = row["state"] == IN_SERVICE
            states[row["model_id"]] = IN_SERVICE
        elif row["state"] == IN_SERVICE and row["model_id"] != rolled_back:
            states[row["model_id"]] = RETIRED
    set_states(run, states)
    if not served:
        write_standing(run, [KIND], [])


def set_states(run: Run, states: Mapping[str, str]) -> None:
    """Set the states of models of the loop, where they differ.

    Args:
        run: The run that writes.
        states: State by model.
    """
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    for row in run.read("experiments", where="arm == 'loop'").to_pylist():
        state = states.get(row["model_id"], row["state"])
        if state != row["state"]:
            run.replace(
                "experiments",
                pa.Table.from_pylist([row | {"state": state}], schema=arrow_schema("experiments")),
                f"model_id == '{row['model_id']}'",
            )


def record_decision(
    run: Run, decision: str, model_id: str, outcome: str, reason: str, inputs: Mapping[str, Any]
) -> None:
    """Record a decision about a model; a round has one publish, and any number of rollbacks.

    Args:
        run: The run that writes.
        decision: ``publish`` or ``rollback``.
        model_id: The model that it is about.
        outcome: ``published``, ``kept`` or ``rolled_back``.
        reason: One sentence.
        inputs: What it was decided by.
    """
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    now = datetime.now(UTC)
    row = {
        "decision": decision,
        "subject": model_id,
        "outcome": outcome,
        "reason": reason,
        "inputs": json.dumps(inputs),
        "decided_at": now,
    }
    rows = pa.Table.from_pylist([row], schema=arrow_schema("decisions"))
    mine = f"round_id == '{run.round_id}' and decision == '{decision}'"
    if decision != "publish":
        # Replaces nothing; what a publish writes at the same time is no reason to start again.
        mine += f" and decided_at == '{now.isoformat()}'"
    run.replace("decisions", rows, mine)
