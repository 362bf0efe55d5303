"""What a status may say of a model that it does not speak of, and what passes by itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.inference_service.pod_states import FAILURES, RUNNING
from visionloop.serving.events import MODEL_ANNOTATION
from visionloop.serving.inference_service.endpoint import REVISION_LABEL, Mode, Served
from visionloop.serving.inference_service.verdict import judge

MODEL = Served("m0001-aa", "gs://bucket/m0001-aa")
BLOCKED = {
    "transitionStatus": "BlockedByFailedLoad",
    "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such model"},
}
CONFLICT = "fails to reconcile knative service: the object has been modified; please apply again"
REFUSAL = 'admission webhook "validation.webhook.serving.knative.dev" denied the request: no'


def pod(name: str, status: dict[str, Any], revision: str = "", model: str = "m0001-aa") -> Any:
    labels = {REVISION_LABEL: revision} if revision else {}
    metadata = {"name": name, "annotations": {MODEL_ANNOTATION: model}, "labels": labels}
    return {"metadata": metadata, "status": status}


def service(revision: str = "", *, reason: str = "", message: str = "", **told: Any) -> Any:
    state = {"status": "False", "reason": reason, "message": message} if reason else {}
    conditions = [{"type": t, "status": "True"} | state for t in ("Ready", "PredictorReady")]
    predictor = {
        "latestCreatedRevision": revision,
        "latestReadyRevision": revision,
        "traffic": [{"latestRevision": True, "percent": 100}],
    }
    told.setdefault("modelStatus", {"transitionStatus": "UpToDate"})
    return {"status": {"conditions": conditions, "components": {"predictor": predictor}, **told}}


@pytest.mark.parametrize(
    "gone",
    [
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
        {"phase": "Failed", "reason": "Terminated", "message": "imminent node shutdown"},
        {**RUNNING, "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ],
)
def test_a_pod_that_its_node_gave_up_ends_no_rollout(gone: dict[str, Any]) -> None:
    pods = [pod("a-gone", gone), pod("b-new", RUNNING)]
    assert judge(service(), pods, MODEL, Mode.STANDARD, whole=True).done


def test_a_candidates_failure_is_not_taken_for_the_old_models() -> None:
    # KServe still tells of the candidate's revision, whose pod crashed, after the withdrawal.
    lagging = service("r2", modelStatus=BLOCKED | {"copies": {"totalCopies": 2}})
    stale = service("r2", modelStatus={"transitionStatus": "InProgress"})["status"]
    pods = [pod("r1-a", RUNNING, "r1"), pod("r2-a", FAILURES["crash"], "r2", "m0002-bb")]
    for options in ({"stale": stale}, {"pods_only": True}):
        found = judge(lagging, pods, MODEL, Mode.KNATIVE, whole=False, **options)  # type: ignore[arg-type]
        assert not found.failure and not found.suspicion and not found.done
    # In Standard mode too, where the first of all pods speaks.
    found = judge(lagging, pods, MODEL, Mode.STANDARD, whole=True, pods_only=True)
    assert not found.failure and not found.suspicion
    # Its own pods are believed.
    own = [pod("r3-a", FAILURES["crash"], "r3")]
    found = judge(lagging, own, MODEL, Mode.KNATIVE, whole=False, pods_only=True)
    assert "fails again and again" in found.failure


def test_what_is_told_of_its_own_revision_is_a_suspicion_first() -> None:
    told = service("r2", modelStatus=BLOCKED)
    found = judge(told, [pod("r2-a", {}, "r2")], MODEL, Mode.KNATIVE, whole=True)
    assert not found.failure and "BlockedByFailedLoad: ModelLoadFailed" in found.suspicion


def test_a_conflict_between_writers_is_a_suspicion_and_a_refusal_a_failure() -> None:
    told = service("r1", reason="ReconcileFailed", message=CONFLICT)
    pods = [pod("r1-a", RUNNING, "r1")]
    found = judge(told, pods, MODEL, Mode.KNATIVE, whole=True)
    assert not found.failure and "has been modified" in found.suspicion
    refused = service("r1", reason="ReconcileFailed", message=REFUSAL)
    found = judge(refused, pods, MODEL, Mode.KNATIVE, whole=True)
    assert "denied the request" in found.failure
    # One that was there before is of what was applied before.
    found = judge(refused, pods, MODEL, Mode.KNATIVE, whole=True, stale=refused["status"])
    assert not found.failure
