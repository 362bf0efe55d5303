"""What an API server does on a bad day changes nothing of how a publish ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.inference_service.conftest import World

SERVICES, PODS = r"/inferenceservices(/|$)", r"/pods$"
FAULTS: list[Any] = [
    pytest.param([("WATCH", SERVICES, 410, {})], id="gone"),
    pytest.param([("WATCH", SERVICES, 410, {"event": True})], id="gone-in-the-stream"),
    pytest.param([("WATCH", PODS, 429, {"retry_after": "1"})], id="too-many"),
    pytest.param([("GET", r"/inferenceservices/clothing$", 429, {"retry_after": "1"})], id="busy"),
    pytest.param([("GET", SERVICES, 500, {}), ("WATCH", PODS, 500, {})], id="internal"),
    pytest.param([("WATCH", SERVICES, 0, {}), ("WATCH", PODS, 0, {})], id="reset"),
    pytest.param([("PATCH", SERVICES, 0, {})], id="reset-of-the-apply"),
    pytest.param([("PATCH", SERVICES, 409, {})], id="written-meanwhile"),
    pytest.param([("PATCH", SERVICES, 500, {})], id="apply-fails-once"),
    pytest.param([("POST", r"/proxy/", 503, {})], id="pod-refuses-a-connection"),
]


@pytest.mark.parametrize("faults", FAULTS)
def test_a_publish_survives(make_world: Callable[..., World], faults: list[Any]) -> None:
    world = make_world("Knative")
    world.model("m0001-aa", 1)
    for method, path, code, more in faults:
        world.server.fail(method, path, code, **more)
    assert world.publish("m0001-aa").published
    assert world.server.faults == [], "each fault was met"
    assert world.kserve.shares() == {"m0001-aa": 100} and len(world.kserve.history) == 1


def test_a_publish_survives_watches_that_end_early(make_world: Callable[..., World]) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    for path in (SERVICES, PODS):
        world.server.cut_watch(path, after=1)
        world.server.cut_watch(path, after=1)
    assert world.publish("m0001-aa").published


def test_credentials_that_expire_while_it_waits_are_renewed(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    world.server.fail("WATCH", PODS, 401)
    world.server.fail("PATCH", SERVICES, 401)
    assert world.publish("m0001-aa").published
    assert world.server.faults == []
