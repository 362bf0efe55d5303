"""The stage train as a TrainJob: real but for Kubernetes, whose part a server and a callback play.

The callback starts what the job's pods would run as processes of this machine, so two nodes meet,
train by Gloo and write into the lake as they do on a cluster.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer
from tests.training.small_loop import SmallLoop
from tests.training.trainer_controller import TrainerController
from visionloop.cluster import Forbidden
from visionloop.errors import InputError, VisionloopError
from visionloop.lake.storage import local_path
from visionloop.stages.train import train
from visionloop.training import trainjob

pytestmark = pytest.mark.slow

STEPS = {"runner": "trainjob", "min_updates": 40, "checkpoint_steps": 10, "calibrate": False}
WAITING = {
    "phase": "Pending",
    "containerStatuses": [
        {
            "name": "node",
            "image": "registry.example/nothing:1",
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
        }
    ],
}
UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }
    ],
}  # fmt: skip
KILLED = {
    "phase": "Failed",
    "containerStatuses": [
        {"name": "node", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    ],
}


@pytest.fixture
def server(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with ApiServer([shared / "crds" / "trainer-v2.3.0"]) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.fixture
def controller(server: ApiServer) -> Iterator[TrainerController]:
    controller = TrainerController(server)
    yield controller
    for process in controller.started:
        if process.poll() is None:
            process.kill()
        process.wait()


def labelled(folder: Path, *, nodes: int = 1, **training: Any) -> SmallLoop:
    folder.mkdir(exist_ok=True)
    job = {"nodes": nodes} | training.pop("trainjob", {})
    loop = SmallLoop(
        folder,
        training=STEPS | {"trainjob": job} | training,
        cluster={"image": "visionloop:1", "volume": f"lake:{folder}", "queue": "vision"},
    )
    loop.label(loop.split("pool")[:40])
    return loop


def bundle(loop: SmallLoop) -> dict[str, bytes]:
    """Return the files of the only model, but the card, which has a time."""
    (row,) = loop.lake.read("experiments").to_pylist()
    folder = local_path(row["uri"])
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "card.json"}


def jobs(server: ApiServer) -> list[str]:
    return [key[-1] for key, item in server.store.objects.items() if item["kind"] == "TrainJob"]


def beside(loop: SmallLoop) -> subprocess.Popen[str]:
    """Start the stage in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.interrupted", loop.config],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], Any], child: subprocess.Popen[str]) -> None:
    while not what():
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)


def checkpoints(loop: SmallLoop) -> list[Path]:
    return list((loop.folder / "lake" / "training").rglob("checkpoint.pt"))


