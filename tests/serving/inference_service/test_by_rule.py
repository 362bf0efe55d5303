"""A rollback that the watch decided, on an InferenceService to which others publish, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.selection.small_lake import put
from tests.serving.inference_service.conftest import World
from tests.serving.inference_service.test_by_hand import three
from visionloop.config import load_config
from visionloop.serving.inference_service import smoke
from visionloop.serving.inference_service.record import Claim, Rollout, end_rollout
from visionloop.stages.watch_acts import finish_rollback


def decided(world: World) -> Callable[[], str]:
    """Let a watch have decided to bring m1 back; return what the rest of a watch does."""
    three(world)
    held = world.pointer()
    assert held is not None
    row = {
        "decision": "rollback",
        "outcome": "called_for",
        "subject": "m0001-aa",
        "reason": "It is worse.",
        "inputs": json.dumps({"before": held.model_id, "uri": held.previous_uri}),
        "decided_at": datetime.now(UTC),
    }
    put(world.lake, "decisions", [row])
    return lambda: finish_rollback(load_config(world.config()), world.lake, held_by="", run_id="w")


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """Let something happen once while the model that comes back is asked a known image."""
    ask = smoke.ask_known_image

    def asked(*arguments: Any) -> Any:
        monkeypatch.undo()
        found = ask(*arguments)
        happens()
        return found

    monkeypatch.setattr(smoke, "ask_known_image", asked)


def outcomes(world: World) -> list[str]:
    rows = world.lake.read("decisions", where="decision == 'rollback'").to_pylist()
    rows.sort(key=lambda row: row["decided_at"])
    return [f"{row['subject']} {row['outcome']}" for row in rows]


def test_a_rollback_whose_place_another_rollout_took_is_left_to_the_next_watch(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("Standard")
    watches = decided(world)
    other = Rollout("m0003-cc", "m0002-bb", "file:///m0003-cc")
    with monkeypatch.context() as patched:
        begun = Claim(world.lake, "clothing", other, "m0002-bb")
        meanwhile(patched, lambda: begun.take(anew=True))
        told = watches()
    assert told.startswith("The rollback to m0001-aa waits for the next watch: ")
    assert told.endswith("the rollout of m0003-cc took its place.")
    assert outcomes(world) == ["m0001-aa called_for"]
    assert watches() == "Model m0001-aa is in service again, in the place of m0002-bb."
    assert world.kserve.shares() == {"m0001-aa": 100}
    assert outcomes(world)[-1] == "m0001-aa published"


def test_a_rollback_that_a_person_ended_is_not_tried_again(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("Standard")
    watches = decided(world)
    with monkeypatch.context() as patched:
        meanwhile(patched, lambda: end_rollout(world.lake, "clothing", "rolled back by hand"))
        told = watches()
    assert told.startswith("Model m0001-aa was not brought back: ")
    assert "rolled back by hand" in told and outcomes(world)[-1] == "m0001-aa failed"
    assert watches() == ""
