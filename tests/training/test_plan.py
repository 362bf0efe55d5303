"""What a training is told and answers, on a disk and in a bucket."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.servers import storage_emulator
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.storage import join, normalise, open_storage
from visionloop.training.checkpoint import Checkpoints, state_of
from visionloop.training.parameters import TrainingConfig
from visionloop.training.plan import (
    CHECKPOINT_FILE,
    PLAN_FILE,
    SAMPLES_FILE,
    Plan,
    discard,
    failure_of,
    folder_of,
    leave_failure,
)
from visionloop.training.training_set import TrainingSet


@pytest.fixture(scope="module")
def emulator() -> Iterator[None]:
    with storage_emulator() as address, pytest.MonkeyPatch.context() as patched:
        bucket = b'{"name": "trainings"}'
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p", bucket, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request).read()
        patched.setenv("STORAGE_EMULATOR_HOST", address)
        yield


@pytest.fixture(params=["file", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return normalise(tmp_path / "a lake")
    request.getfixturevalue("emulator")
    return f"gs://trainings/{tmp_path.name}"


def planned(root: str, model_id: str = "m0000-a") -> Plan:
    return Plan(
        model_id=model_id,
        training_set=TrainingSet("loop", (("a" * 64, "cat"), ("b" * 64, "dög"))),
        media={"a" * 64: "gs://photos/a.png"},
        classes=["cat", "dög"],
        parameters=TrainingConfig(epochs=3, runner="trainjob"),
        round_id="0000",
        lake_version="v1",
        bundle=join(root, "trained", model_id),
        folder=join(root, "training", "loop", model_id),
    )


def test_a_plan_reads_back_as_it_was_written(root: str) -> None:
    plan = planned(root)
    with pytest.raises(VisionloopError, match="not there any more"):
        plan.present()
    assert Plan.load(plan.save()) == plan
    plan.present()


def test_a_plan_beside_another_ones_samples_is_refused(root: str) -> None:
    plan, other = planned(root), planned(root, "m0000-b")
    uri = plan.save()
    changed = TrainingSet("loop", (("a" * 64, "dög"), ("b" * 64, "dög")))
    Plan(**(vars(other) | {"training_set": changed})).save()
    storage = plan.storage
    storage.write(plan.path(SAMPLES_FILE), storage.read(other.path(SAMPLES_FILE)))
    with pytest.raises(InputError, match="another training's"):
        Plan.load(uri)
    storage.write(plan.path(PLAN_FILE), b"{}")
    with pytest.raises(InputError, match="no plan of a training"):
        Plan.load(uri)


def test_of_failures_that_follow_each_other_the_first_is_the_cause(root: str) -> None:
    plan = planned(root)
    assert failure_of(plan) is None
    now = time.time()
    record = {"where": "here", "remedy": "wait", "exit_status": 2}
    for what, at in (("first", now), ("its echo", now + 5), ("the next try's", now + 600)):
        leave_failure(plan, record | {"what": what, "at": at})
        told = failure_of(plan)
        assert isinstance(told, InputError)
        assert told.what == {"its echo": "first"}.get(what, what)


def test_a_checkpoint_is_read_back_and_another_identity_is_not(root: str) -> None:
    plan = planned(root)
    here = Checkpoints(plan.storage, plan.path(CHECKPOINT_FILE), "one", 5)
    assert here.read() is None
    state = {"step": 5, "weights": {"w": torch.arange(3.0)}, "losses": [0.1, float("nan")]}
    here.save(state)
    content = here.read()
    assert content is not None
    assert torch.equal(state_of(content)["weights"]["w"], torch.arange(3.0))
    assert Checkpoints(plan.storage, here.uri, "two", 5).read() is None


def test_what_was_recorded_or_abandoned_is_removed_and_what_goes_on_stays(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), loop="loop")
    for name in ("recorded", "recorded-too", "going-on", "abandoned"):
        lake.storage.write(f"{folder_of(lake, name)}/{PLAN_FILE}", b"{}")
    old = tmp_path / "training" / "loop" / "abandoned" / PLAN_FILE
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    discard(lake, ["recorded"])
    left = {Path(info.uri).parent.name for info in open_storage(lake.uri).list(lake.uri)}
    assert left == {"recorded-too", "going-on"}