def test_two_nodes_train_the_model_of_two_processes_and_the_stage_records_it(
    tmp_path: Path,
    server: ApiServer,
    controller: TrainerController,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # What the network does to a watch is no concern of the training.
    server.fail("WATCH", "/trainjobs", 410, event=True)
    server.fail("WATCH", "/pods", 0, times=2)
    server.cut_watch("/trainjobs", 1)
    loop = labelled(tmp_path / "job", nodes=2)
    metrics = loop.artifact("metrics")
    trained = train(config=loop.config, round_id="0000", metrics=metrics)
    assert (trained.n_labels, metrics.logged["updates"]) == (40, 40)
    rows = loop.lake.stage_runs(where="stage == 'train'").to_pylist()
    assert [
        json.loads(row["tables"]).keys() >= {"experiments", "training_sets"} for row in rows
    ] == [True]
    assert len(controller.started) == 2 and jobs(server) == []
    told = capfd.readouterr().err
    assert "-node-0-0-abcde] " in told and "40 of 40 steps" in told
    assert list((tmp_path / "job" / "lake" / "training").rglob("*.json")) == []

    pod = labelled(tmp_path / "pod", runner="pod", processes=2)
    assert train(config=pod.config, round_id="0000").model_id == trained.model_id
    assert bundle(loop) == bundle(pod)


def test_what_a_pod_says_of_its_failure_is_the_error_of_the_stage(
    tmp_path: Path, server: ApiServer, controller: TrainerController
) -> None:
    loop = labelled(tmp_path)
    for image in loop.images.glob("*.png"):
        image.unlink()
    with pytest.raises(VisionloopError, match="none of the 40 labelled images can be read") as told:
        train(config=loop.config, round_id="0000")
    (name,) = jobs(server)
    assert f"TrainJob {name}" in told.value.where and "Bring the images back" in told.value.remedy
    assert loop.lake.read("experiments").num_rows == 0


def test_a_pod_that_died_without_a_word_is_told_by_its_state_and_its_log(
    tmp_path: Path,
    server: ApiServer,
    controller: TrainerController,
    capfd: pytest.CaptureFixture[str],
) -> None:
    controller.pod_status = KILLED
    loop = labelled(tmp_path, nodes=2)

    def fail(event: str, item: dict[str, Any]) -> None:
        if item["kind"] == "Pod" and item.get("status"):
            server.pod_logs[f"{item['metadata']['name']}/node"] = ["one", "the last word"]
            if item["metadata"]["name"].endswith("-1-abcde"):
                (name,) = jobs(server)
                controller.set_condition(
                    server.read("TrainJob", name) or {}, "Failed", "job failed"
                )

    server.controllers.append(fail)
    with pytest.raises(VisionloopError) as told:
        train(config=loop.config, round_id="0000")
    assert "FailedByTest: job failed" in told.value.what
    assert "needed more memory than its limit (OOMKilled)" in told.value.what
    assert "last words: the last word" in told.value.what
    assert "-node-0-1-abcde] the last word" in capfd.readouterr().err
    assert len(jobs(server)) == 1


def test_a_job_in_a_queue_is_waited_for_and_a_failed_one_is_made_anew(
    tmp_path: Path,
    server: ApiServer,
    controller: TrainerController,
    capfd: pytest.CaptureFixture[str],
) -> None:
    controller.pod_status = KILLED
    loop = labelled(tmp_path, trainjob={"start_minutes": 1})

    def fail(event: str, item: dict[str, Any]) -> None:
        if item["kind"] == "Pod" and item.get("status") and controller.pod_status:
            (name,) = jobs(server)
            controller.set_condition(server.read("TrainJob", name) or {}, "Failed", "once")

    server.controllers.append(fail)
    with pytest.raises(VisionloopError, match="once"):
        train(config=loop.config, round_id="0000")
    (name,) = jobs(server)
    first = (server.read("TrainJob", name) or {})["metadata"]["uid"]
    controller.pod_status, controller.held = None, True

    def admit(event: str, item: dict[str, Any]) -> None:
        if item["kind"] == "TrainJob" and item["metadata"]["uid"] != first and controller.held:
            time.sleep(2.0)
            controller.admit(name)

    server.controllers.append(admit)
    train(config=loop.config, round_id="0000")
    told = capfd.readouterr().err
    assert f"makes the TrainJob {name} anew" in told
    assert "waits for quota in the queue vision" in told and "was admitted" in told
    assert loop.lake.read("experiments").num_rows == 1


def test_a_task_that_was_killed_goes_on_with_the_job_that_it_had_made(
    tmp_path: Path,
    server: ApiServer,
    controller: TrainerController,
    capfd: pytest.CaptureFixture[str],
) -> None:
    loop = labelled(tmp_path)
    child = beside(loop)
    wait_for(lambda: controller.started, child)
    child.kill()
    child.communicate()
    train(config=loop.config, round_id="0000")
    assert "goes on with the TrainJob" in capfd.readouterr().err
    assert len(server.asked("PATCH", "/trainjobs/")) == len(controller.started) == 1
    assert loop.lake.read("experiments").num_rows == 1


def test_a_task_that_is_cancelled_frees_the_gpus_and_the_next_goes_on_from_the_checkpoint(
    tmp_path: Path, server: ApiServer, controller: TrainerController
) -> None:
    steps = {"min_updates": 150, "nodes": 2}
    loop = labelled(tmp_path / "loop", **steps)
    child = beside(loop)
    wait_for(lambda: checkpoints(loop), child)
    child.send_signal(signal.SIGTERM)
    told = child.communicate(timeout=60)[1]
    assert child.returncode == 1
    assert "was asked to stop; the TrainJob" in told and jobs(server) == []
    assert [process.wait(timeout=60) for process in controller.started] == [143, 143]
    train(config=loop.config, round_id="0000")
    pod = labelled(tmp_path / "pod", min_updates=150, runner="pod", processes=2)
    train(config=pod.config, round_id="0000")
    assert bundle(loop) == bundle(pod)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (WAITING, "cannot start.*registry.example/nothing:1.*ImagePullBackOff"),
        (UNSCHEDULABLE, "did not start within 0.02 minutes.*3 Insufficient nvidia.com/gpu"),
    ],
)
def test_a_job_that_does_not_start_is_deleted_with_the_reason_of_its_pods(
    tmp_path: Path,
    server: ApiServer,
    controller: TrainerController,
    monkeypatch: pytest.MonkeyPatch,
    status: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(trainjob, "_STUCK_SECONDS", 0.3)
    controller.pod_status = status
    minutes = {"start_minutes": 0.02} if status is UNSCHEDULABLE else {}
    loop = labelled(tmp_path, trainjob=minutes)
    with pytest.raises(VisionloopError, match=said):
        train(config=loop.config, round_id="0000")
    assert jobs(server) == []


def test_without_the_trainer_or_its_rights_the_stage_says_what_lacks(
    tmp_path: Path,
    server: ApiServer,
    controller: TrainerController,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = labelled(tmp_path)
    server.denied = {"patch trainjobs.trainer.kubeflow.org"}
    with pytest.raises(Forbidden, match="may not patch trainjobs"):
        train(config=loop.config, round_id="0000")
    server.denied = {"list pods"}
    with pytest.raises(Forbidden, match="may not list pods"):
        train(config=loop.config, round_id="0000")
    # Nobody could follow the job.
    assert jobs(server) == []
    with ApiServer() as bare:
        monkeypatch.setenv("KUBECONFIG", str(bare.kubeconfig(tmp_path / "bare")))
        with pytest.raises(VisionloopError, match="does not serve TrainJobs"):
            train(config=loop.config, round_id="0000")


def test_a_field_that_the_installed_trainer_does_not_know_is_named(
    tmp_path: Path, server: ApiServer
) -> None:
    (resource,) = [one for one in server.resources if one.kind == "TrainJob"]
    assert resource.schema is not None
    resource.schema["properties"]["spec"]["properties"].pop("runtimePatches")
    loop = labelled(tmp_path)
    with pytest.raises(InputError, match=r"spec\.runtimePatches"):
        train(config=loop.config, round_id="0000")
