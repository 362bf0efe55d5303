"""Waits for a rollout by watching, and ends it at once when it has failed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from visionloop.cluster.pods import container_states, failure_of, is_unschedulable
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
from visionloop.serving.inference_service.verdict import Verdict, condition, judge

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster

LOG_LINES = 20
# A failure that was told before the rollout began, and is told so long after, is this one's too.
_STALE_SECONDS = 60.0


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
        on_wait: Told what is waited for, whenever that changes.

    Returns:
        A ready pod of the model; None where it may have scaled to none.

    Raises:
        RolloutFailed: It failed, with the pod's reason and the end of its log; or time ran out.
    """
    settings = endpoint.settings
    began = time.monotonic()
    service: dict[str, Any] | None = None
    pods: dict[str, dict[str, Any]] = {}
    homeless: dict[str, float] = {}
    verdict = Verdict(waits_for="the InferenceService")
    shown = ""

    def verdict_of(patient: bool) -> Verdict:
        return judge(
            service,
            [pod for name, pod in pods.items() if name not in stale_pods],
            model,
            mode,
            whole=whole,
            stale=stale if time.monotonic() - began < _STALE_SECONDS else None,
            patient=patient,
            with_pod=with_pod,
        )

    with _Changes(cluster, endpoint, settings.timeout_s) as changes:
        while True:
            now = time.monotonic()
            if now - began > settings.timeout_s:
                raise _out_of_time(endpoint, model, verdict, service)
            for kind, item in changes.take():
                if kind == "SERVICE":
                    service = item
                elif kind == "DELETED":
                    pods.pop(name_of(item), None)
                else:
                    pods[name_of(item)] = item
            without = {
                name
                for name, pod in pods.items()
                if is_unschedulable(pod) and name not in stale_pods
            }
            homeless = {name: homeless.get(name, now) for name in without}
            patient = all(now - since < settings.unschedulable_s for since in homeless.values())
            verdict = verdict_of(patient)
            if verdict.done:
                # All at once: a watch tells of pods one by one, of those of the model before last.
                pods = {name_of(pod): pod for pod in pods_of(cluster, endpoint)}
                verdict = verdict_of(patient)
            if verdict.failure:
                raise _failed(cluster, endpoint, model, verdict)
            if verdict.done:
                verdict = _confirmed(cluster, endpoint, model, verdict)
            if verdict.done:
                return verdict.pod
            if verdict.waits_for != shown:
                shown = verdict.waits_for
                on_wait(shown)


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
    except (VisionloopError, ValueError) as error:
        return replace(verdict, done=False, waits_for=f"pod {name_of(verdict.pod)}: {error}")
    if model.model_id in held:
        return verdict
    named = ", ".join(held) or "no model"
    return replace(verdict, done=False, waits_for=f"pod {name_of(verdict.pod)}, it has {named}")


def _failed(cluster: Cluster, endpoint: Endpoint, model: Served, verdict: Verdict) -> RolloutFailed:
    where, reason, pod = endpoint.where, verdict.failure, verdict.pod
    if pod is None or not failure_of(pod):
        # The status told first: a pod knows better.
        mine = (one for one in pods_of(cluster, endpoint) if model_of(one) == model.model_id)
        pod = next((one for one in mine if failure_of(one)), pod)
        told = failure_of(pod) if pod is not None else ""
        reason += f": {told}" if told else ""
    if pod is not None:
        where += f", pod {name_of(pod)}"
    tail = log_tail(cluster, endpoint, pod) if pod is not None else ""
    return RolloutFailed(
        f"model {model.model_id} does not come into service: {reason}"
        + (f"; the end of its log:\n{tail}\n" if tail else ""),
        where=where,
        remedy="Correct that and run the round again",
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
    endpoint: Endpoint, model: Served, verdict: Verdict, service: dict[str, Any] | None
) -> RolloutFailed:
    told = condition((service or {}).get("status") or {}, "Ready")
    words = ": ".join(str(told[key]) for key in ("reason", "message") if told.get(key))
    return RolloutFailed(
        f"model {model.model_id} did not come into service within "
        f"{endpoint.settings.timeout_s:g} s, it waits for {verdict.waits_for}"
        + (f" ({words})" if words else ""),
        where=endpoint.where,
        remedy="See `kubectl describe inferenceservice` and its pods; a slow start needs a larger "
        "serving.kserve.timeout_s",
    )
