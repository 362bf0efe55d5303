"""A model that cannot serve ends its publish at once, with the reason, and the one before stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.conftest import write_bundle
from tests.serving.inference_service.conftest import World, grey
from visionloop.cluster.refusals import FieldConflict, Forbidden
from visionloop.errors import InputError, VisionloopError

SAYS = {
    "image": r"image slim:9 of container kserve-container cannot be pulled: ImagePullBackOff",
    "crash": r"(?s)fails again and again: exit code 2; the end of its log:\n.*crash of m0002-bb",
    "homeless": r"no node takes the pod: 0/3 nodes are available: 3 Insufficient nvidia\.com/gpu",
    "blocked": r"BlockedByFailedLoad: ModelLoadFailed: no such model",
}
MODES = ["Knative", "Standard"]


def one_in_service(world: World) -> None:
    world.model("m0001-aa", 1)
    world.publish("m0001-aa")
    world.model("m0002-bb", 2)


@pytest.mark.parametrize("how", SAYS)
def test_a_failure_ends_it_at_once_and_the_model_before_has_everything(
    make_world: Callable[..., World], how: str
) -> None:
    # In Standard mode the failing canary goes with its Deployment; in Knative with its revision.
    world = make_world("Standard" if how in ("image", "homeless") else "Knative")
    one_in_service(world)
    if how == "blocked" and world.kserve.mode == "Standard":
        pytest.skip("a canary's own status says nothing of it")
    world.kserve.broken["m0002-bb"] = how
    world.settings["timeout_s"] = 600
    began = time.monotonic()
    with pytest.raises(VisionloopError, match=SAYS[how]) as raised:
        world.publish("m0002-bb")
    assert time.monotonic() - began < 300
    assert "Model m0001-aa has all the traffic again" in str(raised.value)
    assert world.kserve.shares() == {"m0001-aa": 100} and world.kserve.ask(grey(120)) == 200
    pointer = world.pointer()
    assert pointer and pointer.model_id == "m0001-aa"
    assert world.states() == {"m0001-aa": "in_service", "m0002-bb": "passed"}
    # Mended, the same round goes on.
    world.kserve.broken.clear()
    world.settings["timeout_s"] = 60
    assert world.publish("m0002-bb").in_service == "m0002-bb"
    assert world.kserve.shares() == {"m0002-bb": 100}


def test_a_pod_may_wait_for_a_node_where_nodes_are_made_on_demand(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    world.kserve.broken["m0001-aa"] = "homeless"
    world.settings |= {"unschedulable_s": 6}
    began = time.monotonic()
    with pytest.raises(VisionloopError, match="no node takes the pod"):
        world.publish("m0001-aa")
    assert 6 <= time.monotonic() - began < 50


def test_a_pod_waits_while_the_cluster_makes_a_node_for_it(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    world.kserve.broken["m0001-aa"] = "homeless"
    pod = "clothing-m0001-aa-predictor-1"
    world.kserve.tell_of_node(pod, "TriggeredScaleUp")
    world.settings["timeout_s"] = 12
    with pytest.raises(VisionloopError, match=r"within 12 s, it waits for pod .* to be ready"):
        world.publish("m0001-aa")
    # That there will be none ends it at once.
    world.kserve.tell_of_node(pod, "NotTriggerScaleUp", 1)
    world.settings["timeout_s"] = 600
    began = time.monotonic()
    with pytest.raises(VisionloopError, match="no node takes the pod"):
        world.publish("m0001-aa")
    assert time.monotonic() - began < 100


def test_a_rule_against_its_pods_is_told_and_does_not_take_all_the_time(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    one_in_service(world)
    world.kserve.broken["m0002-bb"] = "forbidden"
    world.settings["timeout_s"] = 600
    began = time.monotonic()
    with pytest.raises(VisionloopError, match=r"no pod of it can be made: .*exceeded quota: gpus"):
        world.publish("m0002-bb")
    assert time.monotonic() - began < 200
    assert world.kserve.shares() == {"m0001-aa": 100}


def test_a_status_that_lags_does_not_hold_the_model_before_back(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    one_in_service(world)
    world.kserve.broken["m0002-bb"] = "crash"
    world.kserve.lag = 2.0
    with pytest.raises(VisionloopError, match="Model m0001-aa has all the traffic again"):
        world.publish("m0002-bb")
    assert world.kserve.shares() == {"m0001-aa": 100}


def test_pods_that_their_node_gave_up_are_nobodys_failure(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    world.publish("m0001-aa")
    world.kserve.linger("m0001-aa", "Evicted")
    assert world.publish("m0001-aa").published, "nothing changes, and nothing fails"
    world.model("m0002-bb", 2)
    assert world.publish("m0002-bb").published


def test_time_that_runs_out_says_what_was_waited_for(make_world: Callable[..., World]) -> None:
    world = make_world("Knative")
    world.model("m0001-aa", 1)
    world.kserve.seconds = 5
    world.settings["timeout_s"] = 1.5
    with pytest.raises(VisionloopError, match=r"within 1\.5 s, it waits for pod .* to be ready"):
        world.publish("m0001-aa")


def test_a_pod_that_answers_otherwise_than_its_models_file_gets_no_traffic(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = make_world("Knative")
    one_in_service(world)
    other = write_bundle(tmp_path / "other", "m0002-bb", seed=9)
    world.kserve.broken["m0002-bb"] = f"other:{other}"
    with pytest.raises(
        VisionloopError,
        match=r"fails on a known image: it answers '.*' .* to made-up pixels, its file",
    ):
        world.publish("m0002-bb")
    assert world.kserve.shares() == {"m0001-aa": 100}
    percents = [s["predictor"].get("canaryTrafficPercent") for s in world.kserve.history]
    assert percents == [None, 0, 0, None]


def test_what_another_writer_owns_is_told_and_left_alone(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    one_in_service(world)
    service = world.kserve.service()
    changed = {
        "apiVersion": service["apiVersion"],
        "kind": service["kind"],
        "metadata": {"name": "clothing", "namespace": "models"},
        "spec": {"predictor": {"maxReplicas": 9}},
    }
    world.server.merge(changed, manager="argocd")
    world.settings["max_replicas"] = 5
    with pytest.raises(FieldConflict, match=r"argocd owns \.spec\.predictor\.maxReplicas"):
        world.publish("m0002-bb")
    assert world.kserve.service()["spec"]["predictor"]["maxReplicas"] == 9
    assert world.kserve.shares() == {"m0001-aa": 100}


@pytest.mark.parametrize(
    ("right", "says"),
    [
        ("patch inferenceservices.serving.kserve.io", r"may not patch inferenceservices\.serving"),
        ("get inferenceservices.serving.kserve.io", r"may not get inferenceservices\.serving"),
        ("watch pods", r"may not watch pods in namespace models"),
        ("create pods/proxy", r"may not create pods/proxy in namespace models"),
        ("get pods/proxy", r"may not get pods/proxy in namespace models"),
    ],
)
def test_a_right_that_lacks_is_named(
    make_world: Callable[..., World], right: str, says: str
) -> None:
    world = make_world("Knative")
    world.model("m0001-aa", 1)
    world.server.denied.add(right)
    world.settings["timeout_s"] = 600
    began = time.monotonic()
    with pytest.raises(VisionloopError, match=says) as raised:
        world.publish("m0001-aa")
    assert isinstance(raised.value, Forbidden) or "pods/proxy" in right
    assert time.monotonic() - began < 200, "nobody waits for a right"


def test_what_an_admission_rule_refuses_is_told_in_its_words(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    world.model("m0001-aa", 1)
    words = 'admission webhook "quota.example" denied the request: exceeded quota: models'
    world.server.fail("PATCH", "/inferenceservices/", 403, message=words, reason="Forbidden")
    with pytest.raises(Forbidden, match="exceeded quota: models"):
        world.publish("m0001-aa")


def test_a_cluster_without_kserve_says_so(make_world: Callable[..., World], tmp_path: Path) -> None:
    world = make_world("Knative")
    world.model("m0001-aa", 1)
    world.server.resources = [r for r in world.server.resources if "kserve" not in r.group]
    with pytest.raises(VisionloopError, match=r"does not serve InferenceServices.*Install KServe"):
        world.publish("m0001-aa")


def test_a_mode_that_the_cluster_cannot_run_is_refused(make_world: Callable[..., World]) -> None:
    world = make_world("Standard")
    world.model("m0001-aa", 1)
    world.settings["mode"] = "Knative"
    with pytest.raises(InputError, match="no Knative Serving"):
        world.publish("m0001-aa")
    world.settings |= {"mode": "auto", "min_replicas": 0}
    with pytest.raises(InputError, match="only Knative scales to zero"):
        world.publish("m0001-aa")


def test_a_metric_that_the_mode_does_not_scale_by_is_refused(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Knative")
    world.model("m0001-aa", 1)
    world.settings["scale_metric"] = "cpu"
    with pytest.raises(InputError, match="mode Knative, which does not scale by cpu"):
        world.publish("m0001-aa")


def test_batches_into_a_bucket_need_a_kserve_that_has_them(
    make_world: Callable[..., World],
) -> None:
    world = make_world("Standard", "v0.16.0")
    world.model("m0001-aa", 1)
    world.settings["logger"] = {"storage": "gs://events/a", "storage_key": "gcs"}
    with pytest.raises(InputError, match=r"cannot log to a bucket in batches.*0\.17"):
        world.publish("m0001-aa")
