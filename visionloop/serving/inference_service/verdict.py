"""Whether a rollout is done, has failed, or goes on: told by an InferenceService and its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from visionloop.cluster.pods import is_unschedulable, lasting_failure
from visionloop.serving.inference_service.endpoint import REVISION_LABEL, Mode, Served
from visionloop.serving.inference_service.pods import is_leaving, is_ready, model_of, name_of

# Reasons of a condition that waiting seldom removes. KServe tells ReconcileFailed of every conflict
# between two writers too, and of revisions that are not the newest any more.
_GRAVE = frozenset(
    {"FailedCreate", "ProgressDeadlineExceeded", "ReconcileFailed", "RevisionFailed"}
)
_FAILED = ("BlockedByFailedLoad", "InvalidSpec")
# Another try of the controller is refused as this one was.
_REFUSED = ("denied the request", "admission webhook", "must not set the field", "is invalid:")


@dataclass(frozen=True)
class Verdict:
    """What can be said of a rollout.

    Attributes:
        done: The model is ready and loaded.
        failure: Why it will not be; empty while it may.
        suspicion: What is said against it that may be of a moment, or of the model before: it
            counts once it stays.
        pod: The pod that told.
        waits_for: What is missing, for people who wait.
    """

    done: bool = False
    failure: str = ""
    suspicion: str = ""
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
    pods_only: bool = False,
    replicas: int = 1,
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
        stale: Status that was there before the rollout began: a refusal that it tells too is of
            an earlier one.
        patient: A pod without a node may still get one.
        with_pod: It must have a pod; one that takes all traffic may have scaled to none.
        pods_only: Only the model's own pods can tell that it fails: the status still speaks of the
            model that it replaces.
        replicas: Pods that must be ready.
    """
    here = [pod for pod in pods if not is_leaving(pod)]
    mine = [pod for pod in here if model_of(pod) == model.model_id]
    for pod in mine:
        reason = lasting_failure(pod)
        if reason and not (patient and is_unschedulable(pod)):
            return Verdict(failure=reason, pod=pod)
    if service is None:
        return Verdict(waits_for="the InferenceService to be there")
    status = service.get("status") or {}
    # Beside a canary of Standard mode the rest of the status is the current model's.
    beside = mode is Mode.STANDARD_CANARY and not whole
    told = _canary_status(status, model) if beside else status
    told_of = _told_failure(told) if not pods_only and _is_of(status, mine, stale, mode) else ""
    one = mine[0] if mine else None
    if told_of and told_of != _told_failure(stale or {}) and any(w in told_of for w in _REFUSED):
        return Verdict(failure=told_of, pod=one)
    ready = [pod for pod in mine if is_ready(pod)]
    if with_pod and len(ready) < replicas:
        late = [name_of(pod) for pod in mine if pod not in ready]
        state = f"pod {late[0]} to be ready" if late else "a pod of the new model"
        return Verdict(waits_for=state, suspicion=told_of, pod=one)
    missing = _missing(status, ready, here, model, mode, whole=whole)
    # Without pods KServe calls a model pending.
    if not missing and (ready or with_pod) and not _is_loaded(told):
        missing = "the model to be loaded"
    if missing:
        return Verdict(waits_for=missing, suspicion=told_of, pod=one)
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
        if whole and latest_share(status) != 100:
            return "all traffic to go to the new revision"
    elif any(is_ready(pod) and model_of(pod) != model.model_id for pod in here):
        return "the pods of the model before to go"
    return ""


def latest_share(status: Mapping[str, Any]) -> int:
    """Return the newest revision's share of the traffic in Knative, in percent.

    Args:
        status: Of the InferenceService.
    """
    predictor = (status.get("components") or {}).get("predictor") or {}
    traffic = predictor.get("traffic") or []
    return sum(int(one.get("percent") or 0) for one in traffic if one.get("latestRevision"))


def _is_of(
    status: Mapping[str, Any],
    mine: list[dict[str, Any]],
    stale: Mapping[str, Any] | None,
    mode: Mode,
) -> bool:
    """Whether what a status says of pods can be about this model's."""
    if mode is not Mode.KNATIVE:
        return True  # the first of all pods': it counts only if it stays
    created = _created(status)
    if any((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) == created for pod in mine):
        return True
    return stale is None or created != _created(stale)


def _created(status: Mapping[str, Any]) -> str:
    predictor = (status.get("components") or {}).get("predictor") or {}
    return str(predictor.get("latestCreatedRevision") or "")


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


def _told_failure(status: Mapping[str, Any]) -> str:
    told = status.get("modelStatus") or {}
    if told.get("transitionStatus") in _FAILED:
        info = told.get("lastFailureInfo") or {}
        words = [str(info[key]) for key in ("reason", "message") if info.get(key)]
        return ": ".join([str(told["transitionStatus"]), *words])
    found = condition(status, "PredictorReady")
    if found.get("status") == "False" and found.get("reason") in _GRAVE:
        return f"{found['reason']}: {found.get('message', '')}".rstrip(": ")
    return ""
