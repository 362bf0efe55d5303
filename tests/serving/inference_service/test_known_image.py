"""Which image a new model is asked, and what scales to zero."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pyarrow as pa
import pytest

from tests.serving.conftest import picture
from tests.serving.inference_service.conftest import World, grey
from visionloop.errors import VisionloopError


def test_a_picture_of_the_holdout_is_asked_as_it_was_ingested(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    data = picture(5, size=20)
    path = world.folder / "photo.png"
    path.write_bytes(data)
    name = hashlib.sha256(data).hexdigest()
    with world.lake.run(stage="ingest", round_id="0000") as run:
        rows = {"sample_id": [name], "uri": [f"file://{path}"], "split": ["holdout"]}
        run.append("samples", pa.table(rows))
        run.commit()
    world.publish("m0001-aa")
    assert world.decision()["inputs"]["smoke"]["told_as"] == f"the holdout's sample {name[:12]}"
    # It goes to the pod itself, past the agent that would log it.
    (asked,) = [s for s in world.kserve.proxied if s.startswith("POST ")]
    assert asked.endswith(":8080/proxy/v1/models/clothing:predict")


def test_a_picture_that_is_named_is_asked(make_world: Callable[..., World]) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    path = world.folder / "known.png"
    path.write_bytes(grey(90))
    world.settings["smoke_image"] = str(path)
    world.publish("m0001-aa")
    assert world.decision()["inputs"]["smoke"]["told_as"] == f"the picture {path}"
    world.settings["smoke_image"] = str(world.folder / "none.png")
    world.model("m0002-bb", 2)
    with pytest.raises(VisionloopError, match=r"none\.png"):
        world.publish("m0002-bb")
    assert len(world.kserve.history) == 1, "nothing was applied"


def test_a_model_that_scales_to_zero_is_asked_while_it_has_a_pod(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    world.settings["min_replicas"] = 0
    for number, model in enumerate(("m0001-aa", "m0002-bb")):
        world.model(model, number)
        assert world.publish(model).published
    predictor = world.kserve.service()["spec"]["predictor"]
    assert predictor["minReplicas"] == 0
    kept = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"
    assert predictor["annotations"][kept] == "5m"
