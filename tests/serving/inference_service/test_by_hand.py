"""What a person ends stays ended, whatever a publish that runs meanwhile was about to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from tests.servers import wait_until
from tests.serving.inference_service.conftest import World
from tests.serving.inference_service.test_canary import Publishing
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.lock import writer_lock
from visionloop.serving.inference_service.record import (
    ROLLING_BACK,
    Claim,
    Overruled,
    Rollout,
    change_record,
    end_rollout,
    read_record,
    record_uri,
)
from visionloop.serving.inference_service.rollout import Rollouts
from visionloop.serving.inference_service.waiting import RolloutFailed
from visionloop.serving.pointer import Pointer, pointer_uri, write_pointer
from visionloop.stages.rollback import rollback


def three(world: World) -> None:
    for number, model in enumerate(("m0001-aa", "m0002-bb", "m0003-cc"), 1):
        world.model(model, number)
        if number < 3:
            world.publish(model)


def test_a_named_rollback_ends_the_canary_of_a_publish_that_runs(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    three(world)
    world.canary = {"minutes": 5, "sample_seconds": 0.5, "percent": 40}
    with Publishing(world, "m0003-cc") as publishing:
        done = rollback(config=world.config(), model_id="m0001-aa")
        assert done[1:] == ("m0001-aa", "m0002-bb")
    assert publishing.done and publishing.done.published is False
    assert world.kserve.shares() == {"m0001-aa": 100}
    pointer = world.pointer()
    assert pointer and (pointer.model_id, pointer.previous) == ("m0001-aa", "m0002-bb")
    assert world.states() == {
        "m0001-aa": "in_service", "m0002-bb": "rolled_back", "m0003-cc": "rolled_back",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["Knative", "Standard"])
def test_a_promotion_that_fails_is_taken_back_and_recorded(
    make_world: Callable[..., World], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mode)
    three(world)
    fail_after_promotion(monkeypatch)
    done = world.publish("m0003-cc")
    assert done[1:] == (False, "m0002-bb")
    assert world.kserve.shares() == {"m0002-bb": 100} and not world.kserve.refused
    assert "its promotion failed: a pod of it is gone" in world.decision()["reason"]
    assert world.states()["m0003-cc"] == "rolled_back" and not world.record().exists()
    predictor = world.kserve.service()["spec"]["predictor"]
    assert predictor.get("name", "m0002-bb") == "m0002-bb", "the name that its Deployment gets"


def fail_after_promotion(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Rollouts.promote

    def promote(self: Rollouts, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        raise RolloutFailed("a pod of it is gone")

    monkeypatch.setattr(Rollouts, "promote", promote)


@pytest.mark.parametrize("name", ["m0002-bb", ""])
def test_a_rollback_repairs_a_promotion_that_was_killed(
    make_world: Callable[..., World], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("Standard")
    three(world)

    def killed(self: Claim, pointer: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Claim, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            world.publish("m0003-cc")
    assert world.kserve.shares() == {"m0003-cc": 100}
    done = rollback(config=world.config(), model_id=name)
    assert done[1:] == ("m0002-bb", "m0003-cc")
    assert world.kserve.shares() == {"m0002-bb": 100} and not world.kserve.refused
    assert world.states()["m0002-bb"] == "in_service"
    # What was ended is over: the next rollback is one to the model before.
    assert rollback(config=world.config()).in_service == "m0001-aa"


def test_a_rollback_makes_no_inference_service_in_another_namespace(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    three(world)
    config = json.loads(world.config())
    del config["serving"]["kserve"]["namespace"]
    with pytest.raises(InputError, match=r"nobody can tell the InferenceService's namespace"):
        rollback(config=json.dumps(config))
    config["cluster"]["namespace"] = "elsewhere"
    with pytest.raises(InputError, match="namespace elsewhere has no InferenceService clothing"):
        rollback(config=json.dumps(config))
    assert world.server.read("InferenceService", "clothing", "elsewhere") is None
    config["cluster"]["namespace"] = "models"
    assert rollback(config=json.dumps(config)).in_service == "m0001-aa"


def test_a_rollback_takes_no_model_back_that_came_meanwhile(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    three(world)
    place, told = pointer_uri(world.lake, "clothing"), []
    before = len(world.server.requests)

    def rolls_back() -> None:
        try:
            rollback(config=world.config(), model_id="m0001-aa")
        except InputError as error:
            told.append(str(error))

    thread = threading.Thread(target=rolls_back)
    with writer_lock(world.lake.catalog_uri, f"{world.lake.loop}.clothing.rollout"):
        thread.start()
        # It has read what is in service, and waits for its turn.
        wait_until(lambda: len(world.server.requests) > before)
        held = world.pointer()
        assert held and held.model_id == "m0002-bb"
        uri = held.model_uri.replace("m0002-bb", "m0003-cc")
        write_pointer(place, Pointer("m0003-cc", uri, "", held.model_id, held.model_uri))
    thread.join(timeout=60)
    pointer = world.pointer()
    assert pointer and pointer.model_id == "m0003-cc"
    assert len(told) == 1 and told[0].startswith("m0003-cc is in service by now, not m0002-bb")
    assert world.kserve.shares() == {"m0002-bb": 100} and not world.record().exists()


def test_no_rollout_begins_where_another_model_came_into_service(lake: Lake) -> None:
    place = pointer_uri(lake, "clothing")
    write_pointer(place, Pointer("m2", "file:///m2"))
    claim = Claim(lake, "clothing", Rollout("m1"), "m2")
    write_pointer(place, Pointer("m3", "file:///m3"))
    with pytest.raises(Overruled, match="m3 was put into service meanwhile"):
        claim.take(anew=True)
    assert read_record(record_uri(lake, "clothing")) is None


def test_a_word_that_comes_between_read_and_write_is_not_overwritten(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.model("m0002-bb", 2)
    mine = Claim(world.lake, "clothing", Rollout("m0002-bb"), "")
    mine.take(anew=True)
    assert end_rollout(world.lake, "clothing", "by hand")
    mine.record.tally = {"models": {}}
    with pytest.raises(Overruled, match="by hand"):
        mine.save()
    held = read_record(record_uri(world.lake, "clothing"))
    assert held and held.state == ROLLING_BACK
    other = Claim(world.lake, "clothing", Rollout("m0003-cc"), "")
    other.take(anew=True)
    with pytest.raises(VisionloopError, match="rollout of m0003-cc took its place"):
        mine.save()
    change_record(world.lake, "clothing", lambda held: None)
    with pytest.raises(Overruled, match="was ended meanwhile"):
        other.check()
