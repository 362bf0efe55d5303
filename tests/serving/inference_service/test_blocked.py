"""A block of publication keeps the model in service, also where it comes during a trial."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tests.selection.small_lake import put
from tests.serving.conftest import picture
from tests.serving.inference_service.conftest import World
from tests.serving.inference_service.killing import kill, start_trial
from tests.serving.inference_service.test_canary import Publishing, one_in_service, send


def test_a_block_ends_a_trial_and_lets_none_begin(make_world: Callable[..., World]) -> None:
    world = make_world("Standard")
    one_in_service(world)
    row = {"decision": "block", "outcome": "blocked", "subject": "clothing", "inputs": "{}"}
    with Publishing(world, "m0002-bb") as publishing:
        put(world.lake, "decisions", [{**row, "reason": "So.", "decided_at": datetime.now(UTC)}])
        send(world, [picture(seed) for seed in range(60)])
    assert publishing.done and publishing.done[1:] == (False, "m0001-aa")
    assert world.kserve.shares() == {"m0001-aa": 100}
    assert world.states() == {"m0001-aa": "in_service", "m0002-bb": "passed"}
    decision = world.decision()
    assert decision["outcome"] == "blocked"
    assert decision["reason"].startswith("blocked since 20")
    assert not world.record().exists()

    generation = world.kserve.service()["metadata"]["generation"]
    world.model("m0003-cc", 3)
    assert world.publish("m0003-cc")[1:] == (False, "m0001-aa")
    assert world.decision()["outcome"] == "blocked"
    assert world.kserve.service()["metadata"]["generation"] == generation


def test_a_trial_that_was_killed_and_is_blocked_since_gives_its_traffic_back(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    one_in_service(world)
    world.canary["minutes"] = 5
    kill(start_trial(world, "m0002-bb"))
    assert len(world.kserve.shares()) == 2
    row = {"decision": "block", "outcome": "blocked", "subject": "clothing", "inputs": "{}"}
    put(world.lake, "decisions", [{**row, "reason": "So.", "decided_at": datetime.now(UTC)}])
    assert world.publish("m0002-bb")[1:] == (False, "m0001-aa")
    assert world.kserve.shares() == {"m0001-aa": 100}
    assert world.decision()["outcome"] == "blocked" and not world.record().exists()
    assert world.states()["m0002-bb"] == "passed"
