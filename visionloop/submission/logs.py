"""Gets the log of a pod from Kubernetes, the API server or the UI, whichever answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from visionloop.cluster import Cluster, connect, failure_of
from visionloop.cluster.transport import Patience
from visionloop.errors import VisionloopError
from visionloop.submission.following import End
from visionloop.submission.reasons import Reason, paragraph_in, tail_of
from visionloop.submission.tasks import Task

RUN_LABEL = "pipeline/runid"
# Argo's: workflow, then the tasks down to this pod's, with dots in between.
_NODE = "workflows.argoproj.io/node-name"
_CONTAINER = "main"
# The reason stands at the end; a paragraph of ours may come before the launcher's own lines.
_READ_LINES = 400
_MOST_TASKS = 3
# There are other ways to the log: none of them is waited for.
_IMPATIENT = Patience(attempts=2)


class Logs:
    """The logs of one run.

    Args:
        client: kfp's client.
        run_id: The run.
        namespace: Namespace of its pods; empty looks where Kubeflow Pipelines keeps them.
        ui: Address of the UI, empty where there is none.
    """

    def __init__(self, client: Any, run_id: str, *, namespace: str, ui: str) -> None:
        self._client, self._run_id, self._namespace, self._ui = client, run_id, namespace, ui
        self._cluster: Cluster | None = None
        self._looked = False

    def reasons(self, end: End, *, lines: int) -> list[Reason]:
        """Return why the tasks of a run failed.

        Args:
            end: How the run ended.
            lines: Lines of each log that are kept.

        Returns:
            One reason a failed task, of at most three tasks.
        """
        failed = end.failed
        if not any(task.pods for task in failed):
            failed = self._failed_pods() or failed
        return [self._reason(task, end.created, lines) for task in failed[:_MOST_TASKS]]

    def held_up(self) -> list[str]:
        """Return what keeps pods of the run from working, one line each."""
        found = []
        for pod in self._pods():
            reason = failure_of(pod)
            if reason and pod.get("status", {}).get("phase") == "Pending":
                found.append(f"{_task_of(pod):<24} waits: {reason}")
        return found

    def _reason(self, task: Task, created: str, lines: int) -> Reason:
        for pod in reversed(task.pods):
            for source, ask in self._sources(created):
                log = ask(pod)
                if log.strip():
                    # One that broke off may have no more than a line in its container.
                    why = paragraph_in(log) or self._why(pod)
                    return Reason(task.name, pod, why, tail_of(log, lines), source)
        pod = task.pods[-1] if task.pods else ""
        return Reason(task.name, pod, self._why(pod), (), self._by_hand(pod))

    def _sources(self, created: str) -> list[tuple[str, Callable[[str], str]]]:
        ways: list[tuple[str, Callable[[str], str]]] = []
        if self._reachable():
            ways.append(("Kubernetes", self._from_kubernetes))
        ways.append(("the API server", self._from_api_server))
        if self._ui:
            ways.append(("the UI", lambda pod: self._from_ui(pod, created)))
        return ways

    def _from_kubernetes(self, pod: str) -> str:
        cluster = self._reachable()
        if cluster is None:
            return ""
        for namespace in self._namespaces(cluster):
            try:
                return cluster.logs(
                    pod, container=_CONTAINER, namespace=namespace, tail_lines=_READ_LINES
                )
            except VisionloopError:
                continue
        return ""

    def _from_api_server(self, pod: str) -> str:
        path = f"/apis/v1alpha1/runs/{quote(self._run_id)}/nodes/{quote(pod)}/log"
        text: str = self._client.text(path)
        return text

    def _from_ui(self, pod: str, created: str) -> str:
        query = {"podname": pod, "runid": self._run_id, "createdat": created}
        if self._namespace:
            query["podnamespace"] = self._namespace
        text: str = self._client.text(f"/k8s/pod/logs?{urlencode(query)}", base=self._ui)
        return text

    def _failed_pods(self) -> list[Task]:
        """Return failed tasks by their pods, where the server did not name those."""
        failed = [p for p in self._pods() if p.get("status", {}).get("phase") == "Failed"]
        return [
            Task(pod["metadata"]["name"], _task_of(pod), "FAILED", None, (pod["metadata"]["name"],))
            for pod in failed
        ]

    def _why(self, name: str) -> str:
        """Return what Kubernetes says of a pod: no memory, no node, no image."""
        for pod in self._pods():
            if pod["metadata"]["name"] == name:
                return failure_of(pod)
        return ""

    def _pods(self) -> list[dict[str, Any]]:
        cluster = self._reachable()
        if cluster is None:
            return []
        for namespace in self._namespaces(cluster):
            try:
                pods = cluster.list(
                    "v1", "Pod", namespace=namespace, label_selector=f"{RUN_LABEL}={self._run_id}"
                )
            except VisionloopError:
                continue
            if pods:
                return pods
        return []

    def _namespaces(self, cluster: Cluster) -> list[str]:
        likely = dict.fromkeys([cluster.namespace, "kubeflow"])
        return [self._namespace] if self._namespace else list(likely)

    def _reachable(self) -> Cluster | None:
        if not self._looked:
            self._looked = True
            try:
                cluster = connect(namespace=self._namespace, patience=_IMPATIENT)
                cluster.server_version()
                self._cluster = cluster
            except VisionloopError:
                # None is configured, which in CI is the rule, or this account may not see it.
                return None
        return self._cluster

    def _by_hand(self, pod: str) -> str:
        namespace = self._namespace or "kubeflow"
        what = pod or f"-l {RUN_LABEL}={self._run_id}"
        return (
            f"its log is not to be had from here; see it with: kubectl -n {namespace} logs {what}"
        )


def _task_of(pod: dict[str, Any]) -> str:
    """Return the task that a pod belongs to, by Argo's name of its node."""
    node = str(pod["metadata"].get("annotations", {}).get(_NODE, ""))
    parts = [part for part in node.split(".") if part and not part.startswith("executor")]
    return parts[-1] if parts else str(pod["metadata"]["name"])
