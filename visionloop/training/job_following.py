"""Follows a TrainJob: what it waits for, what its pods meet, and what the first of them writes."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from visionloop.cluster import Cluster, Forbidden, Refused, failure_of
from visionloop.cluster.pods import is_unschedulable
from visionloop.progress import log, relay
from visionloop.training.trainjob_document import API_VERSION, KIND, NODE, QUEUE_LABEL

# A stream is begun anew after so long.
_STREAM_SECONDS = 3600.0
# The last lines that a failed pod wrote.
_TAIL_LINES = 30
_LAST_LINES_SECONDS = 10.0


class Following(AbstractContextManager["Following"]):
    """A TrainJob that is watched, never polled, until it has ended.

    Args:
        cluster: Where it is.
        job: Its state when it was made or found.
        nodes: Pods that it has when all have started.

    Attributes:
        job: Its last state; None where there is none.
        ended: Whether it completed, failed or was deleted.
        succeeded: Whether it completed.
        failures: Why a pod fails or does not start, by its name.
        waiting_since: When it was admitted (`time.monotonic`), while its pods have not all started;
            None while it waits in a queue, and once they have.
        stuck_since: Since when a pod's container cannot be made; None where none is so.
    """

    def __init__(self, cluster: Cluster, job: dict[str, Any], *, nodes: int) -> None:
        name = job["metadata"]["name"]
        self.job: dict[str, Any] | None = job
        self.ended = self.succeeded = False
        self.failures: dict[str, str] = {}
        self.waiting_since: float | None = time.monotonic()
        self.stuck_since: float | None = None
        self._cluster, self._name, self._nodes = cluster, name, nodes
        # A TrainJob's pods are those of the JobSet of its name.
        self._selector = f"jobset.sigs.k8s.io/jobset-name={name}"
        self._pods: dict[str, dict[str, Any]] = {}
        self._suspended = False
        self._since = str(job["metadata"]["creationTimestamp"])
        self._news: queue.Queue[Callable[[], None]] = queue.Queue()
        self._readers: dict[str, threading.Thread] = {}
        self._told: dict[str, str] = {}
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        self._background(self._watch_job)
        self._background(self._watch_pods)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What the last lines say is worth a moment, where the job has ended by itself.
        until = time.monotonic() + (_LAST_LINES_SECONDS if error is None else 0.0)
        for reader in self._readers.values():
            reader.join(max(0.0, until - time.monotonic()))
        self._leaving.set()

    def look(self, seconds: float) -> None:
        """Take in what has happened; wait for it no longer than so many seconds.

        Args:
            seconds: How long to wait.

        Raises:
            VisionloopError: The cluster does not answer, or refuses.
        """
        try:
            self._news.get(timeout=seconds)()
            while not self.ended:
                self._news.get_nowait()()
        except queue.Empty:
            return

    def tell_failed_logs(self) -> str:
        """Write the last lines of the pods that failed to the log, and return the very last."""
        # The end of the job may be known before that of its pods.
        for state in self._cluster.list("v1", "Pod", label_selector=self._selector):
            self._take_pod("MODIFIED", state)
        last = ""
        for pod in sorted(self.failures):
            try:
                text = self._cluster.logs(pod, container=NODE, tail_lines=_TAIL_LINES)
            except Refused as error:
                # A pod that never ran has none; a right that lacks is named.
                if isinstance(error, Forbidden):
                    log(f"train: the log of the pod {pod} cannot be read: {error}")
                continue
            for line in text.splitlines():
                # What the first one wrote stands there already.
                if pod not in self._readers:
                    relay(pod, line)
                last = line or last
        return last

    def _background(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except Exception as error:
                # Told where the work is waited for.
                self._news.put(functools.partial(_raise, error))

        thread = threading.Thread(target=guarded, daemon=True, name=f"follows {self._name}")
        thread.start()
        return thread

    def _watch_job(self) -> None:
        while not self._leaving.is_set():
            for state in self._cluster.watch(
                API_VERSION, KIND, self._name, timeout_s=_STREAM_SECONDS
            ):
                self._news.put(functools.partial(self._take_job, state))
                if self._leaving.is_set():
                    return

    def _watch_pods(self) -> None:
        while not self._leaving.is_set():
            # Each stream begins with all pods that are there: of others no end is told.
            self._news.put(self._forget_pods)
            for event, pod in self._cluster.watch_list(
                "v1", "Pod", label_selector=self._selector, timeout_s=_STREAM_SECONDS
            ):
                self._news.put(functools.partial(self._take_pod, event, pod))
                if self._leaving.is_set():
                    return

    def _forget_pods(self) -> None:
        self._pods.clear()
        self.failures.clear()

    def _take_job(self, job: dict[str, Any] | None) -> None:
        self.job = job
        conditions = ((job or {}).get("status") or {}).get("conditions") or []
        true = {one["type"]: one for one in conditions if one["status"] == "True"}
        self.succeeded = "Complete" in true
        self.ended = job is None or self.succeeded or "Failed" in true
        if job is None or self.ended:
            return
        if job["spec"].get("suspend") or "Suspended" in true:
            queue_name = job["metadata"].get("labels", {}).get(QUEUE_LABEL)
            waits = f"waits for quota in the queue {queue_name}" if queue_name else "is suspended"
            self._say("it", waits)
            self.waiting_since, self._suspended = None, True
        elif self._suspended:
            self._say("it", "was admitted")
            self._suspended = False
            self.waiting_since = None if self._all_started() else time.monotonic()

    def _take_pod(self, event: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        if pod["metadata"]["creationTimestamp"] < self._since:
            return  # of the job that an earlier try had made, and that is being removed
        if event == "DELETED":
            self._pods.pop(name, None)
        else:
            self._pods[name] = pod
            if why := failure_of(pod):
                self.failures[name] = why
                self._say(f"the pod {name}", why)
            else:
                self.failures.pop(name, None)
            if _has_started(pod) and _is_first(pod) and name not in self._readers:
                self._readers[name] = self._background(self._copy_log, name)
        if self._all_started():
            self.waiting_since = None
        stuck = any(
            pod.get("status", {}).get("phase", "Pending") == "Pending"
            and failure_of(pod)
            and not is_unschedulable(pod)
            for pod in self._pods.values()
        )
        self.stuck_since = (self.stuck_since or time.monotonic()) if stuck else None

    def _all_started(self) -> bool:
        return sum(map(_has_started, self._pods.values())) >= self._nodes

    def _copy_log(self, pod: str) -> None:
        try:
            for line in self._cluster.follow_logs(
                pod, container=NODE, timeout_s=24 * _STREAM_SECONDS
            ):
                relay(pod, line)
        except Refused as error:
            # The training goes on, and its result does not depend on who reads along.
            log(f"train: the log of the pod {pod} cannot be followed: {error}")

    def _say(self, subject: str, text: str) -> None:
        """Tell a state once, and again when another has come between."""
        if self._told.get(subject) != text:
            self._told[subject] = text
            log(f"train: TrainJob {self._name}: {subject}: {text}")


def _has_started(pod: dict[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in ("Running", "Succeeded", "Failed")


def _is_first(pod: dict[str, Any]) -> bool:
    """Whether a pod holds the process that writes: the first of an indexed job."""
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get("batch.kubernetes.io/job-completion-index", "0")) == "0"


def _raise(error: Exception) -> None:
    raise error
