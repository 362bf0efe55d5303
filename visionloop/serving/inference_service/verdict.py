"""Whether a rollout is done, has failed, or goes on: told by an InferenceService and its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from visionloop.cluster.pods import failure_of, is_unschedulable
from visionloop.serving.inference_service.endpoint import REVISION_LABEL, Mode, Served
from visionloop.serving.inference_service.pods import is_leaving, is_ready, model_of, name_of

# Reasons of a condition that waiting does not remove.
_LASTING = frozenset(
    {"FailedCreate", "ProgressDeadlineExceeded", "ReconcileFailed", "RevisionFailed"}
)
_FAILED = ("BlockedByFailedLoad", "InvalidSpec")


@dataclass(frozen=True)
class Verdict:
    """What can be said of a rollout.

    Attributes:
        done: The model is ready and loaded.
        failure: Why it will not be; empty while it may.
        pod: The pod that told.
        waits_for: What is missing, for people who wait.
    """

    done: bool = False
    failure: str = ""
    pod: dict[str, Any] | None = None
    waits_for: str = ""


def judge(
    service: Mapping[str, Any] | None,
    pods: Iterable[dict[str, Any]],
    model: Served,
    mode: Mode,
    *,
    whole: bool,
    stale: Mapping[str, Any] | None = None,
    patient: bool = False,
    with_pod: bool = True,
) -> Verdict:
    """Judge a rollout.

    That ``Ready`` is Unknown, or False without a lasting reason, is a rollout that goes on: the
    model before serves meanwhile. A pod of the new model tells first, and most.

    Args:
        service: The InferenceService; None while there is none.
        pods: Its pods, of any model.
        model: What is rolled out.
        mode: How.
        whole: It shall take all the traffic; otherwise it shall only be ready.
        stale: Status that was there before the rollout began: what it says of a failure is of an
            earlier one.
        patient: A pod without a node may still get one.
        with_pod: It must have a pod; one that takes all traffic may have scaled to none.
    """
    here = [pod for pod in pods if not is_leaving(pod)]
    mine = [pod for pod in here if model_of(pod) == model.model_id]
    for pod in mine:
        reason = failure_of(pod)
        if reason and not (patient and is_unschedulable(pod)):
            return Verdict(failure=reason, pod=pod)
    if service is None:
        return Verdict(waits_for="the InferenceService to be there")
    status = service.get("status") or {}
    # Beside a canary of Standard mode the rest of the status is the current model's.
    beside = mode is Mode.STANDARD_CANARY and not whole
    told = _canary_status(status, model) if beside else status
    if failure := _told_failure(told, stale or {}):
        return Verdict(failure=failure, pod=mine[0] if mine else None)
    ready = [pod for pod in mine if is_ready(pod)]
    if with_pod and not ready:
        state = f"pod {name_of(mine[0])} to be ready" if mine else "a pod of the new model"
        return Verdict(waits_for=state)
    missing = _missing(status, ready, here, model, mode, whole=whole)
    # Without pods KServe calls a model pending.
    if not missing and (ready or with_pod) and not _is_loaded(told):
        missing = "the model to be loaded"
    if missing:
        return Verdict(waits_for=missing)
    return Verdict(done=True, pod=ready[0] if ready else None)


def condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a condition of a status, empty when it has none of that name."""
    found = (one for one in status.get("conditions") or [] if one.get("type") == name)
    return next(found, {})


def _missing(
    status: Mapping[str, Any],
    ready: list[dict[str, Any]],
    here: list[dict[str, Any]],
    model: Served,
    mode: Mode,
    *,
    whole: bool,
) -> str:
    """What the status lacks for the rollout to be done; empty for nothing."""
    if mode is Mode.STANDARD_CANARY and not whole:
        return "" if _canary_status(status, model).get("ready") else "the canary to be ready"
    if condition(status, "Ready").get("status") != "True":
        return "the InferenceService to be Ready"
    predictor = (status.get("components") or {}).get("predictor") or {}
    if mode is Mode.KNATIVE:
        revision = predictor.get("latestReadyRevision")
        if not revision or revision != predictor.get("latestCreatedRevision"):
            return "the new revision to be ready"
        labels = [pod["metadata"].get("labels") or {} for pod in ready]
        if ready and not any(found.get(REVISION_LABEL) == revision for found in labels):
            return "the InferenceService to know the new revision"
        if whole and _latest_share(predictor) != 100:
            return "all traffic to go to the new revision"
    elif any(is_ready(pod) and model_of(pod) != model.model_id for pod in here):
        return "the pods of the model before to go"
    return ""


def _canary_status(status: Mapping[str, Any], model: Served) -> Mapping[str, Any]:
    entries = status.get("canaryStatuses") or []
    return next((one for one in entries if one.get("name") == model.name), {})


def _is_loaded(status: Mapping[str, Any]) -> bool:
    told = status.get("modelStatus") or {}
    if told.get("transitionStatus") not in (None, "", "UpToDate"):
        return False
    # Some versions of KServe leave this empty beside a container of one's own.
    states = told.get("states")
    return states is None or states.get("activeModelState") == "Loaded"


def _latest_share(predictor: Mapping[str, Any]) -> int:
    traffic = predictor.get("traffic") or []
    return sum(int(one.get("percent") or 0) for one in traffic if one.get("latestRevision"))


def _told_failure(status: Mapping[str, Any], stale: Mapping[str, Any]) -> str:
    told = status.get("modelStatus") or {}
    if told.get("transitionStatus") in _FAILED and told != stale.get("modelStatus"):
        info = told.get("lastFailureInfo") or {}
        words = [str(info[key]) for key in ("reason", "message") if info.get(key)]
        return ": ".join([str(told["transitionStatus"]), *words])
    found = condition(status, "PredictorReady")
    lasting = found.get("status") == "False" and found.get("reason") in _LASTING
    if lasting and found != condition(stale, "PredictorReady"):
        return f"{found['reason']}: {found.get('message', '')}".rstrip(": ")
    return ""
