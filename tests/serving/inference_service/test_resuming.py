"""A publish that was killed anywhere is finished by the next one, as if it had run once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.servers import wait_until
from tests.serving.conftest import picture
from tests.serving.inference_service.conftest import World, fail_in_the_dark, grey
from tests.serving.inference_service.killing import kill, start_trial, text
from tests.serving.inference_service.test_canary import one_in_service, send
from visionloop.serving.inference_service.record import (
    PROMOTING,
    ROLLED_BACK,
    Rollout,
    change_record,
    read_record,
)
from visionloop.stages.rollback import rollback

MODES = [
    pytest.param("Knative", "v0.16.0", id="Knative"),
    pytest.param("Standard", "v0.20.0", id="Standard"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "version"), MODES)
def test_a_publish_killed_in_its_canary_goes_on_with_what_was_counted(
    make_world: Callable[..., World], mode: str, version: str
) -> None:
    world = make_world(mode, version)
    one_in_service(world)
    world.canary["minutes"] = 0.3
    child = start_trial(world, "m0002-bb")
    send(world, [picture(seed) for seed in range(40)])
    wait_until(lambda: sum(n for n, _ in tallied(world)) == 40)
    kill(child)
    since = json.loads(text(world.record()))["tried_since"]
    generation = world.kserve.service()["metadata"]["generation"]
    assert len(world.kserve.shares()) == 2, "the canary goes on meanwhile"
    send(world, [picture(seed) for seed in range(40, 80)])
    done = world.publish("m0002-bb")
    assert done.published and world.kserve.shares() == {"m0002-bb": 100}
    figures = world.decision()["inputs"]["canary"]
    assert figures["candidate"]["requests"] + figures["current"]["requests"] == 80
    assert figures["seconds"] < 60 and since
    # Nothing but the promotion was applied after the kill.
    assert world.kserve.service()["metadata"]["generation"] == generation + 1
    assert world.lake.read("decisions").num_rows == 2


def tallied(world: World) -> list[tuple[int, int]]:
    held = json.loads(text(world.record()))["tally"].get("models", {})
    return [(n, errors) for n, errors in held.values()]


@pytest.mark.parametrize("mode", ["Knative", "Standard"])
def test_a_publish_killed_after_it_decided_keeps_to_its_decision(
    make_world: Callable[..., World], mode: str
) -> None:
    world = make_world(mode)
    one_in_service(world)
    world.canary["minutes"] = 5
    kill(start_trial(world, "m0002-bb"))

    def decide(record: Rollout | None) -> Rollout | None:
        assert record is not None
        record.decide(PROMOTING, "promoted: as decided before the kill")
        return record

    change_record(world.lake, "clothing", decide)
    began = time.monotonic()
    assert world.publish("m0002-bb").published and time.monotonic() - began < 240
    assert world.decision()["reason"] == "promoted: as decided before the kill"
    assert world.kserve.shares() == {"m0002-bb": 100} and not world.record().exists()


def test_a_canary_that_was_left_gets_nothing_when_the_current_model_is_published_again(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    one_in_service(world)
    world.canary["minutes"] = 5
    kill(start_trial(world, "m0002-bb"))
    assert world.publish("m0001-aa")[1:] == (True, "m0001-aa")
    assert world.kserve.shares() == {"m0001-aa": 100}
    percents = [s["predictor"].get("canaryTrafficPercent") for s in world.kserve.history]
    assert percents[-2:] == [0, None], "all traffic at once would have gone to the candidate"
    left = read_record(str(world.record()))
    assert left and (left.model_id, left.state) == ("m0002-bb", ROLLED_BACK)


@pytest.mark.parametrize(("mode", "version"), MODES)
def test_a_rollback_by_hand_brings_the_model_before_back_without_a_gap(
    make_world: Callable[..., World], mode: str, version: str
) -> None:
    world = make_world(mode, version)
    world.model("m0001-aa", 1)
    world.publish("m0001-aa")
    world.model("m0002-bb", 2, fail_in_the_dark)
    world.publish("m0002-bb")
    assert world.kserve.ask(grey(0)) == 500
    before = len(world.kserve.history)
    done = rollback(config=world.config())
    assert done[1:] == ("m0001-aa", "m0002-bb")
    assert world.kserve.shares() == {"m0001-aa": 100} and world.kserve.ask(grey(0)) == 200
    # Beside the other first, then with everything: two steps, whatever the mode.
    assert len(world.kserve.history) == before + 2
    assert world.states() == {"m0001-aa": "in_service", "m0002-bb": "rolled_back"}
    decision = world.decision()
    assert (decision["decision"], decision["subject"]) == ("rollback", "m0001-aa")
    assert decision["inputs"]["before"] == "m0002-bb"
    pointer = world.pointer()
    assert pointer and (pointer.model_id, pointer.previous) == ("m0001-aa", "m0002-bb")
    # And forth again, by name.
    assert rollback(config=world.config(), model_id="m0002-bb").in_service == "m0002-bb"
    assert world.kserve.shares() == {"m0002-bb": 100}
