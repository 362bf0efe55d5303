"""A model is tried on part of the traffic, judged by metrics and confidences, and let in or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.serving.conftest import picture
from tests.serving.inference_service.conftest import (
    World,
    fail_in_the_dark,
    grey,
    lose_confidence,
)
from visionloop.errors import VisionloopError
from visionloop.stages.publish import PublishOutputs
from visionloop.stages.rollback import rollback

BOTH = ["Knative", "Standard"]
TRIED = {"minutes": 0.1, "sample_seconds": 0.3, "min_requests": 20, "percent": 40}


class Publishing:
    """A publish in a thread, as it runs in a task."""

    def __init__(self, world: World, model_id: str) -> None:
        self.world, self.model_id = world, model_id
        self.done: PublishOutputs | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.done = self.world.publish(self.model_id)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Publishing:
        self._thread.start()
        self.until_it_is_tried()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join(timeout=200)
        assert not self._thread.is_alive()
        if self.error is not None and not isinstance(self.error, VisionloopError):
            raise self.error

    def until_it_is_tried(self) -> None:
        until = time.monotonic() + 60
        while self._thread.is_alive() and time.monotonic() < until:
            if '"tried_since": "2' in (
                self.world.record().read_text() if self.world.record().exists() else ""
            ):
                return
            time.sleep(0.05)


def one_in_service(world: World, *changes: Callable[..., None]) -> None:
    world.model("m0001-aa", 1)
    world.publish("m0001-aa")
    world.model("m0002-bb", 2, *changes)
    world.canary = dict(TRIED)


def send(world: World, pictures: list[bytes]) -> None:
    for one in pictures:
        world.kserve.ask(one)
    world.log_events()


@pytest.mark.parametrize("mode", BOTH)
def test_a_model_that_does_well_is_promoted_with_its_figures(
    make_world: Callable[..., World], mode: str
) -> None:
    world = make_world(mode)
    one_in_service(world)
    with Publishing(world, "m0002-bb") as publishing:
        assert world.kserve.shares() == {"m0001-aa": 60, "m0002-bb": 40}
        assert world.pointer().model_id == "m0001-aa"  # type: ignore[union-attr]
        send(world, [picture(seed) for seed in range(80)])
    assert publishing.done and publishing.done[1:] == (True, "m0002-bb")
    assert world.kserve.shares() == {"m0002-bb": 100} and not world.kserve.refused
    figures = world.decision()["inputs"]["canary"]
    counted = {who: figures[who]["requests"] for who in ("candidate", "current")}
    assert sum(counted.values()) == 80 and counted["candidate"] >= 20
    assert figures["candidate"]["errors"] == figures["current"]["errors"] == 0
    sure = figures["confidence"]
    assert (sure["n_candidate"], sure["n_current"]) == (counted["candidate"], counted["current"])
    assert world.decision()["reason"].startswith("promoted: 0 of ")
    if mode == "Standard":
        # Promotion retargets the canary's Deployment: the very pod that was tried.
        assert len(world.kserve._servers) == 1


@pytest.mark.parametrize("mode", BOTH)
def test_server_errors_roll_it_back_early_by_its_own_metrics(
    make_world: Callable[..., World], mode: str
) -> None:
    world = make_world(mode)
    one_in_service(world, fail_in_the_dark)
    world.canary["minutes"] = 5
    began = time.monotonic()
    with Publishing(world, "m0002-bb") as publishing:
        statuses = {world.kserve.ask(grey(0), model) for model in ("m0002-bb", "m0001-aa")}
        assert statuses == {500, 200}
        send(world, [grey(0)] * 80)
    assert time.monotonic() - began < 240, "it ends before its time is over"
    assert publishing.done and publishing.done[1:] == (False, "m0001-aa")
    assert world.kserve.shares() == {"m0001-aa": 100}
    assert world.states() == {"m0001-aa": "in_service", "m0002-bb": "rolled_back"}
    decision = world.decision()
    assert decision["outcome"] == "rolled_back" and decision["subject"] == "m0002-bb"
    assert "requests ended in a server error, of the current model's 0 of" in decision["reason"]
    round_ = world.lake.rounds.get("0001")
    assert round_ and (round_.state, round_.outcome) == ("done", "kept")
    assert world.pointer().model_id == "m0001-aa"  # type: ignore[union-attr]
    assert not world.record().exists()


def test_fallen_confidence_rolls_it_back_by_the_harvest(make_world: Callable[..., World]) -> None:
    world = make_world("Knative")
    one_in_service(world, lose_confidence)
    with Publishing(world, "m0002-bb") as publishing:
        send(world, [picture(seed) for seed in range(80)])
    assert publishing.done and publishing.done[1:] == (False, "m0001-aa")
    decision = world.decision()
    assert "rolled back: mean confidence 0.2" in decision["reason"]
    assert decision["inputs"]["canary"]["candidate"]["errors"] == 0
    assert world.kserve.shares() == {"m0001-aa": 100}
    assert world.kserve.ask(grey(120)) == 200


@pytest.mark.parametrize(("few", "promoted"), [("promote", True), ("roll_back", False)])
def test_a_canary_that_nobody_asks_is_promoted_or_not_as_configured(
    make_world: Callable[..., World], few: str, promoted: bool
) -> None:
    # KServe 0.20.0 starts canaries in Standard mode and routes nothing to them.
    world = make_world("Standard")
    world.kserve.routes_canaries = False
    one_in_service(world)
    world.canary |= {"too_few": few, "minutes": 0.02}
    done = world.publish("m0002-bb")
    assert done.published is promoted
    assert "0 requests are too few to judge a rate by" in world.decision()["reason"]
    assert world.kserve.shares() == {("m0002-bb" if promoted else "m0001-aa"): 100}


def test_a_canary_that_gets_nothing_of_what_is_asked_was_not_tried(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.kserve.routes_canaries = False
    one_in_service(world)
    with Publishing(world, "m0002-bb") as publishing:
        send(world, [picture(1)] * 60)
    assert publishing.done and publishing.done[1:] == (False, "m0001-aa")
    reason = world.decision()["reason"]
    assert "this cluster does not split traffic: 0 of 60 requests reached it" in reason
    assert world.kserve.shares() == {"m0001-aa": 100}


def test_metrics_that_go_away_after_the_first_reading_end_it(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    one_in_service(world)
    world.canary |= {"minutes": 0.1, "sample_seconds": 0.5}
    with Publishing(world, "m0002-bb") as publishing:
        world.kserve.deaf = True
    assert isinstance(publishing.error, VisionloopError)
    assert "nobody can tell the errors of model m0002-bb" in str(publishing.error)
    assert world.kserve.shares() == {"m0001-aa": 100}


def test_a_canary_gets_all_its_pods_before_it_is_promoted(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.settings["min_replicas"] = 3
    one_in_service(world)
    world.canary |= {"minutes": 0.02, "percent": 10}
    before = len(world.kserve.history)
    assert world.publish("m0002-bb").published and not world.kserve.refused
    tried, grown, promoted = world.kserve.history[before:]
    pods = [spec["canary"][0]["predictor"]["minReplicas"] for spec in (tried, grown)]
    assert pods == [1, 3] and "canary" not in promoted
    assert world.kserve.pod_of("m0002-bb").copies == 3


def test_a_pod_that_crashes_while_it_is_tried_ends_it(make_world: Callable[..., World]) -> None:
    world = make_world("Knative")
    one_in_service(world)
    world.canary["minutes"] = 5
    with Publishing(world, "m0002-bb") as publishing:
        world.kserve.crash("m0002-bb")
    assert isinstance(publishing.error, VisionloopError)
    assert "fails while it is tried: container kserve-container" in str(publishing.error)
    assert world.kserve.shares() == {"m0001-aa": 100}


def test_metrics_that_nobody_can_read_are_no_proof_of_health(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    one_in_service(world)
    world.canary["minutes"] = 0.03
    world.server.faults.clear()
    with Publishing(world, "m0002-bb") as publishing:
        pass
    assert publishing.done and publishing.done.published
    world.model("m0003-cc", 3)
    world.kserve.deaf = True
    with pytest.raises(VisionloopError, match=r"nobody can tell the errors of model m0003-cc"):
        world.publish("m0003-cc")
    assert world.kserve.shares() == {"m0002-bb": 100}


def test_nothing_of_the_lake_is_locked_while_it_is_tried(make_world: Callable[..., World]) -> None:
    world = make_world("Standard")
    one_in_service(world)
    world.canary["minutes"] = 0.3
    with Publishing(world, "m0002-bb") as publishing:
        with world.lake.run(stage="monitor", round_id="0001") as run:
            run.set_round(counts={"other": 1})
            run.commit()
        assert publishing.done is None, "it was written while the model was tried"
    round_ = world.lake.rounds.get("0001")
    assert round_ and round_.outcome == "published"


def test_a_rollback_by_hand_ends_a_canary_that_runs(make_world: Callable[..., World]) -> None:
    world = make_world("Knative")
    one_in_service(world)
    world.canary["minutes"] = 5
    began = time.monotonic()
    with Publishing(world, "m0002-bb") as publishing:
        ended = rollback(config=world.config())
        assert ended[1:] == ("m0001-aa", "m0002-bb")
    assert time.monotonic() - began < 240
    assert publishing.done and publishing.done[1:] == (False, "m0001-aa")
    assert world.kserve.shares() == {"m0001-aa": 100}
    assert world.states()["m0002-bb"] == "rolled_back"
