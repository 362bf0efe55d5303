"""Waits for a rollout by watching, and ends it at once when it has failed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.cluster.pods import container_states, is_unschedulable, lasting_failure
from visionloop.cluster.refusals import Forbidden
from visionloop.errors import VisionloopError
from visionloop.serving.inference_service.documents import CONTAINER
from visionloop.serving.inference_service.endpoint import API_VERSION, KIND, Endpoint, Mode, Served
from visionloop.serving.inference_service.pods import (
    model_of,
    name_of,
    pods_of,
    selector,
    served_models,
)
from visionloop.serving.inference_service.trouble import flags_for, node_comes, refused_pods
from visionloop.serving.inference_service.verdict import Verdict, condition, judge

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster

LOG_LINES = 20
# What a status or an event says against a rollout counts once it stayed for so long: a controller
# tells of a conflict that it tries again, or still of the model before.
LASTING_SECONDS = 45.0
# A cluster says within so long whether it makes a node for a pod.
AUTOSCALER_SECONDS = 30.0
# Between two looks at what no watch tells: events, the record of the rollout.
_LOOK_SECONDS = 5.0
_LONGEST_PAUSE = 15.0


class RolloutFailed(VisionloopError):
    """A model did not become ready, or does not answer as it should."""


def wait_for_rollout(
    cluster: Cluster,
    endpoint: Endpoint,
    model: Served,
    mode: Mode,
    *,
    whole: bool,
    with_pod: bool = True,
    stale: dict[str, Any] | None = None,
    stale_pods: Collection[str] = (),
    pods_only: bool = False,
    replicas: int = 1,
    guard: Callable[[], None] = lambda: None,
    on_wait: Callable[[str], None] = lambda text: None,
) -> dict[str, Any] | None:
    """Wait until a model is ready and loaded.

    Args:
        cluster: Where it is rolled out.
        endpoint: The InferenceService.
        model: The model.
        mode: How it is rolled out.
        whole: Until it takes all the traffic.
        with_pod: Until it has a pod, too; one that scales to none may have none.
        stale: Status of the InferenceService before the rollout began.
        stale_pods: Pods that failed before it began, of an earlier try.
        pods_only: Only its own pods can tell that it fails.
        replicas: Pods that must be ready.
        guard: Called every few seconds; raises where nobody shall wait any longer.
        on_wait: Told what is waited for, whenever that changes.

    Returns:
        A ready pod of the model; None where it may have scaled to none.

    Raises:
        RolloutFailed: It failed, with the pod's reason and the end of its log; or time ran out.
    """
    settings = endpoint.settings
    began, started = time.monotonic(), datetime.now(UTC)
    service: dict[str, Any] | None = None
    pods: dict[str, dict[str, Any]] = {}
    homeless = _Homeless(cluster, endpoint)
    verdict = Verdict(waits_for="the InferenceService")
    shown, events = "", ""
    looked = suspected = began
    ask_at, pause = began, 1.0

    def verdict_now() -> Verdict:
        seen = [pod for name, pod in pods.items() if name not in stale_pods]
        now = time.monotonic()
        return judge(
            service,
            seen,
            model,
            mode,
            whole=whole,
            stale=stale if now - began < LASTING_SECONDS else None,
            patient=homeless.may_wait([pod for pod in seen if model_of(pod) == model.model_id]),
            with_pod=with_pod,
            pods_only=pods_only,
            replicas=replicas,
        )

    with _Changes(cluster, endpoint, settings.timeout_s) as changes:
        while True:
            now = time.monotonic()
            if now - began > settings.timeout_s:
                raise _out_of_time(endpoint, model, verdict, service, events)
            for kind, item in changes.take():
                if kind == "SERVICE":
                    service = item
                elif kind == "DELETED":
                    pods.pop(name_of(item), None)
                else:
                    pods[name_of(item)] = item
            verdict = verdict_now()
            if verdict.done:
                # All at once: a watch tells of pods one by one, of those of the model before last.
                pods = {name_of(pod): pod for pod in pods_of(cluster, endpoint)}
                verdict = verdict_now()
            if now - looked > _LOOK_SECONDS:
                looked = now
                guard()
                none = not any(model_of(pod) == model.model_id for pod in pods.values())
                events = refused_pods(cluster, endpoint, model, started) if none else ""
            suspicion = "" if verdict.done else verdict.suspicion or events
            suspected = suspected if suspicion else now
            if suspicion and now - suspected > LASTING_SECONDS:
                verdict = replace(verdict, failure=suspicion)
            if verdict.failure:
                raise _failed(cluster, endpoint, model, verdict)
            if verdict.done and now < ask_at:
                verdict = replace(verdict, done=False, waits_for=shown)
            elif verdict.done:
                verdict = _confirmed(cluster, endpoint, model, verdict)
                ask_at, pause = time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE)
            if verdict.done:
                return verdict.pod
            if verdict.waits_for != shown:
                shown = verdict.waits_for
                on_wait(shown)


class _Homeless:
    """Pods that the scheduler finds no node for, and whether one is made for them."""

    def __init__(self, cluster: Cluster, endpoint: Endpoint) -> None:
        self._cluster, self._endpoint = cluster, endpoint
        self._since: dict[str, float] = {}
        self._comes: dict[str, bool | None] = {}
        self._looked = 0.0

    def may_wait(self, pods: list[dict[str, Any]]) -> bool:
        """Return whether each of the pods that have no node may still get one.

        Args:
            pods: Pods of the model that is waited for.
        """
        now = time.monotonic()
        names = [name_of(pod) for pod in pods if is_unschedulable(pod)]
        self._since = {name: self._since.get(name, now) for name in names}
        if names and now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._comes = {name: node_comes(self._cluster, self._endpoint, name) for name in names}
        return all(self._waits(name, now - since) for name, since in self._since.items())

    def _waits(self, name: str, seconds: float) -> bool:
        if seconds < self._endpoint.settings.unschedulable_s:
            return True
        comes = self._comes.get(name)
        return seconds < AUTOSCALER_SECONDS if comes is None else comes


class _Changes:
    """What happens to an InferenceService and to its pods, of two watches at once."""

    def __init__(self, cluster: Cluster, endpoint: Endpoint, timeout_s: float) -> None:
        self._news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._over = threading.Event()
        where: dict[str, Any] = {"namespace": endpoint.namespace, "timeout_s": timeout_s}
        service = cluster.watch(API_VERSION, KIND, endpoint.name, **where)
        self._sources: list[Iterator[tuple[str, Any]]] = [
            (("SERVICE", state) for state in service),
            cluster.watch_list("v1", "Pod", label_selector=selector(endpoint), **where),
        ]

    def __enter__(self) -> _Changes:
        for source in self._sources:
            threading.Thread(target=self._follow, args=(source,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        # A thread that waits for the next change ends with it, or with its watch.
        self._over.set()

    def take(self) -> list[tuple[str, Any]]:
        """Return what came since the last call; waits a second at most for the first of it.

        Raises:
            VisionloopError: A watch failed.
        """
        found = []
        try:
            found.append(self._news.get(timeout=1.0))
            while True:
                found.append(self._news.get_nowait())
        except queue.Empty:
            pass
        for kind, item in found:
            if kind == "ERROR":
                raise item
        return found

    def _follow(self, source: Iterator[tuple[str, Any]]) -> None:
        try:
            for change in source:
                if self._over.is_set():
                    return
                self._news.put(change)
        except Exception as error:  # told in the thread that waits
            self._news.put(("ERROR", error))


def _confirmed(cluster: Cluster, endpoint: Endpoint, model: Served, verdict: Verdict) -> Verdict:
    """Ask the pod itself which model it holds, where it can say."""
    if verdict.pod is None or endpoint.triton:
        return verdict
    try:
        held = served_models(cluster, endpoint, verdict.pod)
    except Forbidden as error:
        # Nobody gives a right because it is waited for.
        raise RolloutFailed(error.what, where=error.where, remedy=error.remedy) from error
    except (VisionloopError, ValueError) as error:
        words = f"an answer of pod {name_of(verdict.pod)} over the API server's proxy: {error}"
        return replace(verdict, done=False, waits_for=words)
    if model.model_id in held:
        return verdict
    named = ", ".join(held) or "no model"
    return replace(verdict, done=False, waits_for=f"pod {name_of(verdict.pod)}, it has {named}")


def _failed(cluster: Cluster, endpoint: Endpoint, model: Served, verdict: Verdict) -> RolloutFailed:
    where, reason, pod = endpoint.where, verdict.failure, verdict.pod
    if pod is None or not lasting_failure(pod):
        # The status told first: a pod knows better.
        mine = (one for one in pods_of(cluster, endpoint) if model_of(one) == model.model_id)
        pod = next((one for one in mine if lasting_failure(one)), pod)
        told = lasting_failure(pod) if pod is not None else ""
        reason += f": {told}" if told else ""
    if pod is not None:
        where += f", pod {name_of(pod)}"
    tail = log_tail(cluster, endpoint, pod) if pod is not None else ""
    return RolloutFailed(
        f"model {model.model_id} does not come into service: {reason}"
        + (f"; the end of its log:\n{tail}\n" if tail else ""),
        where=where,
        remedy=flags_for(reason) or "Correct that and run the round, or the rollback, again",
    )


def log_tail(cluster: Cluster, endpoint: Endpoint, pod: dict[str, Any]) -> str:
    """Return the last lines of the container that failed, or of the predictor.

    Args:
        cluster: Where the pod runs.
        endpoint: The InferenceService.
        pod: The pod.
    """
    container = CONTAINER
    for name, state in container_states(pod):
        if state.get("terminated", {}).get("exitCode") or state.get("waiting", {}).get(
            "reason"
        ) in ("CrashLoopBackOff", "Error"):
            container = name
            break
    for previous in (False, True):
        try:
            text = cluster.logs(
                name_of(pod),
                container=container,
                namespace=endpoint.namespace,
                tail_lines=LOG_LINES,
                previous=previous,
            ).strip()
        except VisionloopError:
            continue  # it never ran, or may not be read: the reason stands without it
        if text:
            return text
    return ""


def _out_of_time(
    endpoint: Endpoint,
    model: Served,
    verdict: Verdict,
    service: dict[str, Any] | None,
    events: str,
) -> RolloutFailed:
    told = condition((service or {}).get("status") or {}, "Ready")
    words = ": ".join(str(told[key]) for key in ("reason", "message") if told.get(key))
    words = "; ".join(filter(None, [verdict.suspicion or events, words]))
    remedy = "See `kubectl describe inferenceservice` and its pods; a slow start needs a larger "
    remedy += "serving.kserve.timeout_s"
    if "proxy" in verdict.waits_for:
        remedy = (
            "Let the API server reach the pods' port 8080: a NetworkPolicy, a firewall in front of "
            "the nodes or a service mesh with strict mTLS keeps it out"
        )
    return RolloutFailed(
        f"model {model.model_id} did not come into service within "
        f"{endpoint.settings.timeout_s:g} s, it waits for {verdict.waits_for}"
        + (f" ({words})" if words else ""),
        where=endpoint.where,
        remedy=remedy,
    )
