"""A model goes into service in every mode of KServe; when it goes there again nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.serving.inference_service.conftest import World, grey
from tests.serving.inference_service.kserve import NAMESPACE

MODES = [
    pytest.param("Knative", "v0.16.0", id="Knative-0.16"),
    pytest.param("Standard", "v0.16.0", id="Standard-0.16"),
    pytest.param("Standard", "v0.20.0", id="Standard-0.20"),
]


@pytest.mark.parametrize(("mode", "version"), MODES)
def test_two_models_follow_each_other_and_again_changes_nothing(
    make_world: Callable[..., World], mode: str, version: str
) -> None:
    world = make_world(mode, version)
    world.model("m0001-aa", 1)
    done = world.publish("m0001-aa")
    assert done[1:] == (True, "m0001-aa") and world.kserve.shares() == {"m0001-aa": 100}
    world.model("m0002-bb", 2)
    assert world.publish("m0002-bb")[1:] == (True, "m0002-bb")
    assert world.kserve.shares() == {"m0002-bb": 100} and not world.kserve.refused
    assert world.kserve.ask(grey(120)) == 200
    pointer = world.pointer()
    assert pointer and (pointer.model_id, pointer.previous) == ("m0002-bb", "m0001-aa")
    assert world.states() == {"m0001-aa": "retired", "m0002-bb": "in_service"}
    decision = world.decision()
    assert decision["outcome"] == "published" and decision["inputs"]["before"] == "m0001-aa"
    smoke = decision["inputs"]["smoke"]
    assert smoke["told_as"] == "made-up pixels" and smoke["difference"] < 1e-3
    generation = world.kserve.service()["metadata"]["generation"]
    assert world.publish("m0002-bb")[1:] == (True, "m0002-bb")
    assert world.kserve.service()["metadata"]["generation"] == generation
    assert world.decision() == decision, "what the first publish found out stands"
    assert not world.record().exists()
    owners = {e["manager"] for e in world.kserve.service()["metadata"]["managedFields"]}
    assert owners == {"visionloop", "controller"}
    pods = world.server.asked("GET", f"/namespaces/{NAMESPACE}/pods")
    assert any(seen.query.get("watch") == "true" for seen in pods)
